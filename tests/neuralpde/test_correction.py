"""Physics with a correction inside: the split, the invariants, and the solver's steps."""

import torch

from integrators import RK4, SBDF2, Direct, Dopri5, integrate
from neuralpde.beltrami import BeltramiFlow
from neuralpde.closure import Closure, ConservativeClosure
from neuralpde.correction import Corrected
from neuralpde.heat import Heat
from neuralpde.invariants import Mass
from neuralpde.phase_field import CahnHilliard
from neuralpde.rewired import Rewired, features
from neuralpde.rhs import FromFunction, RightHandSide
from operators import icosphere, robust_laplacian
from operators.attention import ScaledDotProduct
from operators.domains import Graph
from operators.rewiring import NearestNeighbours
from operators.stages import Stages

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


def attention() -> ScaledDotProduct:
    torch.manual_seed(0)
    made = ScaledDotProduct(L, 1, 4)
    torch.nn.init.normal_(made.query.weight)
    return made


class Around(torch.nn.Module):
    """A plain module that hands its right-hand side's own times and starts on."""

    def __init__(self, f: RightHandSide) -> None:
        super().__init__()
        self.f, self.jumps, self.restarts = f, f.jumps, f.restarts
        self.starting_at, self.restarting_at = f.starting_at, f.restarting_at

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.f(t, x)


def test_what_remembers_its_start_does_so_in_a_correction() -> None:
    """A frozen flow, a source, stages and rewiring are the same beside a correction of zero, and as the correction."""
    here = NearestNeighbours(3)
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), 42, torch.zeros(0, dtype=torch.float64))
    flows = [
        BeltramiFlow(attention(), 2.0, source=0.5, frozen=True),
        BeltramiFlow(attention(), 2.0, source=0.5),
        BeltramiFlow(Stages([attention(), ScaledDotProduct(L, 1, 4)], [0.33])),
        Rewired(BeltramiFlow(ScaledDotProduct(empty, 1, 4), frozen=True), here, [0.33], of=features),
    ]
    nothing = 0.0 * Heat(L)
    for flow in flows:
        alone = integrate(flow, U, [0.0, 1.0], RK4(dt=0.1)).final
        zero = FromFunction(lambda t, x: 0 * x)
        for f in (Corrected(flow, zero), Corrected(nothing, flow), FromFunction(Around(flow))):
            assert (f.jumps, f.restarts) == (flow.jumps, flow.restarts)
            torch.testing.assert_close(integrate(f, U, [0.0, 1.0], RK4(dt=0.1)).final, alone, rtol=1e-12, atol=1e-12)
