"""The methods of `neuralpde bench integrators`, each with settings that reach the error its table asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from integrators import (
    ARK324,
    ETDRK4,
    RKC2,
    SBDF2,
    SDIRK3,
    CaratheodoryFejer,
    Exponential,
    Integrator,
    RadauIIA5,
    StoermerVerlet,
    Tsit5,
    Yoshida6,
)

Methods = Mapping[str, Integrator]

# table: (error asked for, rtol of the other libraries' dopri5, our methods for a horizon T)
METHODS: dict[str, tuple[float, float, Callable[[float], Methods]]] = {
    "heat-1e-3": (
        1e-3,
        1e-3,
        lambda T: {
            "CaratheodoryFejer": CaratheodoryFejer(tol=1e-4),
            "Exponential": Exponential(tol=5e-4),
            "RadauIIA5": RadauIIA5(dt=T / 3),
            "SDIRK3": SDIRK3(dt=T / 10),
            "RKC2": RKC2(rtol=1e-3, atol=1e-4),
        },
    ),
    "heat-1e-6": (
        1e-6,
        1e-6,
        lambda T: {
            "CaratheodoryFejer": CaratheodoryFejer(tol=1e-6),
            "Exponential": Exponential(tol=5e-7),
            "RadauIIA5": RadauIIA5(dt=T / 9),
            "SDIRK3": SDIRK3(dt=T / 80),
        },
    ),
    "cahn-hilliard-1e-3": (
        1e-3,
        1e-3,
        lambda T: {
            "SBDF2": SBDF2(dt=T / 26),
            "ARK324": ARK324(dt=T / 16),
            "ETDRK4": ETDRK4(dt=T / 4),
        },
    ),
    "cahn-hilliard-1e-6": (
        1e-6,
        1e-6,
        lambda T: {
            "SBDF2": SBDF2(dt=T / 800),
            "ARK324": ARK324(dt=T / 160),
            "ETDRK4": ETDRK4(dt=T / 28),
        },
    ),
    "allen-cahn-1e-3": (
        1e-3,
        1e-3,
        lambda T: {
            "SBDF2": SBDF2(dt=T / 200),
            "ARK324": ARK324(rtol=1e-2, atol=1e-4),
            "RKC2": RKC2(rtol=3e-4, atol=3e-6),
        },
    ),
    "allen-cahn-1e-6": (
        1e-6,
        1e-6,
        lambda T: {
            "ARK324": ARK324(rtol=1.3e-5, atol=1.3e-7),
            "SBDF2": SBDF2(dt=T / 12000),
            "ETDRK4": ETDRK4(dt=T / 320),
        },
    ),
    "wave": (
        1e-8,
        1e-6,
        lambda T: {
            "Exponential": Exponential(tol=1e-9),
            "Yoshida6": Yoshida6(dt=T / 4000),
            "StoermerVerlet": StoermerVerlet(dt=T / 2000),
        },
    ),
    "grand": (
        1e-3,
        1e-3,
        lambda T: {
            "Exponential": Exponential(tol=5e-3),
            "RKC2": RKC2(rtol=1e-3, atol=1e-4),
            "Tsit5": Tsit5(rtol=1e-3, atol=1e-5),
        },
    ),
}
