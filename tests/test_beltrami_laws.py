"""What Beltrami flow owes to symmetry: with a_ij that is symmetric in some measure, mass stays and the Dirichlet energy falls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralpde as npde
from neuralpde.averaging import Averaging
from neuralpde.beltrami import OnsagerMixing
from neuralpde.image_flow import ImageBeltramiFlow
from neuralpde.invariants import DirichletEnergy, Law, Mass
from neuralpde.polyakov import PolyakovFlow
from neuralpde.slopes import EdgeSlopes
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import Graph, Grid, Laplacian, SparseOperator, combinatorial_laplacian, grid_laplacian, robust_laplacian
from operators.diffusivity import FixedDiffusivity
from operators.exponential_kernel import ExponentialKernel
from operators.gat import GAT
from operators.normalisation import Over, Softmax, Squareplus
from operators.similarity import Cosine, Pearson

NOW = torch.zeros((), dtype=torch.float64)
LAPLACIANS = st.one_of(
    graphs(min_nodes=2, weights=("ones", "dyadic")).map(combinatorial_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)
EDGES = st.one_of(graphs(min_nodes=2, weights=("ones", "dyadic")), LAPLACIANS)
# Keys and queries of the same weights: s_ij = s_ji, so that w_ij g(s_ij) is symmetric, and A is that over its row sums.
SYMMETRIC = {
    "fixed": FixedDiffusivity,
    "dot": lambda edges, **how: npde.ScaledDotProduct(edges, 2, 3, **how),
    "cosine": lambda edges, **how: Cosine(edges, 2, 3, **how),
    "pearson": lambda edges, **how: Pearson(edges, 2, 3, **how),
    "kernel": lambda edges, **how: ExponentialKernel(edges, 2, 3, **how),
}


def tied(kind, edges, **how):
    diffusivity = SYMMETRIC[kind](edges, **how)
    with torch.no_grad():
        for part in diffusivity.modules():
            if hasattr(part, "key"):
                part.key.weight.normal_()
                part.query.weight.copy_(part.key.weight)
    return diffusivity


def geometry(A: SparseOperator) -> Laplacian:
    """The Laplacian D (I − A) of a reversible A, D A = (D A)ᵀ, on every component, with masses D."""
    dense, n = A.matrix().detach(), A.shape[0]
    d = torch.zeros(n, dtype=torch.float64)
    for first in range(n):
        if d[first] > 0:
            continue
        d[first], reached = 1.0, [first]
        for i in reached:
            for j in dense[i].nonzero().flatten().tolist():
                if d[j] == 0:
                    d[j] = d[i] * dense[i, j] / dense[j, i]
                    reached.append(j)
    C = torch.diag(d) @ (torch.eye(n, dtype=d.dtype) - dense)
    assert_within(C, C.T, 1e-9 * float(d.max()))
    i, j = ((C + C.T) / 2 - torch.diag(C.diag())).nonzero().T
    w = -((C + C.T) / 2)[i, j]
    laplacian = combinatorial_laplacian(Graph(torch.stack([i, j]), n, w))
    return Laplacian(laplacian.stiffness, d)


@pytest.mark.parametrize("kind", SYMMETRIC)
@settings(max_examples=15)
@given(data=st.data(), norm=st.sampled_from([Softmax(), Squareplus()]), loops=st.sampled_from([0.0, 1.0]))
def test_of_symmetric_scores_mass_stays_and_the_dirichlet_energy_falls(kind, data, norm, loops):
    """Frozen at its start; both in the geometry that the scores made of the edges, whatever the rates of the nodes."""
    edges = data.draw(EDGES)
    flow = npde.BeltramiFlow(tied(kind, edges, normalise=norm, self_loops=loops), 0.7, frozen=True)
    rate = flow.diffusivity.rate
    z = data.draw(fields(len(rate), 2, exact=True))
    z = z / float(z.abs().max().clamp(min=1.0))
    learned = geometry(flow.diffusivity(z))
    horizon = 3 / max(float(rate.max()), 0.1)
    with torch.no_grad():
        path = npde.integrate(flow, z, [k * horizon / 4 for k in range(5)], npde.Exponential(tol=1e-13)).x
    slack = 1e-10 * float(learned.mass.max() / learned.mass.min())
    assert DirichletEnergy(learned, Law.NON_INCREASING).violation(path) <= slack
    # A node of rate r forgets r d of its mass d; what does not move keeps all.
    moving = rate > 0
    kept = torch.where(moving, learned.mass / torch.where(moving, rate, 1.0), learned.mass)[:, None]
    assert_within((kept * path).sum(-2), (kept * z).sum(0), slack * float((kept * z.abs()).sum()) + 1e-300)


def test_of_other_scores_neither_holds():
    """Attention of a learned A knows where it goes: the energy of the edges may rise, and the sum moves."""
    ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
    laplacian = combinatorial_laplacian(Graph(torch.cat([ring, ring.flip(0)], 1), 12, torch.ones(24, dtype=torch.float64)))
    rises = drifts = 0.0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        attention = GAT(laplacian, 2, 3)
        with torch.no_grad():
            for parameter in attention.parameters():
                parameter.normal_(std=3.0, generator=generator)
        z = torch.randn(12, 2, dtype=torch.float64, generator=generator)
        flow = npde.BeltramiFlow(attention, frozen=True)
        with torch.no_grad():
            path = npde.integrate(flow, z, [0.0, 0.2, 1.0, 3.0], npde.Exponential()).x
        rises = max(rises, DirichletEnergy(laplacian, Law.NON_INCREASING).violation(path))
        drifts = max(drifts, Mass(laplacian).violation(path))
    assert rises > 1e-3
    assert drifts > 1e-2


@settings(max_examples=20)
@given(data=st.data())
def test_a_symmetric_average_keeps_the_sum_and_lowers_its_energy(data):
    """A = Aᵀ: rows and columns both sum to one, so hull, sum and energy hold at once."""
    graph = data.draw(graphs(min_nodes=2, weights=("ones", "dyadic")))
    L = combinatorial_laplacian(graph)
    n = graph.nodes
    matrix = torch.eye(n, dtype=torch.float64) - L.matrix() / max(float(2 * L.matrix().diag().max()), 1e-30)
    i, j = matrix.nonzero().T
    A = SparseOperator.from_entries(i, j, matrix[i, j], (n, n))
    z = data.draw(fields(n, 2, exact=True))
    z = z / float(z.abs().max().clamp(min=1.0))
    for over in Over:
        with torch.no_grad():
            path = npde.integrate(Averaging(A, 1.3, over=over), z, [0.0, 0.5, 2.0, 9.0], npde.Exponential(tol=1e-13)).x
        tolerance = 64 * n * roundoff(torch.float64) + 1e-12
        assert DirichletEnergy(L, Law.NON_INCREASING).violation(path) <= tolerance
        assert npde.MaximumPrinciple(L, Law.NON_INCREASING).violation(path) <= tolerance
        assert_within(path.sum(-2), z.sum(0), tolerance * float(z.abs().sum()) + 1e-300)


LIMITS = {
    "polyakov": lambda L: PolyakovFlow(L, 0.0),
    "polyakov on edges": lambda L: PolyakovFlow(EdgeSlopes(L), 0.0),
    "attention": lambda L: npde.BeltramiFlow(npde.ScaledDotProduct(L, 2)),
    "squareplus": lambda L: npde.BeltramiFlow(npde.ScaledDotProduct(L, 2, normalise=Squareplus())),
    "fixed": lambda L: npde.BeltramiFlow(FixedDiffusivity(L), frozen=True),
}


@pytest.mark.parametrize("name", LIMITS)
@settings(max_examples=15)
@given(data=st.data())
def test_without_features_in_the_metric_it_is_heat_and_the_dirichlet_energy_falls(name, data):
    """α = 0, or scores of zero: dz/dt = −L z."""
    L = data.draw(LAPLACIANS)
    flow = LIMITS[name](L)
    z = data.draw(fields(L.shape[0], 2, exact=True))
    z = z / float(z.abs().max().clamp(min=1.0))
    size = max(L.norm_bound(), 1e-30)
    with torch.no_grad():
        assert_within(flow(NOW, z), npde.Heat(L)(NOW, z), 64 * L.shape[0] * roundoff(z.dtype) * size)
        path = npde.integrate(flow, z, [k / size for k in range(5)], npde.Dopri5(rtol=1e-9, atol=1e-10)).x
    assert DirichletEnergy(L, Law.NON_INCREASING).violation(path) <= 1e-7
    assert Mass(L).violation(path) <= 1e-7


@settings(max_examples=15)
@given(data=st.data(), channels=st.sampled_from([1, 3]))
def test_so_do_images_and_mixed_channels(data, channels):
    grid = Grid((4, 5), 0.5)
    L = grid_laplacian(grid)
    z = data.draw(fields(20, channels, exact=True))
    z = z / float(z.abs().max().clamp(min=1.0))
    mixing = OnsagerMixing(channels, torch.float64)
    with torch.no_grad():
        mixing.root.normal_()
        speed = L.norm_bound() * max(1.0, float(torch.linalg.matrix_norm(mixing.matrix, 2)))
        for flow in (
            ImageBeltramiFlow(grid, 0.0, channels=channels),
            npde.BeltramiFlow(FixedDiffusivity(L), mixing=mixing),
        ):
            path = npde.integrate(flow, z, [k / speed for k in range(5)], npde.Dopri5(rtol=1e-9, atol=1e-10)).x
            assert DirichletEnergy(L, Law.NON_INCREASING).violation(path) <= 1e-7
            assert Mass(L).violation(path) <= 1e-7
    # An indefinite W drives one channel up its own gradient.
    if channels == 3 and float((z - z.mean(0)).abs().max()) > 0.1:
        mixing.forward = lambda slope: -slope
        assert float(L.inner(L @ z, npde.BeltramiFlow(FixedDiffusivity(L), mixing=mixing)(NOW, z).detach())) > 0


@pytest.mark.parametrize("over", Over)
@pytest.mark.parametrize("beta", [None, 0.3])
def test_without_an_edge_nothing_moves_but_by_the_source(over, beta):
    """A Laplacian without edges has rates of zero; the frozen flow on it is dz/dt = β z(0)."""
    edgeless = combinatorial_laplacian(Graph(torch.zeros(2, 0, dtype=torch.int64), 3).to(torch.float64))
    flow = npde.BeltramiFlow(npde.ScaledDotProduct(edgeless, 2, normalise=Softmax(over)), frozen=True, source=beta)
    z = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    for solver in (npde.Exponential(), npde.Exponential(tol=1e-8), npde.BackwardEuler(dt=0.25), npde.Dopri5(rtol=1e-8)):
        end = npde.integrate(flow, z, [0.0, 2.0], solver).final.detach()
        assert_within(end, (1 + 2 * (beta or 0.0)) * z, 1e-7)
    with pytest.raises(ValueError, match="rate must be positive"):
        Averaging(flow.diffusivity(z), 0.0)
