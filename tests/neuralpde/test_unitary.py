"""Strict unitary flows keep norm and Rayleigh quotient; with dissipation both can only fall."""

import copy
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from integrators.checkpointed import Checkpointed
from integrators.exponential import ExactFlow
from integrators.gradients import Direct
from neuralpde import (
    BackwardEuler,
    DirichletEnergy,
    Exponential,
    Laplacian,
    Law,
    Mass,
    Norm,
    Rayleigh,
    TruncatedTaylor,
    UnitaryFlow,
    combinatorial_laplacian,
    icosphere,
    integrate,
    normalized_laplacian,
    random_walk_laplacian,
    robust_laplacian,
    symmetric_laplacian,
    taylor_remainder,
    torus,
)
from neuralpde.testing import fields, graphs, meshes, roundoff

LAPLACIANS = st.one_of(
    graphs(min_nodes=2).map(combinatorial_laplacian),
    graphs(min_nodes=2).map(random_walk_laplacian),
    graphs(min_nodes=2).map(symmetric_laplacian),
    meshes(slivers=False).map(robust_laplacian),
    meshes().map(lambda mesh: normalized_laplacian(robust_laplacian(mesh))),
)
NORMALIZED = st.one_of(
    graphs(min_nodes=2).map(symmetric_laplacian),
    graphs(min_nodes=2).map(lambda graph: normalized_laplacian(combinatorial_laplacian(graph))),
    meshes().map(lambda mesh: normalized_laplacian(robust_laplacian(mesh))),
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
COMPLEX = pytest.mark.parametrize("complex_valued", [False, True])


def times(flow: UnitaryFlow, angle: float, steps: int) -> torch.Tensor:
    """Output times a given ‖hG‖ apart."""
    bound = flow.linear.norm_bound()
    return torch.arange(steps + 1, dtype=torch.float64) * (angle / bound if bound > 0 else 1.0)


def rounding(flow: UnitaryFlow, products: int) -> float:
    """Each product sums over a row and over the channels; `Exponential` adds a remainder of u/4 a step."""
    crow = flow.laplacian.stiffness.pattern.crow
    terms = int((crow[1:] - crow[:-1]).max()) + flow.mixing.V.shape[0] + 8
    return 4 * terms * products * roundoff(flow.laplacian.dtype)


def draw_state(data: st.DataObject, n: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    x = data.draw(fields(n, width, dtype=dtype))
    assume(bool(x.abs().sum() > 0))
    return x


def assert_kept(flow: UnitaryFlow, path: torch.Tensor, tolerance: float) -> None:
    for invariant in flow.invariants:
        assert invariant.violation(path) <= tolerance, invariant.name


def check_strict(flow: UnitaryFlow, x: torch.Tensor, angle: float, steps: int) -> None:
    with torch.no_grad():
        solution = integrate(flow, x, times(flow, angle, steps), Exponential())
    assert solution.x.dtype == x.dtype
    kinds = {type(invariant): invariant.law for invariant in flow.invariants}
    assert kinds.keys() >= {Norm, Rayleigh, DirichletEnergy}
    assert set(kinds.values()) == {Law.CONSERVED}
    assert_kept(flow, solution.x, rounding(flow, solution.stats.nfe))


def randomize(flow: UnitaryFlow, scale: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)


@DTYPES
@COMPLEX
@given(data=st.data(), angle=st.sampled_from([0.3, 2.0]))
def test_strict_flow_keeps_norm_and_rayleigh_quotient(dtype, complex_valued, data, angle):
    laplacian = data.draw(LAPLACIANS).to(dtype)
    flow = UnitaryFlow(laplacian, 3, complex_valued=complex_valued)
    randomize(flow)
    state = dtype.to_complex() if complex_valued or data.draw(st.booleans(), label="complex state") else dtype
    check_strict(flow, draw_state(data, laplacian.shape[0], 3, state), angle, 20)


@DTYPES
@given(data=st.data(), angle=st.sampled_from([0.3, 2.0]))
def test_strict_flow_through_the_adjacency(dtype, data, angle):
    laplacian = data.draw(NORMALIZED).to(dtype)
    flow = UnitaryFlow(laplacian, 2, adjacency=True)
    randomize(flow)
    check_strict(flow, draw_state(data, laplacian.shape[0], 2, dtype), angle, 20)


@DTYPES
@pytest.mark.parametrize("adjacency", [False, True])
def test_strict_flow_on_real_meshes(dtype, adjacency, real_mesh):
    laplacian = robust_laplacian(real_mesh)
    laplacian = (normalized_laplacian(laplacian) if adjacency else laplacian).to(dtype)
    flow = UnitaryFlow(laplacian, 4, adjacency=adjacency, complex_valued=adjacency)
    randomize(flow)
    x = torch.randn(laplacian.shape[0], 4, dtype=dtype.to_complex() if adjacency else dtype)
    check_strict(flow, x, 2.0, 5)


def test_strict_flow_moves():
    flow = UnitaryFlow(robust_laplacian(icosphere(1)), 2, scale=1.0)
    x = torch.randn(42, 2, dtype=torch.float64)
    path = integrate(flow, x, times(flow, 1.0, 1), Exponential()).x
    assert bool((path[1] - path[0]).norm() > 0.1 * x.norm())


@given(data=st.data(), order=st.integers(1, 6), angle=st.floats(0.05, 1.0))
def test_truncation_drifts_within_its_remainder(data, order, angle):
    laplacian = data.draw(LAPLACIANS)
    flow = UnitaryFlow(laplacian, 2)
    randomize(flow)
    x = draw_state(data, laplacian.shape[0], 2, torch.float64)
    steps = 5
    with torch.no_grad():
        solution = integrate(flow, x, times(flow, angle, steps), TruncatedTaylor(dt=math.inf, order=order))
    drift = (1 + taylor_remainder(angle, order)) ** steps - 1
    norm = next(i for i in flow.invariants if isinstance(i, Norm))
    assert norm.violation(solution.x) <= drift + rounding(flow, solution.stats.nfe)


def test_truncation_breaks_the_law_that_the_exponential_keeps():
    flow = UnitaryFlow(robust_laplacian(icosphere(1)), 4, scale=1.0)
    x = torch.randn(42, 4, dtype=torch.float64)
    t = times(flow, 1.5, 10)
    exact, cut = (integrate(flow, x, t, solver).x for solver in (Exponential(), TruncatedTaylor(dt=math.inf, order=1)))
    for invariant in flow.invariants:
        assert invariant.violation(exact) < 1e-12
        if not isinstance(invariant, Mass):
            assert invariant.violation(cut) > 1e-3


@DTYPES
@COMPLEX
@given(data=st.data(), angle=st.sampled_from([0.3, 2.0]), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_dissipation_never_increases_anything(dtype, complex_valued, data, angle, scale):
    laplacian = data.draw(LAPLACIANS).to(dtype)
    flow = UnitaryFlow(laplacian, 2, dissipation=1.0, complex_valued=complex_valued)
    randomize(flow, scale)
    state = dtype.to_complex() if complex_valued else dtype
    x = draw_state(data, laplacian.shape[0], 2, state)
    with torch.no_grad():
        solution = integrate(flow, x, times(flow, angle, 10), Exponential())
    laws = {type(invariant): invariant.law for invariant in flow.invariants}
    assert all(laws[kind] is Law.NON_INCREASING for kind in (Norm, Rayleigh, DirichletEnergy))
    # The Rayleigh quotient divides by a norm that has fallen; its round-off grows by as much.
    norms = Norm(laplacian).measure(solution.x.to(torch.complex128))
    shrunk = float((norms[0] / norms.clamp(min=1e-300)).max())
    tolerance = rounding(flow, solution.stats.nfe)
    for invariant in flow.invariants:
        factor = shrunk if isinstance(invariant, Rayleigh) else 1.0
        assert invariant.violation(solution.x) <= 4 * factor * tolerance, invariant.name


def test_dissipation_smooths_at_the_rate_of_the_variance():
    """dR/dt = −2γ Var(L)."""
    laplacian = robust_laplacian(icosphere(1))
    flow = UnitaryFlow(laplacian, 2, dissipation=0.7)
    x = torch.randn(42, 2, dtype=torch.float64)
    square = laplacian.inner(x, x)
    mean = laplacian.inner(x, laplacian @ x) / square
    variance = laplacian.inner(laplacian @ x, laplacian @ x) / square - mean**2
    h = 1e-6
    path = integrate(flow, x, [0.0, h], Exponential()).x
    slope = Rayleigh(laplacian).measure(path).diff() / h
    torch.testing.assert_close(slope[0], -2 * 0.7 * variance, rtol=1e-3, atol=0)


def test_mass_is_declared_where_it_is_kept():
    surface = robust_laplacian(icosphere(1))
    normal = normalized_laplacian(robust_laplacian(torus(9, 5)))
    kinds = {
        True: UnitaryFlow(surface, 2),
        False: UnitaryFlow(normal, 2, adjacency=True),
    }
    for declared, flow in kinds.items():
        assert any(isinstance(i, Mass) for i in flow.invariants) is declared
    relaxed = UnitaryFlow(surface, 2, dissipation=0.1)
    assert any(isinstance(i, Mass) and i.law is Law.CONSERVED for i in relaxed.invariants)
    assert relaxed.dissipative
    assert not UnitaryFlow(surface, 2).dissipative


def test_on_shares_parameters_and_changes_the_operator():
    flow = UnitaryFlow(robust_laplacian(icosphere(1)), 2, dissipation=0.5)
    moved = flow.on(torus(9, 5))
    assert moved.mixing.V is flow.mixing.V
    assert moved.log_dissipation is flow.log_dissipation
    assert (moved.laplacian.shape[0], flow.laplacian.shape[0]) == (45, 42)


def test_gradients_reach_every_parameter():
    flow = UnitaryFlow(robust_laplacian(icosphere(1)), 2, dissipation=0.5)
    path = integrate(flow, torch.randn(42, 2, dtype=torch.float64), [0.0, 0.1], Exponential()).x
    path[-1, :, 0].square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in flow.parameters())


def test_refusals_name_the_cure():
    surface: Laplacian = robust_laplacian(icosphere(0))
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="dissipation must start positive"):
            UnitaryFlow(surface, 2, dissipation=bad)
    with pytest.raises(NotImplementedError, match="use Exponential"):
        integrate(UnitaryFlow(surface, 2), torch.ones(12, 2, dtype=torch.float64), [0.0, 1.0], BackwardEuler(dt=0.1))


@COMPLEX
@pytest.mark.parametrize("adjacency", [False, True])
@pytest.mark.parametrize("dissipation", [None, 0.7])
def test_the_linear_part_knows_its_exact_flow(complex_valued, adjacency, dissipation):
    laplacian = robust_laplacian(icosphere(0))
    flow = UnitaryFlow(laplacian, 2, adjacency=adjacency, dissipation=dissipation, complex_valued=complex_valued, scale=1.0)
    part = flow.linear
    assert isinstance(part, ExactFlow)
    x = torch.randn(12, 2, dtype=torch.complex128 if complex_valued else torch.float64)
    basis = torch.eye(24, dtype=x.dtype).reshape(24, 12, 2)
    G = (part @ basis).reshape(24, 24).T
    for h in (0.3, -0.1):
        exact = (torch.linalg.matrix_exp(h * G) @ x.reshape(-1)).reshape(12, 2)
        with torch.no_grad():
            assert float((part.exponential(h, x) - exact).norm()) <= 1e-11 * float(exact.norm() + x.norm())
            assert part.exponential_products(h, 1e-3) < part.exponential_products(h, None)


def test_what_is_kept_between_steps_follows_the_parameters():
    flow = UnitaryFlow(robust_laplacian(icosphere(0)), 2, dissipation=0.5)
    part, x = flow.linear, torch.randn(12, 2, dtype=torch.float64)
    with torch.no_grad():
        first = part.exponential(0.1, x)
        assert torch.equal(part.exponential(0.1, x), first)
        flow.mixing.V.mul_(2)
        second = part.exponential(0.1, x)
        flow.log_dissipation.add_(1)
        third = part.exponential(0.1, x)
    for one, other in ((first, second), (second, third)):
        assert float((one - other).abs().max()) > 1e-6


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("dissipation", [None, 0.5])
def test_gradients_in_parameters_state_and_times(gradient, dissipation):
    flow = UnitaryFlow(robust_laplacian(icosphere(0)), 2, dissipation=dissipation, scale=1.0)
    V, log_dissipation = flow.mixing.V.detach().clone(), torch.tensor(0.3, dtype=torch.float64)

    def final(x0, t, V, log_dissipation):
        # As plain tensors, which a right-hand side may hold too.
        mine = copy.deepcopy(flow)
        del mine.mixing.V
        mine.mixing.V = V
        if dissipation is not None:
            del mine.log_dissipation
            mine.log_dissipation = log_dissipation
        return integrate(mine, x0, t, Exponential(gradient=gradient)).x[1:]

    x0 = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.1, 0.25], dtype=torch.float64, requires_grad=True)
    inputs = (x0, t, V.requires_grad_(), log_dissipation.requires_grad_(dissipation is not None))
    assert torch.autograd.gradcheck(final, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(final, inputs, fast_mode=True)


def test_a_dissipative_flow_backwards_in_time_is_the_inverse():
    """It grows by e^(γ λ_max |h|), and a series over a bound of the spectrum alone would lose every digit."""
    flow = UnitaryFlow(robust_laplacian(icosphere(1)), 4, dissipation=0.5, scale=1.0)
    x = torch.randn(42, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.eye(168, dtype=torch.float64).reshape(168, 42, 4)
    with torch.no_grad():
        G = torch.stack([flow(torch.tensor(0.0), e).reshape(-1) for e in unit], 1)
        for h in (-0.2, -8.0):
            exact = (torch.linalg.matrix_exp(h * G) @ x.reshape(-1)).reshape(42, 4)
            ours = integrate(flow, x, [0.0, h], Exponential()).final
            # e^77 at h = −8, in dozens of pieces, each of which loses e^8 ulps at most.
            assert float((ours - exact).norm() / exact.norm()) <= 1e-10
