"""The methods of `neuralpde bench integrators`, each with settings that reach the error its table asks for."""

from __future__ import annotations

from collections.abc import Mapping

from integrators import (
    ARK324,
    ETDRK2,
    ETDRK4,
    RKC2,
    RKL2,
    SBDF2,
    SDIRK3,
    CaratheodoryFejer,
    Exponential,
    Integrator,
    RadauIIA5,
    StoermerVerlet,
    Tsit5,
    Yoshida4,
)

Methods = Mapping[str, Integrator]

# table: (error asked for, rtol of the other libraries' dopri5, our methods)
METHODS: dict[str, tuple[float, float, Methods]] = {
    "heat-1e-3": (
        1e-3,
        1e-3,
        {
            "CaratheodoryFejer": CaratheodoryFejer(tol=5e-4),
            "Exponential": Exponential(tol=3e-4),
            "SDIRK3": SDIRK3(rtol=0.3, atol=3e-2),
            "RadauIIA5": RadauIIA5(rtol=0.3, atol=3e-2),
            "RKC2": RKC2(rtol=1e-2, atol=1e-3),
        },
    ),
    "heat-1e-6": (
        1e-6,
        1e-6,
        {
            "CaratheodoryFejer": CaratheodoryFejer(tol=5e-7),
            "Exponential": Exponential(tol=3e-7),
            "SDIRK3": SDIRK3(rtol=1e-4, atol=1e-6),
            "RadauIIA5": RadauIIA5(rtol=1e-4, atol=1e-6),
            "RKC2": RKC2(rtol=1e-6, atol=1e-7),
        },
    ),
    "cahn-hilliard-1e-3": (
        1e-3,
        1e-3,
        {
            "SBDF2": SBDF2(dt=1e-3),
            "ARK324": ARK324(rtol=1e-3, atol=1e-5),
            "ETDRK2": ETDRK2(dt=2e-3),
            "ETDRK4": ETDRK4(dt=5e-3),
        },
    ),
    "cahn-hilliard-1e-6": (
        1e-6,
        1e-6,
        {
            "SBDF2": SBDF2(dt=5e-5),
            "ARK324": ARK324(rtol=1e-6, atol=1e-8),
            "ETDRK4": ETDRK4(dt=1e-3),
        },
    ),
    "allen-cahn-1e-3": (
        1e-3,
        1e-3,
        {
            "SBDF2": SBDF2(dt=0.05),
            "ARK324": ARK324(rtol=1e-3, atol=1e-5),
            "ETDRK2": ETDRK2(dt=0.1),
            "ETDRK4": ETDRK4(dt=0.25),
            "RKC2": RKC2(rtol=1e-3, atol=1e-5),
        },
    ),
    "allen-cahn-1e-6": (
        1e-6,
        1e-6,
        {
            "ARK324": ARK324(rtol=1e-6, atol=1e-8),
            "ETDRK4": ETDRK4(dt=0.05),
            "RKC2": RKC2(rtol=1e-6, atol=1e-8),
        },
    ),
    "wave": (
        1e-8,
        1e-6,
        {
            "Exponential": Exponential(),
            "Yoshida4": Yoshida4(dt=2e-3),
            "StoermerVerlet": StoermerVerlet(dt=5e-3),
        },
    ),
    "grand": (
        1e-3,
        1e-3,
        {
            "Exponential": Exponential(tol=1e-4),
            "RKC2": RKC2(rtol=1e-3, atol=1e-5),
            "RKL2": RKL2(dt=2.0),
            "Tsit5": Tsit5(rtol=1e-3, atol=1e-5),
        },
    ),
}
