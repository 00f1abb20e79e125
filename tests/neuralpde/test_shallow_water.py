"""Shallow water keeps mass and energy on every sphere; balanced states rest; gradients, batches, precisions, moves."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spheres import spheres

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.coefficient import learned
from neuralpde.invariants import Law, Part
from neuralpde.shallow_water import EARTH_GRAVITY, PotentialEnstrophy, ShallowWater, ShallowWaterEnergy
from neuralpde.testing import assert_within, roundoff
from neuralpde.williamson import williamson5
from operators.checks import DomainError, FieldError
from operators.shapes import icosphere, torus
from operators.sphere_meshes import centroidal_icosphere

U = roundoff(torch.float64)
HOUR = 3600.0
# Radius, gravity and rotation of order one, so that all parts of a state are of one size.
SMALL = {"radius": 1.0, "gravity": 1.0, "rotation": 0.7}


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def state(flow, seed=0, depth=2.0):
    n, edges = len(flow.grid.cell_areas), len(flow.grid.edge_areas)
    return depth + 0.3 * noise(n, 1, seed=seed).clamp(-2, 2), 0.5 * noise(edges, 1, seed=seed + 1)


def flows():
    """Flows with a mountain, with and without anticipation, about any axis."""

    def build(mesh, anticipation, seed):
        bottom = 0.1 * noise(mesh.num_nodes, 1, seed=seed)
        axis = noise(3, seed=seed + 1)
        return ShallowWater(mesh, topography=bottom, radius=1.0, gravity=1.3, rotation=axis, anticipation=anticipation)

    return st.builds(build, spheres(), st.sampled_from([0.0, 0.05]), st.integers(0, 99))


def rate_of(quantity, flow, x):
    """dI/dt = ∇I · f, and the sum of the magnitudes that it adds."""
    h, u = (part.clone().requires_grad_() for part in x)
    slopes = torch.autograd.grad(quantity.measure((h, u)).sum(), (h, u), allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        products = [slope * rate for slope, rate in zip(slopes, flow(0.0, x), strict=True)]
    return sum(p.sum() for p in products), sum(p.abs().sum() for p in products)


# Laws -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(flow=flows(), seed=st.integers(0, 99))
def test_mass_and_energy_do_not_change_in_any_state_on_any_sphere(flow, seed):
    x = state(flow, seed)
    mass, energy = flow.invariants
    assert isinstance(mass, Part)
    assert isinstance(energy, ShallowWaterEnergy)
    for quantity in (mass, energy):
        assert quantity.law is Law.CONSERVED
        rate, size = rate_of(quantity, flow, x)
        # The terms of a rate are sums of a dozen products, themselves of products with q and F.
        assert_within(rate, 0.0, 1024 * U * size)


@settings(max_examples=10)
@given(mesh=spheres(most=0.2))
def test_a_uniform_potential_vorticity_stays_uniform(mesh):
    flow = ShallowWater(mesh, **SMALL)
    grid = flow.grid
    h = 2 + 0.3 * noise(mesh.num_nodes, 1).clamp(-2, 2)
    # q h = f + ζ over the whole sphere: ∫ ζ = 0, so q is zero with f, unless a part of the depth is odd as f is.
    depth = grid.to_faces(h)
    coriolis = 2 * 0.7 * grid.circumcentres[:, 2:]
    area = grid.face_areas[:, None]
    q = float((area * coriolis).sum() / (area * depth).sum()) + 0.0
    psi = torch.linalg.lstsq(
        torch.from_numpy((grid.curl.to_scipy() @ grid.across.to_scipy()).toarray()), q * depth - coriolis, driver="gelsd"
    ).solution
    u = grid.across(psi) + 3 * grid.gradient(noise(mesh.num_nodes, 1, seed=5))
    assert_within(flow.potential_vorticity((h, u)), q, 1e5 * U)
    dh, du = flow(0.0, (h, u))
    changed = grid.curl(du) - q * grid.to_faces(dh)
    assert_within(changed, 0.0, 1e5 * U * float(grid.curl(du).abs().max() + 1))


@settings(max_examples=10)
@given(data=st.data())
def test_water_at_rest_above_a_mountain_rests(data):
    mesh = data.draw(spheres())
    bottom = 0.5 * noise(mesh.num_nodes, 1).clamp(-2, 2)
    flow = ShallowWater(mesh, topography=bottom, **SMALL)
    dh, du = flow(0.0, (3 - bottom, torch.zeros(len(flow.grid.edge_areas), 1, dtype=torch.float64)))
    assert_within(dh, 0.0, 0.0)
    assert_within(du, 0.0, 64 * U * float((1 / flow.grid.edge_lengths).max()))


@settings(max_examples=5)
@given(mesh=spheres(), seed=st.integers(0, 99))
def test_viscosity_takes_kinetic_energy_of_every_wind_but_no_mass(mesh, seed):
    still = ShallowWater(mesh, **SMALL)
    u = noise(len(still.grid.edge_areas), 1, seed=seed)
    h = torch.full((mesh.num_nodes, 1), 2.0, dtype=torch.float64)
    for coefficients in ({"viscosity": 0.1}, {"hyperviscosity": 0.01}, {"viscosity": learned(0.1)}):
        flow = ShallowWater(mesh, **SMALL, **coefficients)
        drag = (flow(0.0, (h, u))[1] - still(0.0, (h, u))[1]).detach()
        assert float((still.grid.edge_areas[:, None] * u * drag).sum()) < 0
        assert [type(i) for i in flow.invariants] == [Part]
        assert float(rate_of(flow.invariants[0], flow, (h, u))[0].detach().abs()) < 1e-9


def test_the_energy_of_a_run_is_kept_to_the_order_of_the_time_step():
    flow, start = williamson5(icosphere(2))
    drift = []
    for dt in (2400.0, 1200.0):
        with torch.no_grad():
            path = integrate(flow, start, [0.0, 24 * HOUR], RK4(dt)).x
        mass, energy = flow.invariants
        assert mass.violation(path) < 64 * U
        drift.append(energy.violation(path))
    assert drift[0] < 1e-6
    # RK4 damps waves by a term of order five.
    assert math.log2(drift[0] / drift[1]) > 4.5


def test_anticipation_looks_against_the_wind():
    # A solid rotation ω × x of a layer of constant depth: q = 2 (Ω + ω)·x / h, and u·grad q = 2 (ω × x)·Ω / h.
    mesh, axis, spin = centroidal_icosphere(3), noise(3, seed=1), 0.3 * noise(3, seed=2)
    now, ahead = (ShallowWater(mesh, radius=1.0, gravity=1.0, rotation=axis, anticipation=tau) for tau in (0.0, 0.1))
    grid, h = now.grid, torch.full((mesh.num_nodes, 1), 2.0, dtype=torch.float64)
    u = grid.wind(lambda x: torch.linalg.cross(spin.expand_as(x), x))
    slope = (torch.linalg.cross(spin.expand_as(grid.midpoints), grid.midpoints) @ axis)[:, None]
    expected = -0.1 * (slope * grid.perp(2 * u) + grid.perp(slope * 2 * u)) / 2
    difference = ahead(0.0, (h, u))[1] - now(0.0, (h, u))[1]
    assert torch.linalg.vector_norm(difference - expected) < 0.05 * torch.linalg.vector_norm(expected)


def test_anticipation_takes_potential_enstrophy_and_no_energy():
    mesh, end = icosphere(1), [0.0, 48 * HOUR, 96 * HOUR]
    enstrophy = {}
    for anticipation in (0.0, 12 * HOUR):
        flow, start = williamson5(mesh, lambda *a, t=anticipation, **k: ShallowWater(*a, anticipation=t, **k))
        # A wind of finest scales, which q piles up on.
        start = (start[0], start[1] + 5 * noise(*start[1].shape))
        with torch.no_grad():
            path = integrate(flow, start, end, RK4(2400.0)).x
        assert flow.invariants[1].violation(path) < 1e-5
        quantity = PotentialEnstrophy(flow)
        assert quantity.law is Law.NON_INCREASING
        enstrophy[anticipation] = (quantity.measure(path) / quantity.measure((path[0][0], path[1][0]))).tolist()
    assert enstrophy[12 * HOUR][2] < 0.95
    assert abs(enstrophy[0.0][2] - 1) < 1e-3


def test_potential_enstrophy_is_the_formula():
    flow = ShallowWater(icosphere(1), **SMALL)
    h, u = state(flow)
    q = flow.potential_vorticity((h, u))
    expected = (flow.grid.face_areas[:, None] * flow.grid.to_faces(h) * q**2).sum() / 2
    assert_within(PotentialEnstrophy(flow).measure((h, u)), expected, 64 * U * expected)
    assert PotentialEnstrophy(flow).scale((h, u)) > 0


@pytest.mark.parametrize("wind", [0.0, 1.0])
def test_frequency_bounds_the_spectrum_of_the_linearised_flow(wind):
    flow = ShallowWater(icosphere(1), **SMALL)
    h, u = state(flow)
    u = wind * u
    n = len(h)

    def packed(x):
        return torch.cat(flow(torch.tensor(0.0), (x[:n, None], x[n:, None]))).squeeze(1)

    spectrum = torch.linalg.eigvals(torch.func.jacrev(packed)(torch.cat([h, u]).squeeze(1)))
    bound = flow.frequency((h, u))
    assert float(spectrum.abs().max()) <= bound
    assert bound < 4 * float(spectrum.abs().max())


# The rest of the contract ---------------------------------------------------------------------------------------------


def test_gradients_through_a_run_reach_the_start_the_mountain_the_axis_and_the_viscosity():
    mesh = icosphere(0)
    torch.manual_seed(0)
    reference = ShallowWater(mesh, **SMALL)
    h, u = (part.requires_grad_() for part in state(reference))
    bottom, axis = 0.1 * noise(12, 1, seed=4), noise(3, seed=5)

    def run(h, u, bottom, axis, viscosity):
        flow = ShallowWater(
            mesh,
            topography=torch.nn.Parameter(torch.zeros(12, 1, dtype=torch.float64)),
            radius=1.0,
            gravity=1.3,
            rotation=torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)),
            viscosity=torch.nn.Parameter(torch.zeros((), dtype=torch.float64)),
            anticipation=0.05,
        )

        def f(t, x):
            values = {"b.value": bottom, "rotation": axis, "nu.value": viscosity}
            return torch.func.functional_call(flow, values, (t, x))

        return tuple(part[-1] for part in integrate(f, (h, u), [0.0, 0.2], RK4(0.1)).x)

    others = (bottom.requires_grad_(), axis.requires_grad_(), torch.tensor(0.05, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(run, (h, u, *others), fast_mode=True)


def test_a_mountain_is_learned_from_the_wind_it_makes():
    mesh = icosphere(0)
    truth = 0.3 * noise(12, 1)
    flow = ShallowWater(mesh, topography=learned(torch.zeros(12, 1, dtype=torch.float64)), **SMALL)
    start = (torch.full((12, 1), 2.0, dtype=torch.float64), torch.zeros(30, 1, dtype=torch.float64))
    times = [0.0, 0.3, 0.6]
    seen = integrate(ShallowWater(mesh, topography=truth, **SMALL), start, times, RK4(0.3)).x
    optimiser = torch.optim.LBFGS(flow.parameters(), max_iter=40, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimiser.zero_grad()
        path = integrate(flow, start, times, RK4(0.3)).x
        loss = sum((a - b).square().sum() for a, b in zip(path, seen, strict=True))
        loss.backward()
        return loss

    optimiser.step(closure)
    # A constant is not seen: only slopes of the bottom push.
    found = flow.topography.detach() - flow.topography.detach().mean()
    assert_within(found, truth - truth.mean(), 1e-3)


def test_a_rotation_about_the_z_axis_can_be_learned_as_one_number():
    mesh = icosphere(0)
    one, vector = (ShallowWater(mesh, radius=1.0, gravity=1.0, rotation=torch.nn.Parameter(r)) for r in (noise(3)[0], noise(3)))
    fixed = ShallowWater(mesh, radius=1.0, gravity=1.0, rotation=float(one.rotation.detach()))
    x = state(fixed)
    assert_within(one(0.0, x)[1].detach(), fixed(0.0, x)[1], 8 * U)
    assert one.frequency(x) == pytest.approx(fixed.frequency(x))
    for flow in (one, vector):
        flow(0.0, x)[1].square().sum().backward()
        assert float(flow.rotation.grad.norm()) > 0
    assert fixed.on(icosphere(1)).coriolis().shape == (80, 1)


def test_batches_are_what_their_members_are():
    flow = ShallowWater(icosphere(1), anticipation=0.1, viscosity=0.1, **SMALL)
    members = [state(flow, seed) for seed in range(3)]
    together = flow(0.0, tuple(torch.stack(parts) for parts in zip(*members, strict=True)))
    for k, member in enumerate(members):
        for part, alone in zip(together, flow(0.0, member), strict=True):
            assert_within(part[k], alone, 64 * U * float(alone.abs().max()))
    batch = tuple(torch.stack(parts)[:, None] for parts in zip(*members, strict=True))
    assert ShallowWaterEnergy(flow.grid, flow.topography, 1.0).measure(batch).shape == (3, 1)


def test_single_precision_a_move_a_copy_and_a_pickle():
    flow = ShallowWater(icosphere(1), topography=0.1 * noise(42, 1), viscosity=0.1, **SMALL)
    x = state(flow)
    wide = flow(0.0, x)
    single = copy.deepcopy(flow).to(torch.float32)
    for part, expected in zip(single(0.0, tuple(p.float() for p in x)), wide, strict=True):
        assert part.dtype == torch.float32
        assert_within(part.double(), expected, 1e-5 * float(expected.abs().max()))
    for same in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(same(0.0, x)[1], wide[1])
    path = tuple(torch.stack([p, p]).float() for p in x)
    assert all(invariant.violation(path) == 0 for invariant in single.invariants)
    assert "rotation" in flow.state_dict(), "the axis belongs to the equation, the mesh does not"
    assert {name.split(".")[0] for name in flow.state_dict()} == {"rotation", "b", "nu"}


def test_on_another_sphere_it_is_the_same_equation():
    flow = ShallowWater(icosphere(1), viscosity=learned(0.1), **SMALL)
    finer = flow.on(icosphere(2))
    assert finer.grid.radius == 1.0
    assert finer.nu.value is flow.nu.value
    expected = ShallowWater(icosphere(2), viscosity=0.1, **SMALL)
    x = state(expected)
    assert_within(finer(0.0, x)[1], expected(0.0, x)[1], 1e-12)
    hill = ShallowWater(icosphere(1), topography=noise(42, 1), **SMALL)
    with pytest.raises(FieldError, match="topography is a field on 42 vertices and cannot move to 162"):
        hill.on(icosphere(2))


def test_a_forced_flow_and_a_moving_bottom():
    mesh = icosphere(1)
    flow = ShallowWater(mesh, topography=lambda t: 0.1 * t * torch.ones(42, 1, dtype=torch.float64), **SMALL)
    x = state(flow)
    # A bottom that rises everywhere pushes nothing.
    assert_within(flow(3.0, x)[1], ShallowWater(mesh, **SMALL)(0.0, x)[1], 64 * U * 10)
    assert [type(i) for i in flow.invariants] == [Part]
    with pytest.raises(ValueError, match="function of time"):
        _ = flow.topography
    forced = ShallowWater(mesh, **SMALL) + (lambda t, x: (torch.ones_like(x[0]), -x[1]))
    assert_within(forced(0.0, x)[0], ShallowWater(mesh, **SMALL)(0.0, x)[0] + 1, 64 * U)
    assert forced.invariants == ()


def test_a_balanced_state_starts_without_gravity_waves():
    flow = ShallowWater(icosphere(2), topography=300 * noise(162, 1).clamp(-2, 2))
    u = flow.grid.stream(lambda x: -1e8 * (x[:, 2:] + 0.3 * torch.sin(4 * x[:, :1])))
    h, same = flow.balanced(u, 8000.0)
    assert same is u
    area = flow.grid.cell_areas[:, None]
    assert_within((area * h).sum() / area.sum(), 8000.0, 1e-9)
    divergence = flow.grid.divergence(flow(0.0, (h, u))[1])
    still = torch.full_like(h, 8000.0)
    assert divergence.abs().max() < 1e-8 * flow.grid.divergence(flow(0.0, (still, u))[1]).abs().max()
    # An hour later the wind still has next to no divergence; from a level surface waves have sprung up.
    ends = [integrate(flow, start, [0.0, HOUR], RK4(1200.0)).x[1][-1] for start in ((h, u), (still - flow.topography, u))]
    calm, wild = (flow.grid.divergence(end).abs().max() for end in ends)
    assert calm < 0.1 * wild
    batch = flow.balanced(torch.stack([u, 0.5 * u]), 8000.0)[0]
    assert_within(batch[0], h, 1e-6)
    with pytest.raises(ValueError, match="falls dry"):
        flow.balanced(30 * u, 2000.0)
    with pytest.raises(ValueError, match="mean_depth must be positive"):
        flow.balanced(u, -1.0)


def test_balance_is_differentiable_in_the_wind():
    flow = ShallowWater(icosphere(0), **SMALL)
    u = flow.grid.stream(0.2 * noise(20, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: flow.balanced(u, 2.0)[0], u, fast_mode=True)


def test_fields_to_look_at():
    flow = ShallowWater(icosphere(2))
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    u = flow.grid.wind(lambda x: 40 * torch.linalg.cross(axis.expand_as(x), x))
    assert_within(torch.linalg.vector_norm(flow.velocity(u), dim=1), 40 * flow.grid.centres[:, :2].norm(dim=1), 1e-10)
    turning = 2 * 40 / flow.grid.radius
    assert_within(flow.vorticity(u), turning * flow.grid.circumcentres[:, 2:], 0.05 * turning)
    h = torch.full((162, 1), 5000.0, dtype=torch.float64)
    expected = (2 * 7.292e-5 + turning) * flow.grid.circumcentres[:, 2:] / 5000
    assert_within(flow.potential_vorticity((h, u)), expected, 0.05 * turning / 5000)
    assert flow.gravity == EARTH_GRAVITY


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda f: ShallowWater(torus()), DomainError, "no sphere"),
        (lambda f: ShallowWater(icosphere(0), gravity=-9.8), ValueError, "gravity must be positive"),
        (lambda f: ShallowWater(icosphere(0), radius=0.0), DomainError, "radius must be positive"),
        (lambda f: ShallowWater(icosphere(0), viscosity=-1.0), ValueError, "viscosity must not be negative"),
        (lambda f: ShallowWater(icosphere(0), viscosity=torch.ones(12, 1)), FieldError, "viscosity must be one number"),
        (lambda f: ShallowWater(icosphere(0), anticipation=-1.0), ValueError, "anticipation must be a time"),
        (lambda f: ShallowWater(icosphere(0), rotation=torch.zeros(2)), ValueError, "rotation must be"),
        (lambda f: ShallowWater(icosphere(0), rotation=math.nan), ValueError, "rotation must be"),
        (lambda f: ShallowWater(icosphere(0), rotation=learned(1e-4)), ValueError, "rotation must be"),
        (lambda f: ShallowWater(icosphere(0), rotation=torch.tensor(1j)), ValueError, "rotation must be"),
        (lambda f: f(0.0, (state(f)[0], 1j * state(f)[1])), FieldError, "depth and wind are real"),
        (lambda f: ShallowWater(icosphere(0), topography=torch.zeros(11, 1)), FieldError, "topography"),
        (lambda f: f(0.0, state(f)[0]), FieldError, "pair"),
        (lambda f: f(0.0, state(f)[::-1]), FieldError, "depth h must have shape"),
        (lambda f: f(0.0, (state(f)[0], state(f)[1].float())), FieldError, "wind u"),
    ],
)
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call(ShallowWater(icosphere(0)))
