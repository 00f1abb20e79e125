"""Phase fields lower their energy, keep their mass or their bound, and follow the laws of their interfaces."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import (
    ARK324,
    BDF2,
    ETDRK2,
    ETDRK4,
    RK4,
    SBDF2,
    SDIRK2,
    SDIRK3,
    BackwardEuler,
    Checkpointed,
    CrankNicolson,
    Direct,
    NewtonKrylov,
    RadauIIA5,
    integrate,
)
from neuralpde.coefficient import learned
from neuralpde.invariants import Law, Mass
from neuralpde.phase_field import AllenCahn, CahnHilliard, DegenerateCahnHilliard, FreeEnergy, WithinWells
from neuralpde.semi_implicit import SemiImplicitEuler
from neuralpde.symmetry import Permutation, RigidMotion
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import (
    Boundary,
    Grid,
    bumpy,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid_laplacian,
    icosphere,
    robust_laplacian,
    torus,
)

NOW = torch.tensor(0.3, dtype=torch.float64)
L = cotangent_laplacian(icosphere(1))
SMALL = grid_laplacian(Grid((7, 5), 0.4, (Boundary.NEUMANN, Boundary.PERIODIC)))
WALLED = grid_laplacian(Grid((7, 5), 0.4, (Boundary.NEUMANN, Boundary.DIRICHLET)))


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def field(n, low=0.3, columns=1, seed=1):
    return low + torch.rand(n, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flows(laplacian):
    n = laplacian.shape[0]
    width, mobility = field(n), field(n, 0.5, seed=2)
    return {
        "Allen–Cahn": AllenCahn(laplacian, 0.3),
        "Allen–Cahn, stabilised": AllenCahn(laplacian, 0.3, 1.7, stabilization=2.0),
        "Allen–Cahn, uneven": AllenCahn(laplacian, width, mobility, stabilization=0.5),
        "Allen–Cahn, uneven width": AllenCahn(laplacian, width),
        "Cahn–Hilliard": CahnHilliard(laplacian, 0.3, 0.8),
        "Cahn–Hilliard, stabilised": CahnHilliard(laplacian, 0.3, 0.8, stabilization=2.0),
        "Cahn–Hilliard, uneven": CahnHilliard(laplacian, width, mobility, stabilization=0.5),
        "Cahn–Hilliard, channels apart": CahnHilliard(laplacian, field(n, columns=2), mobility),
        "Cahn–Hilliard, degenerate": DegenerateCahnHilliard(laplacian, 0.3, stabilization=0.5),
    }


NAMES = tuple(flows(SMALL))


@pytest.mark.parametrize("laplacian", [SMALL, WALLED, L], ids=["grid", "walls", "sphere"])
@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_and_solves_invert_the_linear_one(name, laplacian):
    f = flows(laplacian)[name]
    u = noise(3, laplacian.shape[0], 2)
    whole, part = f(NOW, u), f.linear
    assert (part is None) == (("uneven" in name and "Cahn–H" in name) or "apart" in name or "degenerate" in name)
    if part is not None:
        assert_within(part @ u + f.nonlinear(NOW, u), whole, 1e-12 * float(whole.abs().max()))
    else:
        assert f.nonlinear is None
        part, rest = f.lagged(NOW, u)
        assert_within(part @ u + rest, whole, 1e-12 * float(whole.abs().max()))
    for s in (0.0, 1e-3, 0.4, 0.2 + 0.3j):
        shift = torch.tensor(s, dtype=torch.complex128 if isinstance(s, complex) else torch.float64)
        y = part.solve(shift, u)
        # Round-off of G y, whose norm is about s‖G‖ times that of y.
        assert_within(y - shift * (part @ y), u.to(y.dtype), 1e-13 * (1 + abs(s) * part.norm_bound()))
    largest = torch.linalg.vector_norm(torch.stack([part @ noise(laplacian.shape[0], 2, seed=k) for k in range(3)]))
    assert float(largest) > 0
    for k in range(3):
        x = noise(laplacian.shape[0], 1, seed=k)
        if name.endswith(("Cahn", "Hilliard", "stabilised")):
            largest = (1 + 1e-12) * part.norm_bound() ** 2 * float(laplacian.inner(x, x))
            assert float(laplacian.inner(part @ x, part @ x)) <= largest


@pytest.mark.parametrize("laplacian", [SMALL, WALLED, L], ids=["grid", "walls", "sphere"])
@pytest.mark.parametrize("name", NAMES)
def test_the_chemical_potential_is_the_derivative_of_the_energy(name, laplacian):
    f = flows(laplacian)[name]
    u = noise(laplacian.shape[0], 2).requires_grad_()
    (gradient,) = torch.autograd.grad(f.energy.measure(u), u)
    assert_within(gradient, laplacian.mass[:, None] * f.chemical_potential(u.detach()), 1e-12 * float(gradient.abs().max()))


def test_the_energy_of_a_field_is_what_its_docstring_says():
    u = noise(2, 35, 3)
    energy = FreeEnergy(SMALL, width=0.4)
    slopes = torch.einsum("bic,ij,bjc->b", u, SMALL.stiffness.matrix(), u)
    expected = 0.08 * slopes + (SMALL.mass[:, None] * (u**2 - 1) ** 2).sum((1, 2)) / 4
    assert_within(energy.measure(u), expected, 1e-13 * float(expected.abs().max()))
    assert bool((energy.scale(u) >= energy.measure(u)).all())
    uneven = FreeEnergy(SMALL, width=torch.full((35, 1), 0.4, dtype=torch.float64))
    assert_within(uneven.measure(u), expected, 1e-12 * float(expected.abs().max()))
    assert energy.same_quantity(FreeEnergy(SMALL, Law.CONSERVED, width=0.4))
    assert not energy.same_quantity(FreeEnergy(SMALL, width=0.5))


@given(name=st.sampled_from(NAMES), u=fields(35, 2), size=st.sampled_from([0.1, 1.0, 3.0]))
def test_the_energy_falls_and_the_mass_stays_at_every_state(name, u, size):
    """The rates of change themselves, at any state: dE/dt = ⟨μ, du/dt⟩ ≤ 0 and dm/dt = 0."""
    u = size * u / float(u.abs().max().clamp(min=1.0))
    f = flows(SMALL)[name]
    with torch.no_grad():
        slope, potential = f(NOW, u), f.chemical_potential(u)
        reach = 2 * SMALL.norm_bound() * SMALL.inner(potential, potential)
        assert float(SMALL.inner(potential, slope)) <= 64 * roundoff(u.dtype) * float(reach)
    declared = {type(i) for i in f.invariants}
    assert FreeEnergy in declared
    if isinstance(f, CahnHilliard):
        assert Mass in declared
        terms = 2 * SMALL.norm_bound() * float((SMALL.mass[:, None] * potential.abs()).sum())
        assert float((SMALL.mass[:, None] * slope).sum(0).abs().max()) <= 64 * roundoff(u.dtype) * terms
    else:
        assert WithinWells in declared


@given(data=st.data())
def test_semi_implicit_steps_of_any_length_keep_the_laws(data):
    """With a = 2, from |u| ≤ 1; for Allen–Cahn the bound stays as well (1 + s(a + 1) − s ≥ |u|(...), an M-matrix)."""
    laplacian = data.draw(
        st.one_of(graphs(weights=("ones", "dyadic")).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian))
    )
    u0 = data.draw(fields(laplacian.shape[0], 1)).clamp(-1, 1)
    dt = data.draw(st.sampled_from([0.01, 1.0, 1e3]))
    n, ratio = laplacian.shape[0], float(laplacian.mass.max() / laplacian.mass.min())
    width = data.draw(st.sampled_from([0.1, 1.0])) * math.sqrt(float(laplacian.mass.mean()))
    f = AllenCahn(laplacian, width, stabilization=2.0)
    with torch.no_grad():
        path = integrate(f, u0, dt * torch.arange(5, dtype=torch.float64), SemiImplicitEuler(dt)).x
    tolerance = 256 * n * roundoff(u0.dtype) * ratio * (1 + width**2 * laplacian.norm_bound())
    for invariant in f.invariants:
        assert invariant.violation(path) <= tolerance, invariant.name


@pytest.mark.parametrize("dt", [0.01, 1.0, 100.0])
def test_stabilised_cahn_hilliard_lowers_its_energy_in_steps_of_any_length(dt):
    f = CahnHilliard(SMALL, 0.5, stabilization=2.0)
    u0 = 0.8 * torch.sin(3 * torch.arange(35, dtype=torch.float64))[:, None]
    path = integrate(f, u0, dt * torch.arange(8, dtype=torch.float64), SemiImplicitEuler(dt)).x
    for invariant in f.invariants:
        # The mass errs by the round-off of h L(...).
        assert invariant.violation(path) <= 1e-14 * (1 + dt * SMALL.norm_bound()), invariant.name
    # Without it the same steps blow up, or raise the energy.
    if dt == 1.0:
        bare = CahnHilliard(SMALL, 0.05)
        rough = integrate(bare, u0, [0.0, 1.0, 2.0], SemiImplicitEuler(dt), throw=False).x
        assert not FreeEnergy(SMALL, Law.NON_INCREASING, width=0.05).violation(rough) <= 1e-3


def test_a_flat_interface_is_a_hyperbolic_tangent():
    """A steady state, up to second differences: order 2, and SBDF2 stays there."""
    errors = []
    for n in (100, 200):
        grid = Grid(n, 4 / n)
        x = grid.points - 2
        f = AllenCahn(grid_laplacian(grid), 0.2)
        errors.append(float(f(NOW, torch.tanh(x / (math.sqrt(2) * 0.2))).abs().max()))
    assert errors[1] < 0.003
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_a_circle_shrinks_by_its_curvature():
    """R² = R₀² − 2 ε² t in the limit of a thin interface, on a quarter of the plane."""
    n, width, start = 48, 0.035, 0.6
    grid = Grid((n, n), 1 / n)
    laplacian = grid_laplacian(grid)
    u0 = torch.tanh((start - grid.points.norm(dim=1)) / (math.sqrt(2) * width))[:, None]
    end = 0.2 / (2 * width**2)
    with torch.no_grad():
        u = integrate(AllenCahn(laplacian, width), u0, [0.0, end], SBDF2(dt=0.5)).x
    square = 4 / math.pi * (laplacian.mass[:, None] * (1 + u) / 2).sum((1, 2))
    assert float(square[0] - square[1]) == pytest.approx(2 * width**2 * end, rel=0.025)


def test_a_cap_of_the_sphere_shrinks_by_its_geodesic_curvature():
    """cos r = cos r₀ exp(ε² t)."""
    mesh, width = icosphere(3), 0.15
    laplacian = robust_laplacian(mesh)
    u0 = torch.tanh((1.2 - torch.acos(mesh.vertices[:, 2].clamp(-1, 1))) / (math.sqrt(2) * width))[:, None]
    with torch.no_grad():
        u = integrate(AllenCahn(laplacian, width), u0, [0.0, 0.5 / width**2], SBDF2(dt=0.5)).x
    area = (laplacian.mass[:, None] * (1 + u) / 2).sum((1, 2)) / laplacian.mass.sum()
    cosine = 1 - 2 * area
    assert float((cosine[1] / cosine[0]).log()) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("k", [2, 7, 9, 12])
def test_spinodal_modes_grow_at_their_linear_rate(k):
    """m λ (1 − ε² λ), growing below λ = 1/ε² and decaying above, with λ of the grid; k² (1 − ε² k²) as it is refined."""
    grid = Grid((48, 2), (2 * math.pi / 48, 1.0), Boundary.PERIODIC)
    laplacian = grid_laplacian(grid)
    mode = torch.cos(k * grid.points[:, :1])
    eigenvalue = float(laplacian.inner(mode, laplacian @ mode) / laplacian.inner(mode, mode))
    u = integrate(CahnHilliard(laplacian, 0.1, 2.0), 1e-6 * mode, [0.0, 0.01], SBDF2(dt=1e-4)).final
    rate = math.log(float(laplacian.inner(mode, u) / laplacian.inner(mode, 1e-6 * mode))) / 0.01
    assert rate == pytest.approx(2 * eigenvalue * (1 - 0.01 * eigenvalue), rel=1e-3)
    if k == 2:
        assert rate == pytest.approx(2 * 4 * (1 - 0.04), rel=0.01)


def test_domains_coarsen_as_the_cube_root_of_time():
    """E ~ length of the interfaces ~ t^(−1/3): the mean over four starts, over a factor of 16 in time."""
    grid = Grid((40, 40), 2 * math.pi / 40, Boundary.PERIODIC)
    f = CahnHilliard(grid_laplacian(grid), 0.15, stabilization=2.0)
    u0 = 0.1 * noise(4, 1600, 1)
    with torch.no_grad():
        solution = integrate(f, u0, [0.0, 1.0, 4.0, 16.0], SemiImplicitEuler(dt=0.05))
        energy = f.energy.measure(solution.x).mean(1)
    exponent = float((energy[1] / energy[3]).log()) / math.log(16)
    print("coarsening exponent", exponent)
    assert 0.22 < exponent < 0.42


ORDERS = [(SBDF2, 2), (ETDRK4, 4), (CrankNicolson, 2), (SemiImplicitEuler, 1)]


@pytest.mark.parametrize(("solver", "order"), ORDERS)
@pytest.mark.parametrize("equation", [AllenCahn, CahnHilliard])
def test_manufactured_order_in_time(equation, solver, order):
    """With the source that makes u = ½ cos(2t) φ a solution, φ a smooth mode."""
    f = equation(SMALL, 0.5, stabilization=0.5 if solver is SemiImplicitEuler else 0.0)
    mode = 0.5 * torch.cos(math.pi * (torch.arange(7).repeat_interleave(5) + 0.5).double() / 7)[:, None]
    g = f + (lambda t, u: -2 * torch.sin(2 * t) * mode - f(t, torch.cos(2 * t) * mode))
    errors = []
    for dt in (0.1, 0.05) if order == 4 else (0.05, 0.025):
        options = {"newton": NewtonKrylov(rtol=1e-11)} if solver is CrankNicolson else {}
        final = integrate(g, mode, [0.0, 1.0], solver(dt=dt, **options)).final
        errors.append(float((final - math.cos(2.0) * mode).abs().max()))
    assert math.log2(errors[0] / errors[1]) > order - 0.3
    assert errors[1] < 0.05


def space_error(equation, grid, width=0.5):
    """The error of ∂u/∂t at u = ½ cos x, where cos³ = (3 cos + cos 3)/4, in the norm of the masses."""
    laplacian, mode, third = grid_laplacian(grid), torch.cos(grid.points[:, :1]), torch.cos(3 * grid.points[:, :1])
    terms = [(0.5 * (width**2 - 1), 1.0, mode), (3 / 32, 1.0, mode), (1 / 32, 9.0, third)]
    exact = -sum(a * (b if equation is CahnHilliard else 1) * y for a, b, y in terms)
    error = equation(laplacian, width)(NOW, 0.5 * mode) - exact
    return float((laplacian.inner(error, error) / laplacian.inner(exact, exact)).sqrt())


@pytest.mark.parametrize("equation", [AllenCahn, CahnHilliard])
def test_order_in_space_is_two_on_a_grid(equation):
    coarse, fine = (space_error(equation, Grid((n, 3), (2 * math.pi / n, 1.0), Boundary.PERIODIC)) for n in (32, 64))
    assert fine < 0.02
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.1)


def test_order_in_space_is_two_on_the_sphere():
    """Of what the equation does to a path: pointwise, a lumped Laplacian has no order on an irregular mesh."""
    errors = []
    for refinements in (2, 3):
        mesh = icosphere(refinements)
        laplacian, z = robust_laplacian(mesh), mesh.vertices[:, 2:]
        third = (5 * z**3 - 3 * z) / 2
        # u = e^(−t) z/2 with the source that makes it a solution.
        for equation in (AllenCahn, CahnHilliard):
            f, chemical = equation(laplacian, 0.5), equation is CahnHilliard

            def source(t, u, z=z, third=third, chemical=chemical):
                a = torch.exp(-t) / 2
                first, cube = (0.25 * 2 - 1) * a + 0.6 * a**3, 0.4 * a**3
                return -a * z + (2 * first if chemical else first) * z + (12 * cube if chemical else cube) * third

            final = integrate(f + source, 0.5 * z, [0.0, 0.5], SBDF2(dt=0.01)).final
            exact = math.exp(-0.5) / 2 * z
            error = final - exact
            errors.append(float((laplacian.inner(error, error) / laplacian.inner(exact, exact)).sqrt()))
    assert max(errors[2:]) < 0.01
    assert errors[0] / errors[2] > 3
    assert errors[1] / errors[3] > 3


def test_degenerate_mobility_moves_nothing_inside_the_phases():
    f = DegenerateCahnHilliard(SMALL, 0.3)
    u = torch.where(torch.arange(35)[:, None] < 18, 1.0, -1.0).double()
    assert float(f(NOW, u).abs().max()) == 0
    u0 = 0.9 * torch.sin(2 * torch.arange(35, dtype=torch.float64))[:, None]
    path = integrate(f, u0, 0.05 * torch.arange(9, dtype=torch.float64), SemiImplicitEuler(dt=0.05)).x
    reference = integrate(f, u0, [0.0, 0.4], RK4(dt=0.005)).final
    assert {i.name for i in f.invariants} == {"free energy", "mass"}
    assert Mass(SMALL).violation(path) < 1e-13
    assert f.energy.violation(path) < 1e-12
    assert float((path[-1] - reference).abs().max()) < 0.1
    with pytest.raises(ValueError, match="the mobility depends on the field"):
        _ = f.mobility


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_precision_batches_and_copies(name, dtype):
    f = copy.deepcopy(flows(SMALL)[name]).to(dtype)
    u = (0.5 * noise(2, 3, 35, 2)).to(dtype)
    whole = f(NOW, u)
    assert whole.dtype == dtype
    for i in range(2):
        assert_within(whole[i, 1], f(NOW, u[i, 1]), 64 * roundoff(dtype) * float(whole.abs().max()))
    final = integrate(f, u, [0.0, 0.02], SemiImplicitEuler(dt=0.01)).final
    single = integrate(f, u[1, 2], [0.0, 0.02], SemiImplicitEuler(dt=0.01)).final
    assert final.dtype == dtype
    assert_within(final[1, 2], single, 256 * roundoff(dtype) * float(final.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_the_field_and_the_coefficients(name):
    """By central differences through a step, where the matrix, its solve and the right-hand side depend on all of them."""
    laplacian = grid_laplacian(Grid((3, 3), 0.5))
    build = {
        "Allen": lambda e, m: AllenCahn(laplacian, learned(e), learned(m), stabilization=0.7),
        "Cahn": lambda e, m: CahnHilliard(laplacian, learned(e), learned(m), stabilization=0.7),
        "degen": lambda e, m: DegenerateCahnHilliard(laplacian, learned(e), lambda u: 2 - u * u),
    }["degen" if "degen" in name else name[:5].rstrip("–")]
    uneven = "uneven" in name or "apart" in name
    f = build(field(9) if uneven else 0.4, field(9, 0.5, seed=2) if uneven else 1.3)
    parameters = tuple(p for p in f.parameters() if p.requires_grad)
    u = (0.5 * noise(9, 1)).requires_grad_()

    def step(u, *values):
        g = torch.func.functional_call(f, dict(zip((k for k, _ in f.named_parameters()), values, strict=True)), (NOW, u))
        return g

    assert torch.autograd.gradcheck(lambda u, *p: step(u, *p), (u, *parameters))
    x0 = u.detach()
    weights = torch.linspace(1, 2, 9, dtype=torch.float64)[:, None]

    def value():
        return (weights * integrate(f, x0, [0.0, 0.2], SemiImplicitEuler(dt=0.1, gradient=Direct())).final).sum()

    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            assert isinstance(f, DegenerateCahnHilliard)
            continue
        direction, h = torch.ones_like(p), 1e-5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * h * direction)
                ends.append(float(value()))
                p.sub_(sign * h * direction)
        assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_coefficients_that_depend_on_time():
    f = AllenCahn(SMALL, lambda t: 0.3 + 0.1 * t, lambda t: 1 + t)
    g = CahnHilliard(SMALL, lambda t: 0.3 + 0.1 * t, stabilization=2.0)
    u = 0.5 * noise(35, 1)
    assert_within(f(NOW, u), AllenCahn(SMALL, 0.33, 1.3)(NOW, u), 1e-14)
    assert_within(g(NOW, u), CahnHilliard(SMALL, 0.33)(NOW, u), 1e-12)
    assert f.linear is g.linear is f.nonlinear is g.nonlinear is None
    assert {i.name for i in f.invariants} == {"bound |u| ≤ 1"}
    assert {i.name for i in g.invariants} == {"mass"}
    for rhs in (f, g):
        steps = integrate(rhs, u, [0.0, 0.2], SemiImplicitEuler(dt=0.004)).final
        assert_within(steps, integrate(rhs, u, [0.0, 0.2], RK4(dt=0.002)).final, 0.05)
        with pytest.raises(ValueError, match="a function of time"):
            _ = rhs.width


def test_moving_to_another_domain_shares_the_coefficients():
    mesh = bumpy(icosphere(1), 0.2)
    f = CahnHilliard(robust_laplacian(mesh), 0.5, learn=True, stabilization=2.0)
    moved = f.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in f.parameters()]
    assert moved.linear.laplacian is moved.laplacian
    assert set(f.symmetries) == {Permutation(), RigidMotion()}
    generator, u = torch.Generator().manual_seed(0), noise(42, 2)
    for symmetry in f.symmetries:
        motion = symmetry.draw(mesh, generator)
        there = f.on(symmetry.domain(motion, mesh))(NOW, symmetry.field(motion, u))
        assert_within(there, symmetry.field(motion, f(NOW, u).detach()), 1e-11 * float(f(NOW, u).detach().abs().max()))
    assert AllenCahn(SMALL, field(35)).symmetries == ()


def test_laws_are_declared_only_where_they_hold():
    obtuse = cotangent_laplacian(bumpy(torus(9, 5), 0.3))
    assert not any(isinstance(i, WithinWells) for i in AllenCahn(obtuse, 0.3).invariants)
    assert not any(isinstance(i, FreeEnergy) for i in DegenerateCahnHilliard(obtuse, 0.3).invariants)
    assert not any(isinstance(i, FreeEnergy) for i in CahnHilliard(obtuse, 0.3, field(45)).invariants)
    assert not any(isinstance(i, Mass) for i in CahnHilliard(WALLED, 0.3).invariants)
    assert any(isinstance(i, FreeEnergy) for i in CahnHilliard(WALLED, 0.3).invariants)
    # The bound counts what is beyond the wells, too.
    u = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
    bound = WithinWells(combinatorial_laplacian(torus(3, 3).graph()), Law.NON_INCREASING)
    assert bound.violation(torch.stack([u, u / 4, u / 2])) == 0
    assert bound.violation(torch.stack([u, u / 4, u])) == pytest.approx(0.5)


@pytest.mark.parametrize("equation", [AllenCahn, CahnHilliard, DegenerateCahnHilliard])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_constants_must_be_positive(equation, value):
    with pytest.raises(ValueError, match="width must be positive and finite"):
        equation(L, value)
    with pytest.raises((ValueError, TypeError), match="mobility must be"):
        equation(L, 0.3, value)
    if value != 0.0:
        with pytest.raises(ValueError, match="stabilization must be a number that is not negative"):
            equation(L, 0.3, stabilization=value)


def test_a_mobility_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="the mobility must have the shape of u"):
        DegenerateCahnHilliard(SMALL, 0.3, lambda u: u.mean())(NOW, noise(35, 1))


NEWTON = NewtonKrylov(rtol=1e-14)
IMPLICIT = [BackwardEuler, CrankNicolson, SDIRK2, SDIRK3, BDF2, RadauIIA5]
SOLVERS = {
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g, newton=NEWTON) for method in IMPLICIT},
    **{
        method.__name__: lambda g, method=method: method(dt=0.15, gradient=g)
        for method in (SBDF2, ARK324, ETDRK2, ETDRK4, SemiImplicitEuler)
    },
}


# The linear part of Allen–Cahn is that of heat, which every solver meets there.
LEARNS = [(CahnHilliard, 0.3, k) for k in SOLVERS] + [(AllenCahn, 0.6, k) for k in ("SDIRK3", "SBDF2", "ETDRK4")]


@pytest.mark.parametrize(("equation", "width", "solver"), LEARNS)
def test_every_solver_learns_the_width(equation, width, solver):
    """The first and second derivative in it, through `linear` and its solves, by central differences; no part is lost."""
    f = equation(cotangent_laplacian(icosphere(0)), width, learn=True)
    (constant,) = f.parameters()
    u = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]

    def slope(gradient, change=0.0, create_graph=False):
        with torch.no_grad():
            constant.add_(change)
        value = (integrate(f, u, [0.0, 0.3], SOLVERS[solver](gradient)).final * torch.sin(3 * u)).sum()
        return value.detach(), torch.autograd.grad(value, constant, create_graph=create_graph)[0]

    h = 1e-5
    _, first = slope(Direct(), create_graph=True)
    (second,) = torch.autograd.grad(first, constant)
    first = first.detach()
    _, again = slope(Checkpointed(snapshots=2))
    (right, right_slope), (left, left_slope) = slope(Direct(), h), slope(Direct(), -2 * h)
    # h² of the third derivative, and round-off of the values divided by h.
    assert abs(float(first - (right - left) / (2 * h))) <= 1e-7 * (1 + abs(float(first)))
    assert abs(float(second - (right_slope - left_slope) / (2 * h))) <= 1e-7 * (1 + abs(float(second)))
    assert abs(float(first - again)) <= 1e-11 * (1 + abs(float(first)))


def test_the_energy_falls_and_the_mass_stays_on_real_meshes(real_mesh):
    """From noise, in steps of ε²."""
    laplacian = robust_laplacian(real_mesh)
    n, area = laplacian.shape[0], float(laplacian.mass.sum())
    width = 3 * math.sqrt(area / n)
    f = CahnHilliard(laplacian, width)
    with torch.no_grad():
        u = integrate(f, 0.1 * noise(n, 1), width**2 * torch.arange(4, dtype=torch.float64), SBDF2(dt=width**2)).x
        energy, mass = f.energy.measure(u), Mass(laplacian).measure(u)
    assert float(energy.diff().max()) < 0
    # Round-off of one solve and one sum a step, where the entries reach at most `largest`.
    largest = float(u.abs().max())
    assert float((mass - mass[0]).abs().max()) <= 3 * n * roundoff(u.dtype) * largest * area


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    for flow in (
        lambda mesh: AllenCahn(robust_laplacian(mesh), 0.3),
        lambda mesh: CahnHilliard(robust_laplacian(mesh), 0.3, 1.5, stabilization=2.0),
        lambda mesh: DegenerateCahnHilliard(robust_laplacian(mesh), 0.3),
    ):
        assert_right_hand_side(flow, meshes(slivers=False), search=few)
