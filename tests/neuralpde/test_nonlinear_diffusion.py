"""Perona–Malik keeps the edges that heat destroys; the p-Laplacian has heat at p = 2 and Barenblatt's solution beyond."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import RK4, BackwardEuler, Checkpointed, Direct, NewtonKrylov, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.invariants import Law, Mass, MaximumPrinciple, Norm
from neuralpde.nonlinear_diffusion import PeronaMalik, PLaplacian, SlopeDiffusion, SlopeEnergy
from neuralpde.semi_implicit import SemiImplicitEuler
from neuralpde.slopes import EdgeSlopes, FaceSlopes, NodeSlopes
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Boundary, Grid, bumpy, combinatorial_laplacian, grid_laplacian, icosphere, robust_laplacian, torus

NOW = torch.tensor(0.3, dtype=torch.float64)
LINE = grid_laplacian(Grid(6, 0.5))


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flows(domain):
    return {
        "exponential": PeronaMalik(domain, 0.7, exponential=True),
        "rational": PeronaMalik(domain, 0.7),
        "p = 1": PLaplacian(domain, 1.0, 0.3),
        "p = 1.5": PLaplacian(domain, 1.5, 0.1),
        "p = 3": PLaplacian(domain, 3.0),
        "p = 4": PLaplacian(domain, 4.0, 0.2),
    }


NAMES = tuple(flows(LINE))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("domain", [LINE, EdgeSlopes(LINE), bumpy(icosphere(0), 0.2)], ids=["nodes", "edges", "faces"])
def test_it_is_the_gradient_flow_of_its_energy(domain, name):
    f = flows(domain)[name]
    base = f.slopes.base
    u = noise(2, base.shape[0], 2)
    v = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f.energy(v).sum(), v)
    flow = f(NOW, u)
    assert_within(gradient, -base.mass[:, None] * flow, 1e-12 * float(gradient.abs().max()))
    part, rest = f.lagged(NOW, u)
    assert rest is None
    assert_within(part @ u, flow, 1e-12 * float(flow.abs().max()))
    # g is G', by central differences.
    s = torch.linspace(0.1, 4, 9, dtype=torch.float64)
    h = 1e-6
    assert_within((f.primitive(s + h) - f.primitive(s - h)) / (2 * h), f.conductance(s), 1e-8)


LAPLACIANS = st.one_of(
    graphs(weights=("ones", "dyadic")).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)
)


@given(data=st.data(), name=st.sampled_from(NAMES), where=st.sampled_from([NodeSlopes, EdgeSlopes]))
def test_semi_implicit_steps_of_any_length_keep_every_law_but_the_energy(data, name, where):
    """The frozen matrix is one of weights ≥ 0, so mass, norm and hull are those of backward Euler for heat."""
    laplacian = data.draw(LAPLACIANS)
    n = laplacian.shape[0]
    u0 = data.draw(fields(n, 2))
    u0 = u0 / float(u0.abs().max().clamp(min=1.0))
    f = flows(where(laplacian))[name]
    dt = data.draw(st.sampled_from([0.01, 1.0, 100.0])) / max(laplacian.norm_bound(), 1e-30)
    with torch.no_grad():
        path = integrate(f, u0, dt * torch.arange(4, dtype=torch.float64), SemiImplicitEuler(dt)).x
        stiffest = max(1.0, *(float(f.lagged(NOW, u)[0].norm_bound()) * dt for u in path))
    tolerance = 64 * n * 3 * roundoff(u0.dtype) * stiffest * float(laplacian.mass.max() / laplacian.mass.min())
    declared = {type(i) for i in f.invariants}
    assert declared == {SlopeEnergy, Norm, Mass, MaximumPrinciple}
    for invariant in f.invariants:
        if not isinstance(invariant, SlopeEnergy):
            assert invariant.violation(path) <= tolerance, invariant.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes, FaceSlopes])
def test_the_exact_flow_keeps_every_law(where, name):
    mesh = icosphere(1)
    f = flows(where(mesh) if where is FaceSlopes else where(robust_laplacian(mesh)))[name]
    u0 = 0.3 * noise(42, 2)
    # g is largest at the steepest slopes for p > 2, and where it is flat otherwise.
    flat = float(f.conductance(torch.zeros((), dtype=torch.float64)))
    dt = 0.5 / max(f.lagged(NOW, u0)[0].norm_bound(), flat * f.slopes.base.norm_bound())
    path = integrate(f, u0, dt * torch.arange(20, dtype=torch.float64), RK4(dt)).x
    assert {type(i) for i in f.invariants} == {SlopeEnergy, Norm, Mass, MaximumPrinciple}
    for invariant in f.invariants:
        assert invariant.violation(path) < 1e-12, invariant.name
    assert float(f.energy(path[-1])) < 0.95 * float(f.energy(path[0]))
    # A law that it does not have is seen to be broken.
    assert Norm(f.slopes.base, Law.CONSERVED).violation(path) > 1e-3


def test_p_two_is_the_heat_equation():
    for domain in (LINE, EdgeSlopes(LINE), icosphere(1)):
        f = PLaplacian(domain, 2.0)
        u = noise(3, f.slopes.base.shape[0], 2)
        heat = Heat(f.slopes.base)
        assert torch.equal(f.conductance(f.slopes.squared(u)), torch.ones_like(f.slopes.squared(u)))
        assert_within(f(NOW, u), heat(NOW, u), 1e-13 * float(heat(NOW, u).abs().max()))


def barenblatt(x, t, p):
    """t^(−α) (C − κ |x|^q t^(−αq))₊^((p−1)/(p−2)) in one dimension, q = p/(p − 1), α = 1/(2(p − 1)); C = 1."""
    alpha, q = 1 / (2 * (p - 1)), p / (p - 1)
    kappa = (p - 2) / p * alpha ** (1 / (p - 1))
    return t**-alpha * (1 - kappa * (x.abs() * t**-alpha) ** q).clamp(min=0) ** ((p - 1) / (p - 2))


@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes])
@pytest.mark.parametrize("p", [3.0, 4.0])
def test_barenblatts_solution_on_a_grid(where, p):
    """Vázquez, Smoothing and Decay Estimates (2006), (11.14): a source that spreads at finite speed, from t = 1 to 2."""
    errors = []
    for n in (50, 100):
        grid = Grid(n, 10 / n)
        x = grid.points - 5
        f = PLaplacian(where(grid_laplacian(grid)), p)
        u = integrate(f, barenblatt(x, 1.0, p), [1.0, 2.0], RK4(dt=0.4 * (10 / n) ** 2)).final
        exact = barenblatt(x, 2.0, p)
        errors.append(float((u - exact).abs().mean() / exact.mean()))
        # What the front has not reached is zero.
        assert float(u[(x.abs() > 4.6).squeeze(1)].abs().max()) < 1e-6
    assert errors[1] < 0.004
    # The front is a kink, so the order is below two.
    assert math.log2(errors[0] / errors[1]) > 1.2


def space_error(n, f_of, source):
    """Of −div(g ∇u) at u = sin x + cos y on the torus of side 2π."""
    grid = Grid((n, n), 2 * math.pi / n, Boundary.PERIODIC)
    x, y = grid.points.T
    u = (torch.sin(x) + torch.cos(y))[:, None]
    error = f_of(grid_laplacian(grid))(NOW, u)[:, 0] - source(x, y)
    return float(error.abs().max())


def exact_flow(conductance, derivative):
    """div(g(s) ∇u), s = |∇u|², of u = sin x + cos y: g Δu + g' ∇s·∇u."""

    def source(x, y):
        s = torch.cos(x) ** 2 + torch.sin(y) ** 2
        turn = -torch.sin(2 * x) * torch.cos(x) - torch.sin(2 * y) * torch.sin(y)
        return conductance(s) * (-torch.sin(x) - torch.cos(y)) + derivative(s) * turn

    return source


@pytest.mark.parametrize(
    ("flow", "g", "slope"),
    [
        (lambda L: PLaplacian(L, 4.0), lambda s: s, torch.ones_like),
        (lambda L: PLaplacian(L, 1.0, 0.5), lambda s: (s + 0.25) ** -0.5, lambda s: -0.5 * (s + 0.25) ** -1.5),
        (lambda L: PeronaMalik(L, 1.5), lambda s: 1 / (1 + s / 2.25), lambda s: -((1 + s / 2.25) ** -2) / 2.25),
        (lambda L: PeronaMalik(L, 1.5, exponential=True), lambda s: torch.exp(-s / 2.25), lambda s: -torch.exp(-s / 2.25) / 2.25),
    ],
    ids=["p = 4", "p = 1", "rational", "exponential"],
)
def test_order_in_space_is_two_and_isotropic_in_the_plane(flow, g, slope):
    coarse, fine = (space_error(n, flow, exact_flow(g, slope)) for n in (32, 64))
    assert fine < 0.1
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2)


def test_order_in_space_on_the_sphere():
    """Weakly, against a smooth function, where finite elements have order 2: u = z, |∇u|² = 1 − z²."""
    errors = []
    for refinements in (2, 3, 4):
        mesh = icosphere(refinements)
        z = mesh.vertices[:, 2:]
        f = PLaplacian(mesh, 4.0)
        # div((1 − z²) ∇z) = −2z(1 − z²) − 2z(1 − z²), tested with z: −4 ∫ z² (1 − z²) = −4 · 4π (1/3 − 1/5).
        errors.append(abs(float(f.slopes.base.inner(z, f(NOW, z))) / (-16 * math.pi * 2 / 15) - 1))
    assert errors[2] < 0.005
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes])
def test_perona_malik_keeps_an_edge_that_heat_destroys(where, exponential):
    grid = Grid((24, 24), 1.0)
    laplacian = grid_laplacian(grid)
    left = grid.points[:, :1] < 12
    clean = torch.where(left, 0.0, 1.0).double()
    noisy = clean + 0.03 * noise(576, 1)
    f = PeronaMalik(where(laplacian), 0.1, exponential=exponential)
    with torch.no_grad():
        kept = integrate(f, noisy, [0.0, 10.0], SemiImplicitEuler(dt=0.5)).x
        blurred = integrate(Heat(laplacian), noisy, [0.0, 10.0], BackwardEuler(dt=0.5)).final
    flat = left.squeeze(1) & (grid.points[:, 0] < 9)
    assert float(kept[-1][flat].std()) < 0.3 * float(noisy[flat].std())

    def step(u):
        rows = u.reshape(24, 24)
        return float((rows[12] - rows[11]).mean())

    assert step(kept[-1]) > 0.8
    assert step(blurred) < 0.2
    assert Mass(laplacian).violation(kept) < 1e-12
    assert MaximumPrinciple(laplacian, Law.NON_INCREASING).violation(kept) < 1e-12


def test_total_variation_flow_takes_the_top_off_a_plateau():
    """A plateau of width w and height H over its sides sinks at 2/w, its sides stay where they are."""
    grid = Grid(40, 0.1)
    u0 = ((grid.points > 1) & (grid.points < 3)).double()
    f = PLaplacian(EdgeSlopes(grid_laplacian(grid)), 1.0, 1e-3)
    with torch.no_grad():
        u = integrate(f, u0, [0.0, 0.25], SemiImplicitEuler(dt=0.005)).final
    # 1/w on each side of it: height 1 − 2t/w, and below w' = 2 of the floor, rising by 1/1 in each of its halves.
    assert float(u[20]) == pytest.approx(1 - 0.25 * 2 / 2, abs=0.02)
    assert float(u[2]) == pytest.approx(0.25, abs=0.02)
    assert float(u[10] - u[9]) > 0.4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", [NodeSlopes, EdgeSlopes, FaceSlopes])
def test_gradients(where, name):
    domain = icosphere(0) if where is FaceSlopes else grid_laplacian(Grid((3, 2), 0.5))
    given = where(domain)
    f = {
        "exponential": lambda: PeronaMalik(given, 0.7, exponential=True, learn=True),
        "rational": lambda: PeronaMalik(given, learned(0.7)),
        "p = 1": lambda: PLaplacian(given, learned(1.0), 0.3),
        "p = 1.5": lambda: PLaplacian(given, learned(1.5), 0.1),
        "p = 3": lambda: PLaplacian(given, learned(3.0)),
        "p = 4": lambda: PLaplacian(given, learned(4.0), 0.2),
    }[name]()
    ((key, parameter),) = f.named_parameters()
    u = (0.5 * noise(given.base.shape[0], 1)).requires_grad_()

    def at(u, value):
        return torch.func.functional_call(f, {key: value}, (NOW, u))

    assert torch.autograd.gradcheck(at, (u, parameter))
    values = [
        torch.autograd.grad(
            (integrate(f, u, [0.0, 0.1], SemiImplicitEuler(dt=0.05, gradient=mode)).final ** 2).sum(), (u, parameter)
        )
        for mode in (Direct(), Checkpointed(snapshots=1))
    ]
    for one, other in zip(*values, strict=True):
        assert_within(one, other, 1e-12 * float(1 + one.abs().max()))


def test_a_flat_field_stands_still_and_has_a_gradient():
    for p in (2.0, 2.5, 3.0, 5.0):
        f = PLaplacian(LINE, p)
        u = torch.full((6, 1), 2.0, dtype=torch.float64, requires_grad=True)
        flow = f(NOW, u)
        assert float(flow.detach().abs().max()) == 0
        (gradient,) = torch.autograd.grad(flow.sum() + f.energy(u), u)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_precision_batches_copies_and_other_domains(name):
    f = flows(robust_laplacian(icosphere(1)))[name]
    u = noise(2, 3, 42, 2)
    whole = f(NOW, u)
    assert_within(whole[1, 2], f(NOW, u[1, 2]), 1e-13 * float(whole.abs().max()))
    single = copy.deepcopy(f).to(torch.float32)
    assert_within(single(NOW, u.float()).double(), whole, 2048 * roundoff(torch.float32) * float(whole.abs().max()))
    assert integrate(single, u.float(), [0.0, 0.1], SemiImplicitEuler(dt=0.1)).final.dtype == torch.float32
    moved = f.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in f.parameters()]
    assert moved(NOW, noise(45, 1)).shape == (45, 1)
    # A float32 path is measured in float64.
    energy = SlopeEnergy(single)
    assert energy.measure(u).dtype == torch.float64
    assert_within(energy.measure(u), f.energy(u), 1e-5 * float(f.energy(u).max()))


@pytest.mark.parametrize("name", NAMES)
def test_renumbering_and_turning_commute_with_the_flow(name):
    mesh, u = bumpy(icosphere(1), 0.2), noise(42, 2)
    generator = torch.Generator().manual_seed(0)
    for domain in (mesh, robust_laplacian(mesh)):
        f = flows(domain)[name]
        assert len(f.symmetries) == 2
        for symmetry in f.symmetries:
            motion = symmetry.draw(mesh, generator)
            there = f.on(symmetry.domain(motion, mesh))(NOW, symmetry.field(motion, u))
            here = symmetry.field(motion, f(NOW, u))
            assert_within(there, here, 1e-10 * float(here.abs().max()))


def test_newton_solves_what_freezing_approximates():
    f = PLaplacian(grid_laplacian(Grid((5, 4), 0.5)), 3.0)
    u0 = noise(20, 1)
    implicit = integrate(f, u0, [0.0, 0.2], BackwardEuler(dt=0.01, newton=NewtonKrylov(rtol=1e-10))).final
    assert_within(integrate(f, u0, [0.0, 0.2], SemiImplicitEuler(dt=0.01)).final, implicit, 0.1)


def test_energies_are_the_same_only_for_the_same_flow():
    f = PLaplacian(LINE, 3.0)
    assert SlopeEnergy(f).same_quantity(SlopeEnergy(f, Law.CONSERVED))
    assert not SlopeEnergy(f).same_quantity(SlopeEnergy(PLaplacian(LINE, 3.0)))
    assert {i.name for i in (f + f).invariants} == {i.name for i in f.invariants}
    # With heat beside it the energies differ; the rest adds up.
    assert {i.name for i in (f + Heat(f.slopes.base)).invariants} == {"norm", "mass"} | (
        {"maximum principle"} if any(isinstance(i, MaximumPrinciple) for i in Heat(LINE).invariants) else set()
    )


def test_refusals_name_the_cure():
    with pytest.raises(ValueError, match=r"p must be at least 1"):
        PLaplacian(LINE, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"p = 1.5 needs regularization=δ > 0"):
        PLaplacian(LINE, 1.5)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="regularization must be finite"):
            PLaplacian(LINE, 1.0, bad)
        with pytest.raises(ValueError, match="contrast must be positive and finite"):
            PeronaMalik(LINE, bad)
    with pytest.raises(TypeError, match=r"contrast must be one number, .* not a field"):
        PeronaMalik(LINE, torch.ones(6, 1, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"contrast must be one number, .* not a function"):
        PeronaMalik(LINE, lambda t: t)
    with pytest.raises(TypeError, match="abstract"):
        SlopeDiffusion(LINE)


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    assert_right_hand_side(lambda mesh: PLaplacian(mesh, 4.0), meshes(slivers=False), search=few)
    assert_right_hand_side(lambda mesh: PeronaMalik(robust_laplacian(mesh), 0.5), meshes(slivers=False), search=few)
    unit = graphs(min_nodes=2, weights=("ones", "dyadic"))
    assert_right_hand_side(lambda graph: PLaplacian(EdgeSlopes(combinatorial_laplacian(graph)), 1.0, 0.1), unit, search=few)
