"""Given flux and exchange with the outside, against closed forms on intervals, a square and a disc."""

import itertools
import math

import pytest
import torch
from scipy.special import j0, j1

from integrators import ARK324, RK4, SBDF2, SDIRK3, BackwardEuler, Dopri5, Exponential, integrate
from neuralpde.boundary_conditions import NeumannFlux, Robin
from neuralpde.coefficient import learned
from neuralpde.heat import Diffusion, Heat
from neuralpde.invariants import Norm
from operators import (
    ConjugateGradient,
    FieldError,
    Graph,
    Grid,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid,
    grid_laplacian,
    icosphere,
)
from operators.boundary_terms import boundary_measure, named_boundary

NOW = torch.tensor(0.3, dtype=torch.float64)


def interval(n: int) -> Grid:
    return Grid(n, torch.tensor([1.0 / n], dtype=torch.float64))


def disc(k: int) -> TriangleMesh:
    """The unit disc in k rings."""
    points, faces, rings = [[0.0, 0.0]], [], [[0]]
    for ring in range(1, k + 1):
        rings.append([len(points) + j for j in range(6 * ring)])
        angles = [math.pi * j / (3 * ring) for j in range(6 * ring)]
        points += [[ring / k * math.cos(angle), ring / k * math.sin(angle)] for angle in angles]
        inner, outer = rings[-2], rings[-1]
        for side in range(6):
            for j in range(ring):
                a, b = outer[side * ring + j], outer[(side * ring + j + 1) % len(outer)]
                c = inner[(side * (ring - 1) + j) % len(inner)]
                faces.append([a, b, c])
                if j < ring - 1:
                    faces.append([b, inner[(side * (ring - 1) + j + 1) % len(inner)], c])
    return TriangleMesh(torch.tensor(points, dtype=torch.float64), torch.tensor(faces))


def slowest(L, laplacian_of_sum) -> float:
    root = L.mass.rsqrt()
    C = laplacian_of_sum.stiffness.to_scipy().toarray()
    return float(torch.linalg.eigvalsh(root[:, None] * torch.from_numpy(C) * root)[0])


def root_of(g, low: float, high: float) -> float:
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if g(low) * g(middle) > 0 else (low, middle)
    return low


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_a_flux_heats_at_exactly_its_rate():
    for domain, L, length in (
        (disc(4), cotangent_laplacian(disc(4)), None),
        (Grid((4, 6), 0.5), grid_laplacian(Grid((4, 6), 0.5)), 10.0),
    ):
        b = boundary_measure(domain)
        length = float(b.measure.sum()) if length is None else length
        f = Heat(L, 0.3) + NeumannFlux(L, b, lambda t: 2 * t)
        u = torch.randn(L.shape[0], 1, dtype=torch.float64)
        final = integrate(f, u, [0.0, 1.0], ARK324(dt=0.1)).final
        # ∫ 2t dt = 1 a unit of length.
        assert float((L.mass[:, None] * (final - u)).sum()) == pytest.approx(length, rel=1e-6)


def test_a_steady_flux_through_an_interval_makes_a_line():
    """−κ u' = q in and out: u = −q x / κ + constant, exactly at the nodes."""
    g = interval(16)
    L = grid_laplacian(g)
    into, out = boundary_measure(g, lambda p: p[:, 0] == 0), boundary_measure(g, lambda p: p[:, 0] > 0.5)
    f = Heat(L, 0.5) + NeumannFlux(L, into, 2.0) + NeumannFlux(L, out, -2.0)
    final = integrate(f, torch.zeros(16, 1, dtype=torch.float64), [0.0, 20.0], SBDF2(dt=0.25)).final
    torch.testing.assert_close(final, -4.0 * (g.points - 0.5), rtol=1e-5, atol=1e-5)


def test_a_flux_into_a_disc_has_the_paraboloid_as_its_shape_with_order_two():
    """κ ∂u/∂n = q all round: u = q r²/2κ + 2qt/κ... of mean rate 2q."""
    errors = []
    for k in (3, 6, 12):
        mesh = disc(k)
        L = cotangent_laplacian(mesh)
        f = Heat(L) + NeumannFlux(L, boundary_measure(mesh), 1.0)
        u = integrate(f, torch.zeros(mesh.num_nodes, 1, dtype=torch.float64), [0.0, 3.0], SBDF2(dt=0.1)).final
        shape = mesh.vertices.square().sum(1, keepdim=True) / 2
        off = (u - shape) - (L.mass[:, None] * (u - shape)).sum() / L.mass.sum()
        errors.append(float(((L.mass[:, None] * off**2).sum() / L.mass.sum()).sqrt()))
    assert min(orders(errors)) > 1.7


@pytest.mark.parametrize("h", [0.3, 5.0])
def test_robin_on_an_interval_has_its_slowest_rate_with_order_two(h):
    """cos(μ(x − ½)) with μ tan(μ/2) = h/κ falls at κμ²."""
    kappa = 0.5
    mu = root_of(lambda m: m * math.tan(m / 2) - h / kappa, 1e-6, math.pi - 1e-9)
    errors = []
    for n in (8, 16, 32):
        g = interval(n)
        L = grid_laplacian(g)
        f = Heat(L, kappa) + Robin(L, boundary_measure(g), h, diffusivity=kappa)
        assert isinstance(f.linear, Diffusion)
        errors.append(abs(slowest(L, f.linear.laplacian) - kappa * mu**2))
    assert min(orders(errors)) > 1.8
    with pytest.raises(ValueError, match="half a cell inside"):
        Robin(L, boundary_measure(g), h)


def test_robin_on_a_disc_has_its_slowest_rate_with_order_two():
    """J₀(μr) with μ J₁(μ) = h J₀(μ)."""
    h = 2.0
    mu = root_of(lambda m: m * j1(m) - h * j0(m), 1e-6, 2.4)
    errors = []
    for k in (4, 8, 16):
        mesh = disc(k)
        L = cotangent_laplacian(mesh)
        errors.append(abs(slowest(L, (Heat(L) + Robin(L, boundary_measure(mesh), h)).linear.laplacian) - mu**2))
    assert min(orders(errors)) > 1.8


def test_robin_settles_at_the_outside_by_every_solver():
    mesh = grid(5, 5)
    L = cotangent_laplacian(mesh)
    b = boundary_measure(mesh)
    f = Heat(L, 0.5) + Robin(L, b, 3.0, outside=20.0)
    u = torch.randn(25, 1, dtype=torch.float64)
    size = float(L.mass.sum())
    final = integrate(f, u, [0.0, 20 * size], SBDF2(dt=size / 4)).final
    torch.testing.assert_close(final, torch.full_like(u, 20.0), rtol=1e-4, atol=1e-4)
    closed = Heat(L, 0.5) + Robin(L, b, 3.0)
    assert {type(i) for i in closed.invariants} == {Norm}
    exact = torch.linalg.matrix_exp(0.5 * (closed.linear @ torch.eye(25, dtype=torch.float64))) @ u
    for solver, tolerance in ((Exponential(), 1e-12), (SDIRK3(1e-4, 1e-6), 1e-3), (Dopri5(1e-6, 1e-8), 1e-4)):
        path = integrate(closed, u, [0.0, 0.25, 0.5], solver).x
        assert float((path[-1] - exact).abs().max()) < tolerance
        assert closed.invariants[0].violation(path) < 1e-10
    by = ConjugateGradient(tolerance=1e-12)
    slow = Heat(L, 0.5, solver=by) + Robin(L, b, 3.0)
    one, two = (integrate(g, u, [0.0, 0.5], BackwardEuler(dt=0.1)).final for g in (slow, closed))
    torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


def test_the_linear_and_nonlinear_parts_are_the_condition():
    mesh = grid(4, 4)
    L, b = cotangent_laplacian(mesh), boundary_measure(mesh)
    u = torch.randn(2, 16, 3, dtype=torch.float64)
    field = torch.rand(16, 1, dtype=torch.float64)
    for f in (Robin(L, b, field, lambda t: t), Robin(L, b, 2.0, field), Robin(L, b, field)):
        rest = f.nonlinear
        torch.testing.assert_close(f.linear @ u + (0 if rest is None else rest(NOW, u)), f(NOW, u))
    assert Robin(L, b, lambda t: t).linear is None
    assert Robin(L, b, lambda t: t).nonlinear is None
    torch.testing.assert_close(
        NeumannFlux(L, b, field)(NOW, u), (b.measure[:, None] * field / L.mass[:, None]).expand(2, 16, 3)
    )


def test_named_nodes_of_a_graph():
    """A rod of five beads whose ends touch baths of 0 and 1: u settles on a line."""
    path = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    L = combinatorial_laplacian(Graph(torch.cat([path, path.flip(0)], 1), 5, torch.ones(8, dtype=torch.float64)))
    f = Heat(L) + Robin(L, named_boundary(L, [0]), 1.0, 0.0) + Robin(L, named_boundary(L, [4]), 1.0, 1.0)
    final = integrate(f, torch.zeros(5, 1, dtype=torch.float64), [0.0, 200.0], SBDF2(dt=2.0)).final
    torch.testing.assert_close(final[:, 0], torch.arange(1, 6, dtype=torch.float64) / 6, rtol=1e-4, atol=1e-4)


def test_exchange_and_flux_are_learned_and_move_to_another_domain():
    mesh = grid(4, 4)
    L, b = cotangent_laplacian(mesh), boundary_measure(mesh)
    u = torch.randn(16, 1, dtype=torch.float64)
    f = Heat(L) + Robin(L, b, learned(2.0), learned(0.5)) + NeumannFlux(L, b, learned(0.3))
    parameters = list(f.parameters())
    assert len(parameters) == 3
    for solver in (SBDF2(dt=0.1), RK4(dt=0.05)):
        slopes = torch.autograd.grad(integrate(f, u, [0.0, 0.5], solver).final.square().sum(), parameters)
        for p, slope in zip(parameters, slopes, strict=True):
            values = []
            for change in (1e-5, -2e-5):
                with torch.no_grad():
                    p.add_(change)
                    values.append(float(integrate(f, u, [0.0, 0.5], solver).final.square().sum()))
            with torch.no_grad():
                p.add_(1e-5)
            assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-7)
    moved = f.on(grid(6, 5))
    assert moved(NOW, torch.randn(30, 1, dtype=torch.float64)).shape == (30, 1)
    assert {id(p) for p in moved.parameters()} == {id(p) for p in parameters}
    assert float(f.terms[1].exchange.detach()) == pytest.approx(2.0)
    assert float(f.terms[2].flux.detach()) == pytest.approx(0.3)
    single = f.to(torch.float32)
    assert integrate(single, u.float(), [0.0, 0.5], SBDF2(dt=0.1)).final.dtype == torch.float32


def test_bad_boundaries_are_refused():
    mesh = grid(4, 4)
    L, b = cotangent_laplacian(mesh), boundary_measure(mesh)
    with pytest.raises(ValueError, match="exchange must not be negative"):
        Robin(L, b, -1.0)
    with pytest.raises(TypeError, match="boundary_measure"):
        Robin(L, b.measure, 1.0)
    with pytest.raises(FieldError, match="a domain of 16 nodes"):
        NeumannFlux(cotangent_laplacian(icosphere(0)), b, 1.0)
