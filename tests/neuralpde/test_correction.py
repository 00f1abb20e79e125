"""Physics with a correction inside: the split, the invariants, and the solver's steps."""

import torch

from integrators import SBDF2, Direct, Dopri5, integrate
from neuralpde.closure import Closure, ConservativeClosure
from neuralpde.correction import Corrected
from neuralpde.heat import Heat
from neuralpde.invariants import Mass
from neuralpde.phase_field import CahnHilliard
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))
U = torch.randn(42, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T0 = torch.zeros((), dtype=torch.float64)


def awake(closure: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for p in closure.parameters():
        p.data = 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def test_untrained_it_is_the_physics() -> None:
    physics = CahnHilliard(L, 0.5)
    f = Corrected(physics, ConservativeClosure(L))
    assert torch.equal(f(T0, U), physics(T0, U))
    assert f.uncorrected is physics


def test_linear_and_nonlinear_are_the_whole() -> None:
    closure = ConservativeClosure(L)
    awake(closure)
    for physics in (CahnHilliard(L, 0.5), Heat(L)):
        f = Corrected(physics, closure)
        torch.testing.assert_close(f(T0, U), f.linear @ U + f.nonlinear(T0, U), rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(f(T0, U), physics(T0, U) + closure(T0, U), rtol=1e-12, atol=1e-9)


def test_the_correction_is_never_implicit() -> None:
    # A linear correction would change the factor at each training step.
    f = Corrected(CahnHilliard(L, 0.5), Heat(L, 0.1))
    torch.testing.assert_close(f.linear @ U, f.physics.linear @ U)
    torch.testing.assert_close(f(T0, U), f.linear @ U + f.nonlinear(T0, U), rtol=1e-12, atol=1e-9)


def test_physics_without_structure() -> None:
    f = Corrected(lambda t, x: -x, lambda t, x: 0.5 * x)
    assert f.linear is None
    assert f.nonlinear is None
    solution = integrate(f, U, [0.0, 1.0], Dopri5(1e-9, 1e-9))
    torch.testing.assert_close(solution.final, U * torch.exp(torch.tensor(-0.5, dtype=torch.float64)), rtol=1e-7, atol=1e-8)


def test_mass_stays_declared_and_kept() -> None:
    conservative, plain = ConservativeClosure(L), Closure(L)
    awake(conservative)
    f = Corrected(CahnHilliard(L, 0.5), conservative)
    (mass,) = (i for i in f.invariants if isinstance(i, Mass))
    path = integrate(f, 0.3 * U, [0.01 * k for k in range(20)], SBDF2(dt=0.01, gradient=Direct())).x
    assert mass.violation(path) < 1e-12
    assert Corrected(CahnHilliard(L, 0.5), plain).invariants == ()


def test_symmetries_are_those_of_both() -> None:
    physics = CahnHilliard(L, 0.5)
    assert set(Corrected(physics, ConservativeClosure(L)).symmetries) == set(physics.symmetries)
    assert Corrected(physics, lambda t, x: x).symmetries == ()
