"""Beltrami flow stays in the convex hull of its start, and starts as diffusion."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import (
    BeltramiFlow,
    Dirichlet,
    Dopri5,
    Exponential,
    Graph,
    Law,
    MaximumPrinciple,
    ScaledDotProduct,
    bumpy,
    combinatorial_laplacian,
    icosphere,
    integrate,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)
from neuralpde.averaging import Averaging
from neuralpde.beltrami import OnsagerMixing
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import DomainError, FieldError
from operators.normalisation import Over, Softmax, Squareplus
from operators.position_space import PoincareBall
from operators.stages import Stages

LAPLACIANS = st.one_of(
    graphs(min_nodes=2, weights=("ones", "dyadic")).map(combinatorial_laplacian),
    graphs(min_nodes=2).map(random_walk_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)
NOW = torch.zeros((), dtype=torch.float64)


def build(laplacian, channels: int, *, trained: float = 0.0, heads: int = 1) -> BeltramiFlow:
    """A flow whose attention is as sharp as `trained`."""
    flow = BeltramiFlow(ScaledDotProduct(laplacian, channels, width=3, heads=heads), rate=0.7)
    with torch.no_grad():
        flow.diffusivity.query.weight.normal_(std=trained)
    return flow


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@given(data=st.data(), trained=st.sampled_from([0.0, 0.5, 3.0]), heads=st.integers(1, 2))
def test_every_channel_stays_in_its_hull(rtol, data, trained, heads):
    laplacian = data.draw(LAPLACIANS)
    flow = build(laplacian, 2, trained=trained, heads=heads)
    z = data.draw(fields(laplacian.shape[0], 2, exact=True))
    horizon = 3 / max(float(flow.diffusivity.rate.max()), 1e-30)
    with torch.no_grad():
        path = integrate(flow, z, [0.0, horizon / 2, horizon], Dopri5(rtol=rtol, atol=rtol * 1e-3)).x
    (principle,) = flow.invariants
    assert isinstance(principle, MaximumPrinciple)
    assert principle.law is Law.NON_INCREASING
    largest = z.abs().amax(dim=-2)
    slack = 20 * rtol * torch.maximum(largest, largest.max() / 10) + 1e-12
    assert bool((path <= z.amax(dim=-2) + slack).all())
    assert bool((path >= z.amin(dim=-2) - slack).all())


def test_untrained_flow_is_diffusion_and_trained_is_not():
    laplacian = robust_laplacian(bumpy(icosphere(1)))
    z = torch.randn(42, 2, dtype=torch.float64)
    size = 0.7 * laplacian.norm_bound() * float(z.abs().max())
    assert_within(build(laplacian, 2)(NOW, z), -0.7 * (laplacian @ z), 64 * roundoff(z.dtype) * size)
    assert bool((build(laplacian, 2, trained=1.0)(NOW, z) + 0.7 * (laplacian @ z)).abs().max() > 1e-3)


@given(data=st.data())
def test_zero_query_is_diffusion(data):
    laplacian = data.draw(LAPLACIANS)
    flow = build(laplacian, 2)
    z = data.draw(fields(laplacian.shape[0], 2))
    size = flow.diffusivity.rate.max() * z.abs().max()
    assert_within(flow(NOW, z), -0.7 * (laplacian @ z), 64 * laplacian.shape[0] * roundoff(z.dtype) * size)


def test_paper_form_on_a_random_walk():
    """dz/dt = α (A(z) − I) z."""
    laplacian = random_walk_laplacian(torus(9, 5).graph())
    flow = build(laplacian, 2, trained=1.0)
    z = torch.randn(45, 2, dtype=torch.float64)
    expected = 0.7 * (flow.diffusivity(z).matrix() - torch.eye(45, dtype=z.dtype)) @ z
    assert_within(flow(NOW, z), expected, 1e-13)


@given(data=st.data())
def test_permutation_equivariance(data):
    graph: Graph = data.draw(graphs(min_nodes=2))
    order = torch.tensor(data.draw(st.permutations(range(graph.nodes))))
    # Node i of the first graph is node order[i] of the second.
    renamed = Graph(order[graph.edge_index], graph.nodes, graph.edge_weight)
    flow = build(random_walk_laplacian(graph), 2, trained=1.0)
    z = data.draw(fields(graph.nodes, 2, exact=True))
    moved = torch.empty_like(z)
    moved[order] = z
    ours, theirs = flow(NOW, z), flow.on(renamed)(NOW, moved)[order]
    assert_within(theirs, ours, 1e-11 * float(z.abs().max()))


def test_on_shares_parameters_and_changes_the_operator():
    flow = build(robust_laplacian(icosphere(1)), 2)
    moved = flow.on(torus(9, 5))
    assert moved.diffusivity.key.weight is flow.diffusivity.key.weight
    assert moved.log_rate is flow.log_rate
    assert moved(NOW, torch.randn(45, 2, dtype=torch.float64)).shape == (45, 2)
    assert flow(NOW, torch.randn(3, 42, 2, dtype=torch.float64)).shape == (3, 42, 2)
    (principle,) = moved.invariants
    assert principle.laplacian is moved.diffusivity.edges.laplacian


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="rate must be positive and finite"):
        BeltramiFlow(ScaledDotProduct(robust_laplacian(icosphere(0)), 1), rate)


def attending(seed: int = 0, nodes: int = 14, channels: int = 3, **how) -> ScaledDotProduct:
    """A trained attention on a connected random graph."""
    random = torch.Generator().manual_seed(seed)
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    pairs = torch.cat([ring, torch.randint(nodes, (2, nodes), generator=random)], dim=1)
    pairs = torch.unique(torch.cat([pairs, pairs.flip(0)], dim=1), dim=1)
    attention = ScaledDotProduct(Graph(pairs, nodes).to(torch.float64), channels, 4, 2, **how)
    with torch.no_grad():
        attention.key.weight.normal_(generator=random)
        attention.query.weight.normal_(generator=random)
    return attention


def state(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", [Softmax(), Squareplus(), Softmax(Over.COLUMNS), Squareplus(Over.COLUMNS)])
@pytest.mark.parametrize("source", [None, 0.3])
def test_a_frozen_flow_is_solved_exactly_by_every_way(norm, source):
    flow = BeltramiFlow(attending(normalise=norm, self_loops=0.7), 0.8, source=source, frozen=True)
    z, times = state(14, 3), [0.0, 0.6, 2.0]
    A = flow.diffusivity(z).matrix().detach()
    one = torch.eye(14, dtype=A.dtype)
    # d/dt (z, z0) = [[G, β], [0, 0]] (z, z0).
    whole = torch.cat([torch.cat([0.8 * (A - one), (source or 0.0) * one], dim=1), torch.zeros(14, 28, dtype=A.dtype)])
    exact = torch.stack([(torch.matrix_exp(t * whole) @ torch.cat([z, z]))[:14] for t in times])
    for solver in (Exponential(), Exponential(tol=1e-8), Dopri5(rtol=1e-10, atol=1e-11)):
        path = integrate(flow, z, times, solver).x
        assert_within(path, exact, 2e-8 * float(z.abs().max()))


def test_frozen_means_frozen_at_the_start():
    flow, z = BeltramiFlow(attending(), frozen=True), state(14, 3)
    begun = flow.starting_at(z)
    assert isinstance(begun, Averaging)
    assert torch.equal(begun.average.values, flow.diffusivity(z).values)
    assert begun.starting_at(2 * z) is begun
    live = BeltramiFlow(attending())
    assert live.starting_at(z) is live


def test_the_gradient_of_a_frozen_flow_reaches_what_froze_it():
    flow, z = BeltramiFlow(attending(), 0.8, source=0.3, frozen=True), state(14, 3).requires_grad_()
    weight = flow.diffusivity.query.weight

    def end(weight, z, beta):
        moved = torch.func.functional_call(flow.diffusivity, {"query.weight": weight}, (z,))
        return Averaging(moved, flow.log_rate.exp(), source=(beta, z)).affine.exponential(1.3, z)

    assert torch.autograd.gradcheck(end, (weight.detach().clone().requires_grad_(), z, flow.source.detach().requires_grad_()))
    integrate(flow, z, [0.0, 1.3], Exponential()).final.square().sum().backward()
    theirs = torch.autograd.grad(end(weight, z, flow.source).square().sum(), [weight, z, flow.source, flow.log_rate])
    for ours, other in zip([weight.grad, z.grad, flow.source.grad, flow.log_rate.grad], theirs, strict=True):
        assert_within(ours, other, 1e-10 * float(other.abs().max()))
        assert float(other.abs().max()) > 1e-3


@pytest.mark.parametrize("frozen", [False, True])
def test_over_columns_the_sum_over_nodes_is_kept_and_over_rows_it_is_not(frozen):
    z, drift = state(14, 3), {}
    for over in Over:
        flow = BeltramiFlow(attending(normalise=Softmax(over)), frozen=frozen)
        end = integrate(flow, z, [0.0, 2.0], Dopri5(rtol=1e-8, atol=1e-10)).final.detach()
        drift[over] = float((end.sum(0) - z.sum(0)).abs().max())
    assert drift[Over.COLUMNS] <= 1e-12
    assert drift[Over.ROWS] > 1e-2
    (kept,) = BeltramiFlow(attending(normalise=Softmax(Over.COLUMNS))).invariants
    assert kept.law is Law.CONSERVED


@given(data=st.data(), over=st.sampled_from(Over))
def test_uneven_rates_keep_both_laws(data, over):
    """On a surface every node has a rate of its own; the flow is uniformised before it is solved."""
    laplacian = data.draw(meshes(slivers=False).map(robust_laplacian))
    flow = BeltramiFlow(ScaledDotProduct(laplacian, 2, normalise=Softmax(over)), frozen=True)
    with torch.no_grad():
        flow.diffusivity.query.weight.normal_()
        z = data.draw(fields(laplacian.shape[0], 2, exact=True))
        horizon = 3 / max(float(flow.diffusivity.rate.max()), 1e-30)
        begun = flow.starting_at(z)
        slope, size = flow(NOW, z), flow.diffusivity.rate.max() * z.abs().sum(0).max()
        assert_within(begun(NOW, z), slope, 64 * roundoff(z.dtype) * size)
        end = integrate(flow, z, [0.0, horizon], Exponential()).final
    slack = 1e-12 * z.abs().sum(0)
    if over is Over.ROWS:
        assert bool((end <= z.amax(0) + slack).all() and (end >= z.amin(0) - slack).all())
    else:
        assert bool(((end.sum(0) - z.sum(0)).abs() <= slack + 1e-300).all())


def test_a_pair_is_its_joint_tensor_and_positions_may_stand_still():
    flow, u, x = BeltramiFlow(attending(), 0.7), state(14, 1), state(14, 2, seed=2)
    moved, spread = flow(NOW, (u, x))
    assert torch.equal(torch.cat([moved, spread], dim=-1), flow(NOW, torch.cat([u, x], dim=-1)))
    still = BeltramiFlow(flow.diffusivity, 0.7, moving=False)
    assert torch.equal(still(NOW, (u, x))[0], torch.zeros_like(u))
    assert torch.equal(still(NOW, (u, x))[1], spread)
    for moving in (True, False):
        frozen = BeltramiFlow(flow.diffusivity, 0.7, moving=moving, frozen=True, source=0.2)
        path = [integrate(frozen, (u, x), [0.0, 1.0], solver).final for solver in (Exponential(), Dopri5(rtol=1e-9, atol=1e-10))]
        for one, other in zip(*path, strict=True):
            assert_within(one, other, 1e-7)
        assert torch.equal(path[0][0], u) is not moving


def test_hyperbolic_positions_stay_in_the_ball_and_follow_its_motions():
    flow = BeltramiFlow(attending(), space=PoincareBall())
    u, x = 0.99 * torch.nn.functional.normalize(state(14, 1 + 1)), state(14, 1, seed=3)
    end, _ = integrate(flow, (u, x), [0.0, 3.0], Dopri5(rtol=1e-6, atol=1e-8)).final
    assert float(end.detach().norm(dim=-1).max()) < 1
    # An isometry of the ball, here a rotation, commutes with the motion of positions under a diffusivity that does not see them.
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    blind = BeltramiFlow(attending(), space=PoincareBall())
    with torch.no_grad():
        blind.diffusivity.key.weight[:, :2] = 0
        blind.diffusivity.query.weight[:, :2] = 0
    with torch.no_grad():
        moved = blind(NOW, (u, x))[0]
        assert_within(blind(NOW, (u @ turn, x))[0], moved @ turn, 1e-10 * float(moved.abs().max()))


def test_onsager_mixing_starts_as_none_and_lets_no_energy_grow():
    flow = BeltramiFlow(attending(), mixing=OnsagerMixing(3, torch.float64))
    z = state(14, 3)
    assert torch.equal(flow(NOW, z), BeltramiFlow(flow.diffusivity)(NOW, z))
    with torch.no_grad():
        flow.mixing.root.normal_()
    W = flow.mixing.matrix.detach()
    assert_within(flow(NOW, z), BeltramiFlow(flow.diffusivity)(NOW, z) @ W, 1e-12 * float(W.abs().max()))
    assert float(torch.linalg.eigvalsh(W).min()) >= -1e-12
    assert flow.invariants == ()


def test_what_remembers_its_start_is_found_inside_sums_products_and_held_boundaries():
    flow, z = BeltramiFlow(attending(), 0.8, source=0.3), state(14, 3)
    slope = flow.starting_at(z)(NOW, z)
    with pytest.raises(FieldError, match="starting_at"):
        flow(NOW, z)
    assert_within((2 * flow + flow).starting_at(z)(NOW, z), 3 * slope, 1e-12)
    held = Dirichlet(flow, torch.tensor([0, 3])).starting_at(z)(NOW, z)
    assert bool((held[[0, 3]] == 0).all())
    path = integrate(2 * flow, z, [0.0, 0.5], Dopri5(rtol=1e-9, atol=1e-10)).final
    assert_within(path, integrate(flow, z, [0.0, 1.0], Dopri5(rtol=1e-9, atol=1e-10)).final, 1e-7)


def test_what_has_no_closed_form_is_not_frozen():
    for wrong in ({"mixing": OnsagerMixing(3)}, {"space": PoincareBall()}):
        with pytest.raises(ValueError, match="frozen"):
            BeltramiFlow(attending(), frozen=True, **wrong)
    with pytest.raises(ValueError, match="in stages"):
        BeltramiFlow(Stages([attending(0), attending(1)], [1.0]), frozen=True)
    with pytest.raises(ValueError, match="over rows"):
        BeltramiFlow(attending(normalise=Softmax(Over.COLUMNS)), space=PoincareBall())


def test_what_drives_no_flow_is_refused_at_once():
    with pytest.raises(TypeError, match="drives this flow, not Laplacian"):
        BeltramiFlow(attending().laplacian)
    with pytest.raises(ValueError, match="source must be finite"):
        BeltramiFlow(attending(), source=float("nan"))
    for mixing in (OnsagerMixing(4, torch.float64), OnsagerMixing(3, torch.float32)):
        with pytest.raises(FieldError, match=r"build OnsagerMixing\(3, torch.float64\)"):
            BeltramiFlow(attending(), mixing=mixing)(NOW, state(14, 3))


def test_positions_outside_their_space_or_of_another_graph_are_refused():
    flow, x = BeltramiFlow(attending(), space=PoincareBall()), state(14, 1)
    u = 0.9 * torch.nn.functional.normalize(state(14, 2))
    outside = u.clone()
    outside[3] = torch.tensor([1.2, 0.0])
    for still in (flow, BeltramiFlow(flow.diffusivity, space=PoincareBall(), moving=False), 2 * flow):
        with pytest.raises(DomainError, match="1 positions lie outside the open unit ball, the first at node 3"):
            integrate(still, (outside, x), [0.0, 0.1])
        with pytest.raises(FieldError, match=r"positions must have shape \(..., 14, c\), not \(13, 2\)"):
            integrate(still, (u[:13], x), [0.0, 0.1])
    with pytest.raises(DomainError, match="space of positions"):
        BeltramiFlow(flow.diffusivity, space=PoincareBall)
    with pytest.raises(FieldError, match="give a pair"):
        integrate(flow, torch.cat([u, x], 1), [0.0, 0.1])


def test_the_hull_is_declared_for_pairs_too():
    u, x = state(14, 1), state(14, 2, seed=2)
    for how in ({}, {"moving": False}, {"space": PoincareBall()}):
        flow = BeltramiFlow(attending(), **how)
        path = integrate(flow, (0.5 * torch.tanh(u), x), [0.0, 0.5, 3.0], Dopri5(rtol=1e-7, atol=1e-9)).x
        (hull,) = flow.invariants
        assert hull.violation(tuple(part.detach() for part in path)) <= 1e-6
        assert hull.violation(tuple(part.detach().flip(0) for part in path)) > 1e-2


def test_stages_change_on_time_and_the_solver_knows():
    one, two, z = attending(0), attending(1), state(14, 3)
    staged = BeltramiFlow(Stages([one, two], [0.4]))
    assert staged.jumps == (0.4,)
    path = integrate(staged, z, [0.0, 0.4, 1.0], Dopri5(rtol=1e-9, atol=1e-11))
    middle = integrate(BeltramiFlow(one), z, [0.0, 0.4], Dopri5(rtol=1e-9, atol=1e-11)).final
    end = integrate(BeltramiFlow(two), middle, [0.4, 1.0], Dopri5(rtol=1e-9, atol=1e-11)).final
    assert_within(path.x[1], middle, 1e-8)
    assert_within(path.final, end, 1e-8)
