"""Theorem 1 of BLEND: the flow is the steepest descent of S(z) = min_a S[z, a], and S, norm and hull fall along it."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import RK4, BackwardEuler, Checkpointed, Direct, Dopri5, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.invariants import Law, Mass, MaximumPrinciple, Norm, Part
from neuralpde.polyakov import PolyakovEnergy, PolyakovFlow
from neuralpde.semi_implicit import SemiImplicitEuler
from neuralpde.slopes import EdgeSlopes, FaceSlopes, NodeSlopes
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import (
    Boundary,
    FieldError,
    Graph,
    Grid,
    TriangleMesh,
    bumpy,
    combinatorial_laplacian,
    grid_laplacian,
    icosphere,
    robust_laplacian,
    torus,
)

NOW = torch.tensor(0.3, dtype=torch.float64)
LINE = grid_laplacian(Grid(6, 0.5))
BUMPY = bumpy(icosphere(0), 0.2)
DOMAINS = {"nodes": LINE, "edges": EdgeSlopes(LINE), "faces": BUMPY, "mesh": robust_laplacian(BUMPY)}


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.0, 0.7, 30.0])
@pytest.mark.parametrize("name", DOMAINS)
def test_it_is_the_gradient_flow_of_its_energy(name, scale):
    """dx/dt = −M⁻¹ ∂S/∂x, to round-off."""
    f = PolyakovFlow(DOMAINS[name], scale)
    mass = f.slopes.base.mass[:, None]
    x = noise(2, len(mass), 3).requires_grad_()
    (gradient,) = torch.autograd.grad(f.energy(x).sum(), x)
    x = x.detach()
    flow = f(NOW, x)
    assert_within(-gradient / mass, flow, 1e-13 * float(flow.abs().max()))
    part, rest = f.lagged(NOW, x)
    assert rest is None
    assert_within(part @ x, flow, 1e-12 * float(flow.abs().max()))


@pytest.mark.parametrize("scale", [0.7, 5.0])
@pytest.mark.parametrize("name", DOMAINS)
def test_with_positions_it_descends_in_the_joint_metric(name, scale):
    """du/dt = −M⁻¹ ∂S/∂u and dx/dt = −M⁻¹ ∂S/∂x / α²."""
    f = PolyakovFlow(DOMAINS[name], scale, positions=True)
    mass = f.slopes.base.mass[:, None]
    z = noise(2, len(mass), 2).requires_grad_(), noise(2, len(mass), 3, seed=1).requires_grad_()
    by_u, by_x = torch.autograd.grad(f.energy(z).sum(), z)
    z = z[0].detach(), z[1].detach()
    moved, changed = f(NOW, z)
    assert_within(-by_u / mass, moved, 1e-13 * float(moved.abs().max()))
    assert_within(-by_x / mass / scale**2, changed, 1e-13 * float(changed.abs().max()))
    # One field whose channels are (u, α x), at α = 1: the joint coordinates of the paper.
    joint = PolyakovFlow(DOMAINS[name], 1.0)
    together = torch.cat([z[0], scale * z[1]], dim=-1)
    slope = joint(NOW, together)
    assert_within(torch.cat([moved, scale * changed], dim=-1), slope, 1e-12 * float(slope.abs().max()))
    assert_within(f.energy(z), joint.energy(together), 1e-12 * float(joint.energy(together).max()))
    part, _ = f.lagged(NOW, z)
    for one, other in zip(part @ z, (moved, changed), strict=True):
        assert_within(one, other, 1e-12 * float(other.abs().max()))
    # Its solve inverts y − s G y.
    solved = part.solve(torch.tensor(0.3, dtype=torch.float64), z)
    for y, slope, b in zip(solved, part @ solved, z, strict=True):
        assert_within(y - 0.3 * slope, b, 1e-11 * float(b.abs().max()))
    assert part.norm_bound() == pytest.approx(joint.lagged(NOW, together)[0].norm_bound())


LAPLACIANS = st.one_of(
    graphs(weights=("ones", "dyadic")).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)
)


@given(data=st.data(), scale=st.sampled_from([0.3, 1.0, 8.0]), where=st.sampled_from([NodeSlopes, EdgeSlopes]))
def test_the_energy_is_the_least_of_the_functional_over_all_metrics(data, scale, where):
    """S[z, a] ≥ S(z), and equal at a = 1/√g; a second metric is the more expensive the farther it is off."""
    laplacian = data.draw(LAPLACIANS)
    f = PolyakovFlow(where(laplacian), scale)
    z = data.draw(fields(laplacian.shape[0], 2))
    z = z / float(z.abs().max().clamp(min=1.0))
    a, energy = f.indicator(z), f.energy(z)
    slack = 1e-13 * (float(energy) + float(f.slopes.measure.sum()) / scale**2)
    assert_within(f.functional(z, a), energy, slack)
    if a.numel():
        assert 0 < float(a.min()) <= float(a.max()) <= 1
    near, far = (f.functional(z, a * math.exp(s * data.draw(st.sampled_from([-1, 1])))) for s in (0.1, 1.0))
    assert float(energy) <= float(near) + slack
    assert float(near) <= float(far) + slack


@given(
    data=st.data(),
    scale=st.sampled_from([0.0, 0.5, 20.0]),
    where=st.sampled_from([NodeSlopes, EdgeSlopes]),
    positions=st.booleans(),
)
def test_steps_of_any_length_keep_every_law_the_energy_too(data, scale, where, positions):
    """A semi-implicit step finds the least metric, then the least of S[·, a] + |· − z|²/2h: neither raises S."""
    laplacian = data.draw(LAPLACIANS)
    n = laplacian.shape[0]
    f = PolyakovFlow(where(laplacian), scale, positions=positions)
    parts = [data.draw(fields(n, 2)) for _ in range(1 + positions)]
    parts = [part / float(part.abs().max().clamp(min=1.0)) for part in parts]
    dt = data.draw(st.sampled_from([0.01, 1.0, 100.0])) / max(laplacian.norm_bound(), 1e-30)
    times = dt * torch.arange(4, dtype=torch.float64)
    with torch.no_grad():
        path = integrate(f, tuple(parts) if positions else parts[0], times, SemiImplicitEuler(dt)).x
    stiffest = max(1.0, laplacian.norm_bound() * dt)
    tolerance = 64 * n * 3 * roundoff(torch.float64) * stiffest * float(laplacian.mass.max() / laplacian.mass.min())
    assert len(f.invariants) == (7 if positions else 4)
    for invariant in f.invariants:
        assert invariant.violation(path) <= tolerance, invariant.name


@given(data=st.data(), scale=st.sampled_from([0.0, 0.5, 5.0]))
def test_two_solutions_never_part_and_none_speeds_up(data, scale):
    """S is convex: Σ m |z − y|² and Σ m |dz/dt|² fall."""
    laplacian = data.draw(LAPLACIANS)
    n = laplacian.shape[0]
    f = PolyakovFlow(laplacian, scale)
    z, y = (data.draw(fields(n, 2)) for _ in range(2))
    size = float(torch.maximum(z.abs().max(), y.abs().max()).clamp(min=1.0))
    z, y = z / size, y / size
    mass = laplacian.mass
    closing = float((mass[:, None] * (z - y) * (f(NOW, z) - f(NOW, y))).sum())
    accumulated = float(mass.max()) * laplacian.norm_bound() * n
    assert closing <= 64 * roundoff(z.dtype) * accumulated
    # d/dt ½ Σ m |f|² = ⟨f, Df f⟩.
    velocity = f(NOW, z)
    _, change = torch.func.jvp(lambda v: f(NOW, v), (z,), (velocity,))
    assert float((mass[:, None] * velocity * change).sum()) <= 256 * roundoff(z.dtype) * accumulated * laplacian.norm_bound() ** 2


@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes, FaceSlopes])
@pytest.mark.parametrize("positions", [False, True])
def test_the_exact_flow_keeps_every_law(where, positions):
    mesh = icosphere(1)
    f = PolyakovFlow(where(mesh if where is FaceSlopes else robust_laplacian(mesh)), 2.0, positions=positions)
    z0 = (mesh.vertices, 0.3 * noise(42, 2)) if positions else 0.3 * noise(42, 2)
    dt = 0.5 / f.slopes.base.norm_bound()
    path = integrate(f, z0, dt * torch.arange(20, dtype=torch.float64), RK4(dt)).x
    for invariant in f.invariants:
        assert invariant.violation(path) < 1e-12, invariant.name
    declared = {type(i.invariant) if isinstance(i, Part) else type(i) for i in f.invariants}
    assert declared == {PolyakovEnergy, Norm, Mass, MaximumPrinciple}
    energy = PolyakovEnergy(f).measure(path)
    assert float(energy[-1]) < 0.95 * float(energy[0])
    assert PolyakovEnergy(f, Law.CONSERVED).violation(path) > 1e-2


def test_scale_zero_is_the_heat_flow():
    for domain in DOMAINS.values():
        f = PolyakovFlow(domain, 0.0)
        base = f.slopes.base
        x = noise(3, base.shape[0], 2)
        heat = Heat(base)(NOW, x)
        assert_within(f(NOW, x), heat, 1e-13 * float(heat.abs().max()))
        dirichlet = base.inner(x, base @ x) / 2
        assert_within(f.energy(x), dirichlet, 1e-13 * float(dirichlet.max()))
        assert torch.equal(f.indicator(x), torch.ones_like(f.indicator(x)))


def test_two_nodes_have_a_closed_form():
    """With d = x₁ − x₀ and y = √(1 + c d²), c = α² w/2m: y + ½ log((y − 1)/(y + 1)) falls at the rate 2w/m."""
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.full((2,), 0.8, dtype=torch.float64))
    f = PolyakovFlow(graph, 3.0)
    times = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    path = integrate(f, torch.tensor([[2.0], [-1.0]], dtype=torch.float64), times, Dopri5(rtol=1e-11, atol=1e-13)).x
    y = (1 + 9 * 0.8 / 2 * (path[:, 1] - path[:, 0]).square()).sqrt().squeeze(-1)
    clock = y + ((y - 1) / (y + 1)).log() / 2
    assert_within(clock, clock[0] - 2 * 0.8 * times, 1e-8)
    assert_within(path.sum(1), torch.ones(5, 1, dtype=torch.float64), 1e-12)


def test_on_a_flat_mesh_the_energy_is_the_area_of_the_graph_of_the_field():
    flat = TriangleMesh(*_square(5))
    x, scale = noise(25, 1), 1.7
    f = PolyakovFlow(flat, scale)
    lifted = torch.cat([flat.vertices, scale * x], dim=1)
    a, b, c = lifted[flat.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2
    assert_within(scale**2 * f.energy(x) + f.slopes.measure.sum(), area, 1e-12 * float(area))


def _square(side):
    grid = torch.linspace(0, 1, side, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    low = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).flatten()
    lower, upper = (low, low + side, low + 1), (low + 1, low + side, low + side + 1)
    return points, torch.cat([torch.stack(lower, 1), torch.stack(upper, 1)])


def test_order_in_space_is_two_and_isotropic_in_the_plane():
    """div(∇u/√(1 + α²s)), s = |∇u|², at u = sin x + cos y on the torus of side 2π: a Δu − (α²/2) a³ ∇s·∇u."""
    alpha, errors = 1.5, []
    for n in (32, 64):
        grid = Grid((n, n), 2 * math.pi / n, Boundary.PERIODIC)
        x, y = grid.points.T
        u = (torch.sin(x) + torch.cos(y))[:, None]
        s = torch.cos(x) ** 2 + torch.sin(y) ** 2
        a = (1 + alpha**2 * s) ** -0.5
        turn = -torch.sin(2 * x) * torch.cos(x) - torch.sin(2 * y) * torch.sin(y)
        exact = a * (-torch.sin(x) - torch.cos(y)) - alpha**2 / 2 * a**3 * turn
        errors.append(float((PolyakovFlow(grid_laplacian(grid), alpha)(NOW, u)[:, 0] - exact).abs().max()))
    assert errors[1] < 0.05
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_a_large_scale_is_total_variation_flow_in_slow_time():
    """A plateau of width w sinks at 2/(w α), its sides stay."""
    grid = Grid(40, 0.1)
    u0 = ((grid.points > 1) & (grid.points < 3)).double()
    f = PolyakovFlow(EdgeSlopes(grid_laplacian(grid)), 1000.0)
    with torch.no_grad():
        u = integrate(f, u0, [0.0, 250.0], SemiImplicitEuler(dt=5.0)).final
    assert float(u[20]) == pytest.approx(0.75, abs=0.02)
    assert float(u[2]) == pytest.approx(0.25, abs=0.02)


def test_it_removes_noise_and_keeps_an_edge_that_heat_destroys():
    grid = Grid((24, 24), 1.0)
    laplacian = grid_laplacian(grid)
    left = grid.points[:, :1] < 12
    noisy = torch.where(left, 0.0, 1.0).double() + 0.03 * noise(576, 1)
    f = PolyakovFlow(laplacian, 50.0)
    with torch.no_grad():
        kept = integrate(f, noisy, [0.0, 2.0], SemiImplicitEuler(dt=0.25)).final
        blurred = integrate(Heat(laplacian), noisy, [0.0, 2.0], BackwardEuler(dt=0.25)).final
    flat = left.squeeze(1) & (grid.points[:, 0] < 9)
    assert float(kept[flat].std()) < 0.5 * float(noisy[flat].std())

    def step(u):
        rows = u.reshape(24, 24)
        return float((rows[12] - rows[11]).mean())

    assert step(kept) > 0.8
    assert step(blurred) < 0.5
    # The indicator sees the edge, once the noise is gone.
    a = f.indicator(kept).reshape(24, 24)
    assert float(a[11:13].max()) < 0.05
    assert float(a[:9].median()) > 0.5


def test_the_dirichlet_energy_may_rise_and_is_not_declared():
    """A hub between one far leaf and fifty near ones follows the many, and the long edge grows. With α = 0 it follows the one."""
    leaves = torch.arange(1, 52)
    edges = torch.stack([torch.zeros_like(leaves), leaves])
    star = combinatorial_laplacian(Graph(torch.cat([edges, edges.flip(0)], 1), 52, torch.ones(102, dtype=torch.float64)))
    x = torch.tensor([0.0, 100.0] + 50 * [-1.0], dtype=torch.float64)[:, None]
    for where in (NodeSlopes, EdgeSlopes):
        change = [float(star.inner(star @ x, PolyakovFlow(where(star), scale)(NOW, x))) for scale in (0.0, 1.0)]
        assert change[0] < 0
        assert change[1] > 0


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes, FaceSlopes])
def test_gradients(where, positions):
    f = PolyakovFlow(
        where(icosphere(0) if where is FaceSlopes else grid_laplacian(Grid((3, 2), 0.5))), learned(0.7), positions=positions
    )
    ((key, scale),) = f.named_parameters()
    n = f.slopes.base.shape[0]
    parts = [(0.5 * noise(n, 1, seed=k)).requires_grad_() for k in range(1 + positions)]

    def state(parts):
        return tuple(parts) if positions else parts[0]

    def at(value, *parts):
        return torch.func.functional_call(f, {key: value}, (NOW, state(parts)))

    assert torch.autograd.gradcheck(at, (scale, *parts))

    def after(gradient):
        z = integrate(f, state(parts), [0.0, 0.1], SemiImplicitEuler(dt=0.05, gradient=gradient)).final
        return sum((part**2).sum() for part in (z if positions else (z,)))

    values = [torch.autograd.grad(after(mode), (scale, *parts)) for mode in (Direct(), Checkpointed(snapshots=1))]
    for one, other in zip(*values, strict=True):
        assert_within(one, other, 1e-12 * float(1 + one.abs().max()))


def test_a_flat_field_stands_still_and_has_a_gradient():
    f = PolyakovFlow(LINE, 3.0)
    x = torch.full((6, 1), 2.0, dtype=torch.float64, requires_grad=True)
    flow = f(NOW, x)
    assert float(flow.detach().abs().max()) == 0
    (gradient,) = torch.autograd.grad(flow.sum() + f.energy(x), x)
    assert torch.isfinite(gradient).all()
    # The functional has one too, at α = 0 and a = 1, where the price of the metric is 0/0.
    heat = PolyakovFlow(LINE, 0.0)
    y = noise(6, 1).requires_grad_()
    a = heat.indicator(y).detach().requires_grad_()
    for got in torch.autograd.grad(heat.functional(y, a), (y, a)):
        assert torch.isfinite(got).all()
    assert_within(heat.functional(y, a), heat.energy(y), 1e-13)
    # Far below 1/α, 1 + α²|∇x|² rounds to one; the energy must not round to zero.
    small = 1e-9 * noise(6, 1)
    assert_within(f.energy(small), LINE.inner(small, LINE @ small) / 2, 1e-12 * float(f.energy(small)))


@pytest.mark.parametrize("positions", [False, True])
def test_precision_batches_copies_and_other_domains(positions):
    f = PolyakovFlow(robust_laplacian(icosphere(1)), 2.0, positions=positions, learn=True)
    parts = [noise(2, 3, 42, 2, seed=k) for k in range(1 + positions)]

    def on(g, change):
        z = [change(part) for part in parts]
        return torch.cat(list(g(NOW, tuple(z))), -1) if positions else g(NOW, z[0])

    whole = on(f, lambda part: part)
    size = float(whole.detach().abs().max())
    assert_within(whole[1, 2], on(f, lambda part: part[1, 2]), 1e-13 * size)
    single = copy.deepcopy(f).to(torch.float32)
    assert_within(on(single, torch.Tensor.float).double(), whole, 2048 * roundoff(torch.float32) * size)
    assert_within(on(pickle.loads(pickle.dumps(f)), lambda part: part), whole, 0.0)
    moved = f.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in f.parameters()]
    there = [noise(45, 1) for _ in parts]
    assert (moved(NOW, tuple(there))[1] if positions else moved(NOW, there[0])).shape == (45, 1)
    energy = PolyakovEnergy(single).measure(tuple(parts) if positions else parts[0])
    assert energy.dtype == torch.float64
    assert energy.shape == (2, 3)
    assert list(f.state_dict()) == ["alpha.value"]


def test_a_learned_scale_is_watched_without_its_graph():
    """What an invariant measures is a number, of which torch would warn if it had a history."""
    f = PolyakovFlow(LINE, 2.0, learn=True)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        assert PolyakovEnergy(f).violation(noise(1, 6, 2) * torch.tensor([1.0, 0.5, 2.0]).double()[:, None, None]) > 0
    finally:
        torch.set_warn_always(always)


def test_renumbering_and_turning_commute_with_the_flow():
    mesh = bumpy(icosphere(1), 0.2)
    generator = torch.Generator().manual_seed(0)
    for domain in (mesh, robust_laplacian(mesh)):
        for positions in (False, True):
            f = PolyakovFlow(domain, 0.8, positions=positions)
            z = (noise(42, 3), noise(42, 2)) if positions else noise(42, 2)
            assert len(f.symmetries) == 2
            for symmetry in f.symmetries:
                motion = symmetry.draw(mesh, generator)
                there = f.on(symmetry.domain(motion, mesh))(NOW, symmetry.field(motion, z))
                here = symmetry.field(motion, f(NOW, z))
                for one, other in zip(there if positions else (there,), here if positions else (here,), strict=True):
                    assert_within(one, other, 1e-10 * float(other.abs().max()))


def test_obtuse_triangles_promise_no_hull():
    thin = TriangleMesh(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.1]]).double(), torch.tensor([[0, 1, 2]]))
    assert [i.name for i in PolyakovFlow(thin).invariants] == ["Polyakov energy", "norm", "mass"]
    names = [i.name for i in PolyakovFlow(thin, positions=True).invariants]
    assert names == ["Polyakov energy", "norm of u", "mass of u", "norm of x", "mass of x"]


def test_energies_are_the_same_only_for_the_same_flow():
    f = PolyakovFlow(LINE)
    assert PolyakovEnergy(f).same_quantity(PolyakovEnergy(f, Law.CONSERVED))
    assert not PolyakovEnergy(f).same_quantity(PolyakovEnergy(PolyakovFlow(LINE)))
    assert {i.name for i in (f + f).invariants} == {"Polyakov energy", "norm", "mass", "maximum principle"}
    assert {"norm", "mass"} <= {i.name for i in (f + Heat(LINE)).invariants}


def test_refusals_name_the_cure():
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must"):
            PolyakovFlow(LINE, bad)
    with pytest.raises(TypeError, match=r"scale must be one number, .* not Tensor"):
        PolyakovFlow(LINE, torch.ones(6, 1, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"scale must be one number, .* not function"):
        PolyakovFlow(LINE, lambda t: t)
    x = noise(6, 1)
    with pytest.raises(FieldError, match="build it with positions=True"):
        PolyakovFlow(LINE)(NOW, (x, x))
    for bad in (x, (x, x, x)):
        with pytest.raises(FieldError, match=r"give both, as in \(u, x\)"):
            PolyakovFlow(LINE, positions=True)(NOW, bad)
    with pytest.raises(FieldError, match="same nodes and batch"):
        PolyakovFlow(LINE, positions=True)(NOW, (x, noise(2, 6, 1)))
    with pytest.raises(FieldError, match="view_as_real"):
        PolyakovFlow(LINE)(NOW, torch.complex(x, x))
    with pytest.raises(FieldError):
        PolyakovFlow(LINE)(NOW, noise(5, 1))


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    assert_right_hand_side(lambda mesh: PolyakovFlow(mesh, 2.0), meshes(slivers=False), search=few)
    assert_right_hand_side(lambda mesh: PolyakovFlow(robust_laplacian(mesh), 0.5), meshes(slivers=False), search=few)
    unit = graphs(min_nodes=2, weights=("ones", "dyadic"))
    assert_right_hand_side(lambda graph: PolyakovFlow(EdgeSlopes(combinatorial_laplacian(graph)), 1.0), unit, search=few)
