"""Diffusion by frozen attention: its exponential, its solves, and the bounds it keeps."""

import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import ARK324, ETDRK2, ETDRK4, SDIRK3, Auto, Direct, Dopri5, Exponential, RadauIIA5, integrate
from neuralpde.averaging import Averaging
from operators import DomainError, Graph, ScaledDotProduct, SparseOperator, random_walk_laplacian
from operators.normalisation import Over, Softmax


def average(seed: int = 0, n: int = 12) -> SparseOperator:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(n, (2, 4 * n), generator=generator)
    edges = torch.cat([pairs, pairs.flip(0), torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    attention = ScaledDotProduct(random_walk_laplacian(Graph(edges, n)).double(), 3)
    with torch.no_grad():
        attention.query.weight.copy_(torch.randn(attention.query.weight.shape, generator=generator, dtype=torch.float64))
        return attention(torch.randn(n, 3, generator=generator, dtype=torch.float64))


class Counting:
    """An average that notes its products."""

    def __init__(self, average, taken):
        self.average, self.taken = average, taken

    def __matmul__(self, x):
        self.taken.append(1)
        return self.average @ x


def dense(f: Averaging) -> torch.Tensor:
    A = f.average.matrix()
    return f.log_rate.exp() * (A - torch.eye(len(A), dtype=A.dtype))


@pytest.mark.parametrize("h", [0.0, 0.01, 1.0, 30.0, 900.0])
def test_the_exponential_is_that_of_the_dense_matrix(h):
    f = Averaging(average(), rate=1.5)
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = torch.from_numpy(scipy.linalg.expm(h * dense(f).detach().numpy())) @ z
    # Every term is an average, so round-off adds up to the number of terms at most.
    assert float((f.linear.exponential(h, z) - exact).abs().max()) <= 32 * 2.3e-16 * (1 + h) ** 0.5 * float(z.abs().max()) * 10
    for tolerance in (1e-1, 1e-2, 1e-6, 1e-10):
        rough = f.linear.exponential(h, z, tolerance)
        assert float((rough - exact).abs().max()) <= (tolerance + 1e-13) * float(z.abs().max())


@given(st.integers(0, 20), st.floats(0.0, 50.0))
def test_channels_stay_in_their_hull(seed, h):
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    end = integrate(Averaging(average(seed)), z, [0.0, h + 1e-3], Exponential()).final
    assert bool((end <= z.max(0).values + 1e-13).all())
    assert bool((end >= z.min(0).values - 1e-13).all())


@pytest.mark.parametrize("s", [0.0, 0.3, 40.0])
def test_the_implicit_equation_is_solved(s):
    f = Averaging(average())
    b = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = f.linear.solve(torch.tensor(s, dtype=torch.float64), b)
    assert float((y - s * (f.linear @ y) - b).abs().max()) <= 1e-13 * (1 + s)


def test_gradients_in_the_time_the_field_and_the_rate():
    f = Averaging(average())
    f.log_rate.requires_grad_()
    z = torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def flow(h, z, log_rate):
        return f.linear.exponential(h, z)

    assert torch.autograd.gradcheck(flow, (h, z, f.log_rate))


def test_what_is_no_average_is_refused():
    A = average()
    with pytest.raises(DomainError, match="rows that sum to one"):
        Averaging(2 * A)
    with pytest.raises(ValueError, match="rate must be positive"):
        Averaging(A, rate=-1.0)
    with pytest.raises(ValueError, match="long reached its equilibrium"):
        Averaging(A).linear.exponential(1e9, torch.ones(12, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="cannot be solved backwards"):
        Averaging(A).linear.exponential(-1.0, torch.ones(12, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="cannot be solved backwards"):
        integrate(Averaging(A), torch.ones(12, 1, dtype=torch.float64), [1.0, 0.0])


def test_a_tolerance_saves_products():
    """On a symmetric random walk the Chebyshev series takes about √(2τ log(1/tolerance)) products, not τ."""
    f, z = Averaging(average()), torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    part, taken = f.linear, []
    part.average = Counting(f.average, taken)
    part.exponential(200.0, z, 1e-3)
    assert len(taken) <= 100  # Uniformisation takes 246.
    # The gradient in time is that of the series.
    h = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    final = f.linear.exponential(h, z, 1e-6)
    (slope,) = torch.autograd.grad(final.sum(), h)
    assert float((slope - (f.linear @ final.detach()).sum()).abs().detach()) <= 1e-5


def affine(f: Averaging, beta: float, s: torch.Tensor, z: torch.Tensor, h: float) -> torch.Tensor:
    """exp(h [[G, β], [0, 0]]) (z, s), dense."""
    G, n = dense(f), len(z)
    whole = torch.zeros(2 * n, 2 * n, dtype=G.dtype)
    whole[:n, :n], whole[:n, n:] = G, beta * torch.eye(n, dtype=G.dtype)
    return (torch.from_numpy(scipy.linalg.expm(h * whole.detach().numpy())) @ torch.cat([z, s]))[:n]


@pytest.mark.parametrize("h", [0.0, 0.3, 9.0, 200.0])
@pytest.mark.parametrize("own", [True, False])
def test_a_source_is_integrated_with_the_flow(h, own):
    """Whether it is the start itself, whose products are shared, or another field."""
    A = average()
    z, s = torch.randn(2, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).unbind()
    s = z if own else s
    f = Averaging(A, 1.5, source=(-0.4, s))
    exact = affine(Averaging(A, 1.5), -0.4, s, z, h)
    size = float(z.abs().max() + 0.4 * h * s.abs().max())
    for tolerance in (None, 1e-2, 1e-5, 1e-9):
        error = float((f.affine.exponential(h, z, tolerance) - exact).detach().abs().max())
        assert error <= (1e-13 if tolerance is None else tolerance + 1e-13) * size
    shift = torch.tensor(0.7, dtype=torch.float64)
    y = f.affine.solve(shift, z)
    assert float((y - 0.7 * f(None, y) - z).abs().max()) <= 1e-12 * (1 + 0.4 * float(s.abs().max()))


def test_over_columns_the_tolerance_is_of_the_sum():
    A = average().adjoint()
    f = Averaging(A, 1.5, over=Over.COLUMNS)
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    exact = torch.from_numpy(scipy.linalg.expm(4.0 * dense(f).detach().numpy())) @ z
    for tolerance in (None, 1e-2, 1e-6):
        end = f.linear.exponential(4.0, z, tolerance)
        assert float((end - exact).abs().sum(0).max()) <= (tolerance or 1e-13) * float(z.abs().sum(0).max())
    with pytest.raises(DomainError, match="rows that sum to one"):
        Averaging(A)


@pytest.mark.parametrize("over", Over)
def test_nodes_with_rates_of_their_own_are_uniformised(over):
    A = average() if over is Over.ROWS else average().adjoint()
    rates = torch.linspace(0.2, 3.0, 12, dtype=torch.float64)
    f, one = Averaging(A, rates, over=over), torch.eye(12, dtype=torch.float64)
    G = rates[:, None] * (A.matrix() - one) if over is Over.ROWS else (A.matrix() - one) * rates
    assert float((f.linear @ one - G).abs().max()) <= 1e-14
    exact = torch.from_numpy(scipy.linalg.expm(2.0 * G.numpy()))
    assert float((f.linear.exponential(2.0, one) - exact).abs().max()) <= 1e-13


@pytest.mark.parametrize("own", [True, False])
def test_gradients_reach_the_source_and_its_rate(own):
    A = average()
    z, s = torch.randn(2, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).unbind()
    one = torch.tensor(0.7, dtype=torch.float64)

    def flow(z, s, rate, beta, h):
        return Averaging(A, rate, source=(beta, z if own else s)).affine.exponential(h, z, 1e-12)

    given = tuple(x.clone().requires_grad_() for x in (z, s, 2 * one, 0.4 * one, one))
    assert torch.autograd.gradcheck(flow, given)


def test_a_frozen_solve_takes_a_fifth_of_the_products_of_dopri5():
    """At the same tolerance, with the same bound on every node; the more so the tighter it is."""
    f = Averaging(average(n=60), 0.5)
    z = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    exact = f.linear.exponential(18.3, z)
    for tolerance in (1e-4, 1e-6, 1e-8):
        explicit = integrate(f, z, [0.0, 18.3], Dopri5(rtol=tolerance / 100, atol=tolerance))
        part, taken = f.linear, []
        part.average = Counting(f.average, taken)
        end = part.exponential(18.3, z, tolerance)
        assert part.products == len(taken)
        assert integrate(f, z, [0.0, 18.3], Exponential(tol=tolerance, gradient=Direct())).stats.nfe <= len(taken) + 2
        assert float((end - exact).abs().max()) <= tolerance * float(z.abs().max())
        assert 5 * len(taken) <= explicit.stats.nfe


@pytest.mark.parametrize(
    "solver",
    [
        ETDRK2(dt=0.5),
        ETDRK4(dt=0.5),
        RadauIIA5(dt=0.1),
        RadauIIA5(rtol=1e-7, atol=1e-9),
        ARK324(rtol=1e-6, atol=1e-8),
        SDIRK3(rtol=1e-5, atol=1e-7),
        Exponential(),
        Auto(),
    ],
    ids=lambda solver: type(solver).__name__,
)
@pytest.mark.parametrize("over", Over)
def test_every_family_of_solvers_takes_the_source_along(solver, over):
    """A linear part is homogeneous: what combines it with itself (φ-functions, complex shifts) must not add β s each time."""
    A = average() if over is Over.ROWS else average().adjoint()
    z, s = torch.randn(2, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).unbind()
    f = Averaging(A, 1.5, over=over, source=(-0.4, s))
    end = integrate(f, z, [0.0, 1.0], solver).final
    assert float((end - affine(Averaging(A, 1.5, over=over), -0.4, s, z, 1.0)).abs().max()) <= 1e-5


def test_a_source_joins_the_nonlinear_part_of_a_sum():
    A = average()
    z, s = torch.randn(2, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).unbind()
    f = Averaging(A, 1.5, source=(-0.4, s))
    assert float((f.linear @ torch.zeros_like(z)).abs().max()) == 0.0
    assert float((f.linear @ z + f.nonlinear(None, z) - f(None, z)).abs().max()) <= 1e-15 * 50
    # f + f and 2 f are f in half the time.
    exact = affine(Averaging(A, 1.5), -0.4, s, z, 1.0)
    for twice in (f + f, 2 * f):
        for solver in (Auto(), ETDRK4(dt=0.1), RadauIIA5(dt=0.1)):
            end = integrate(twice, z, [0.0, 0.5], solver).final
            assert float((end - exact).abs().max()) <= 1e-5
    assert float((integrate(2 * f, z, [0.0, 0.5], Exponential()).final - exact).abs().max()) <= 1e-13


@pytest.mark.parametrize("source", [False, True])
def test_positions_that_a_batch_shares_cannot_move_each_in_its_own_way(source):
    """Standing still they may be shared; moving, the state must hold them for every member, and the error says so."""
    A, (u, x) = average(), (torch.zeros(12, 2, dtype=torch.float64), torch.ones(3, 12, 1, dtype=torch.float64))
    given = (0.5, (u, x)) if source else None
    still = integrate(Averaging(A, source=given, moving=False), (u, x), [0.0, 1.0]).final
    assert [part.shape for part in still] == [u.shape, x.shape]
    with pytest.raises((TypeError, ValueError), match=r"state"):
        integrate(Averaging(A, source=given), (u, x), [0.0, 1.0])


@torch.no_grad()
@pytest.mark.parametrize("over", Over)
def test_a_hub_in_single_precision_is_no_error(over):
    """10⁵ equal shares sum to one, though not when they are added up in float32."""
    n = 100_001
    spokes = torch.stack([torch.arange(1, n), torch.zeros(n - 1, dtype=torch.int64)])
    graph = Graph(torch.cat([spokes, spokes.flip(0)], 1), n)
    attention = ScaledDotProduct(graph, 1, 2, normalise=Softmax(over))
    assert Averaging(attention(torch.ones(n, 1)), over=over).average.shape == (n, n)
    with pytest.raises(DomainError, match="sum to one"):
        Averaging(1.001 * attention(torch.ones(n, 1)), over=over)
