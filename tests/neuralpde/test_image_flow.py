"""An image flows by its own Laplace–Beltrami operator: heat at α = 0, less area with every step, and edges that stay."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import RK4, Checkpointed, Direct, Euler, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.image_flow import ImageArea, ImageBeltramiFlow
from neuralpde.invariants import Law, Mass, MaximumPrinciple, Norm
from neuralpde.semi_implicit import SemiImplicitEuler
from neuralpde.testing import assert_within, grids, roundoff
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Boundary, DomainError, FieldError, Grid, grid_laplacian, icosphere

NOW = torch.tensor(0.3, dtype=torch.float64)
OPEN, ROUND = Boundary.NEUMANN, Boundary.PERIODIC
IMAGES = grids(dimensions=(2,), boundaries=(OPEN, ROUND), max_nodes=24)
FORMS = [
    {"channels": channels, "isotropic": isotropic, "conservative": conservative}
    for channels in (1, 3)
    for isotropic in (False, True)
    for conservative in (False, True)
]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=10)
@given(grid=IMAGES, form=st.sampled_from(FORMS), seed=st.integers(0, 99))
def test_without_scale_it_is_the_heat_equation(grid, form, seed):
    x = noise(grid.num_nodes, form["channels"], seed=seed)
    heat = Heat(grid_laplacian(grid))(NOW, x)
    assert_within(ImageBeltramiFlow(grid, 0.0, **form)(NOW, x), heat, 1e-13 * float(1 + heat.abs().max()))


@settings(max_examples=10)
@given(grid=IMAGES, form=st.sampled_from(FORMS), seed=st.integers(0, 99))
def test_it_is_the_gradient_flow_of_the_area_and_a_laplacian_once_frozen(grid, form, seed):
    x = noise(grid.num_nodes, form["channels"], seed=seed)
    f = ImageBeltramiFlow(grid, 1.7, **form)
    flow, (part, rest) = f(NOW, x), f.lagged(NOW, x)
    assert rest is None
    tolerance = 1e-12 * float(1 + flow.abs().max()) * float(grid.spacing.max() / grid.spacing.min()) ** 2
    assert_within(part @ x, flow, tolerance)
    y = x.clone().requires_grad_()
    area = f.area(y)
    (gradient,) = torch.autograd.grad(area, y)
    if form["channels"] == 1 or not form["isotropic"]:
        mass = part.laplacian.mass[:, None]
        assert_within(-gradient / (1.7**2 * mass), flow, tolerance)
    # The masses of the surface are its area.
    if not form["conservative"]:
        assert_within(part.laplacian.mass.sum(), area.detach(), 1e-12 * float(area.detach()))


@settings(max_examples=10)
@given(grid=IMAGES, form=st.sampled_from(FORMS), steps=st.sampled_from([0.01, 1.0, 100.0]), seed=st.integers(0, 99))
def test_semi_implicit_steps_of_any_length_keep_every_law(grid, form, steps, seed):
    """√det(I + α² P) is concave in P, so the area falls with the frozen energy; the rest is backward Euler's."""
    x = noise(grid.num_nodes, form["channels"], seed=seed)
    f = ImageBeltramiFlow(grid, 2.0, **form)
    dt = steps * float(grid.spacing.min()) ** 2
    with torch.no_grad():
        path = integrate(f, x, dt * torch.arange(4, dtype=torch.float64), SemiImplicitEuler(dt)).x
    alike = form["channels"] == 1 or form["isotropic"]
    kept = {ImageArea} if form["channels"] == 1 or not form["isotropic"] else set()
    kept |= {MaximumPrinciple} if alike else set()
    kept |= {Norm, Mass} if form["conservative"] else set()
    assert {type(invariant) for invariant in f.invariants} == kept
    for invariant in f.invariants:
        assert invariant.violation(path) <= 1e-10 * max(1.0, steps), invariant.name


def test_laws_that_it_does_not_have_are_seen_to_be_broken():
    grid = Grid((8, 8))
    x = noise(64, 3)
    path = integrate(ImageBeltramiFlow(grid, 2.0, channels=3), x, [0.0, 0.5, 1.0], Euler(dt=0.05)).x
    base = grid_laplacian(grid)
    assert Mass(base).violation(path) > 1e-4
    coupled = ImageBeltramiFlow(grid, 2.0, channels=3, conservative=True)
    assert ImageArea(coupled, Law.CONSERVED).violation(path) > 0.1


def laplace_beltrami(x_of, alpha, u, v):
    """(1/√g) div(√g G⁻¹ ∇x) of smooth channels at points, by derivatives of the functions themselves."""

    def derivative(y, s):
        return torch.autograd.grad(y.sum(), s, create_graph=True)[0]

    u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
    channels = x_of(u, v)
    p, q = [derivative(x, u) for x in channels], [derivative(x, v) for x in channels]
    E = 1 + alpha**2 * sum(a * a for a in p)
    F = alpha**2 * sum(a * b for a, b in zip(p, q, strict=True))
    G = 1 + alpha**2 * sum(b * b for b in q)
    root = (E * G - F * F).sqrt()
    flows = [((G * a - F * b) / root, (E * b - F * a) / root) for a, b in zip(p, q, strict=True)]
    return torch.stack([(derivative(a, u) + derivative(b, v)) / root for a, b in flows], -1).detach()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_order_in_space_is_two(channels):
    def smooth(u, v):
        return [torch.sin(u) + torch.cos(v), torch.sin(u + v), 0.5 * torch.cos(u - v)][:channels]

    errors = []
    for n in (24, 48):
        grid = Grid((n, n + 6), [2 * math.pi / n, 2 * math.pi / (n + 6)], ROUND)
        u, v = grid.points.T
        flow = ImageBeltramiFlow(grid, 0.7, channels=channels)(NOW, torch.stack(smooth(u, v), -1).detach())
        errors.append(float((flow - laplace_beltrami(smooth, 0.7, u, v)).abs().max()))
    assert errors[1] < 0.1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.25)


def test_a_minimal_surface_stands_still():
    """Scherk's surface αx = log(cos v / cos u) has no mean curvature; so has a plane."""
    errors = []
    for n in (20, 40):
        grid = Grid((n, n), 2.0 / n)
        u, v = (grid.points - 1).T
        x = (torch.cos(v) / torch.cos(u)).log()[:, None] / 3
        inside = (grid.points - 1).abs().amax(1) < 0.8
        errors.append(float(ImageBeltramiFlow(grid, 3.0)(NOW, x)[inside].abs().max()))
        plane = ImageBeltramiFlow(grid, 3.0, channels=2)(NOW, torch.stack([u + 2 * v, u - v], 1))
        assert float(plane[inside].abs().max()) < 1e-12
    assert errors[1] < 0.01
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)


def test_one_channel_is_equation_three_and_several_are_not():
    grid = Grid((5, 6), 0.5)
    one = noise(30, 1)
    assert_within(ImageBeltramiFlow(grid, 3.0, isotropic=True)(NOW, one), ImageBeltramiFlow(grid, 3.0)(NOW, one), 0.0)
    several = noise(30, 3)
    flow = ImageBeltramiFlow(grid, 3.0, channels=3)
    isotropic = ImageBeltramiFlow(grid, 3.0, channels=3, isotropic=True)
    assert float((flow(NOW, several) - isotropic(NOW, several)).norm()) > 0.1 * float(flow(NOW, several).norm())
    # Channels that are multiples of one image are that image, seen at a longer scale.
    together = one * torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    expected = ImageBeltramiFlow(grid, 15.0)(NOW, one)
    assert_within(flow(NOW, together)[:, :1], 3 * expected, 1e-12 * float(expected.abs().max()))


def test_steep_images_lose_no_digits():
    """With α|∇x| = 1e5 the determinant is 1e10 in float32: the terms that would cancel are never formed."""
    grid = Grid((6, 7), 1.0, dtype=torch.float32)
    x = 1e4 * noise(42, 1) * torch.ones(3).double()
    wide = ImageBeltramiFlow(Grid((6, 7), 1.0), 10.0, channels=3)(NOW, x)
    narrow = ImageBeltramiFlow(grid, 10.0, channels=3)(NOW, x.float())
    assert_within(narrow.double(), wide, 1e-4 * float(wide.abs().max()))


def test_gray_in_three_channels_has_no_wedge_however_long_the_scale():
    """α⁴ overflows float32 from 4·10⁹ on; α² W, squared, does not."""
    f = ImageBeltramiFlow(Grid((4, 4), 1.0, dtype=torch.float32), 1e10, channels=3)
    gray = noise(16, 1).float().expand(16, 3).contiguous()
    for value in (f(NOW, gray), f.area(gray)):
        assert torch.isfinite(value).all()


def test_turning_and_shifting_the_picture_commutes_with_the_flow():
    grid = Grid((6, 6), 0.5, ROUND)
    f = ImageBeltramiFlow(grid, 2.0, channels=3)
    image = grid.folded(noise(36, 3))

    def flow(picture):
        return grid.folded(f(NOW, grid.flattened(picture.contiguous())))

    motions = (
        lambda picture: picture.rot90(1, (0, 1)),
        lambda picture: picture.flip(0),
        lambda picture: picture.roll((2, 1), (0, 1)),
        # And the colours: only their products enter the metric.
        lambda picture: picture @ torch.linalg.qr(noise(3, 3)).Q,
    )
    for motion in motions:
        assert_within(flow(motion(image)), motion(flow(image)), 1e-12 * float(flow(image).abs().max()))


def test_it_keeps_an_edge_that_heat_destroys():
    grid = Grid((24, 24))
    left = grid.points[:, :1] < 12
    noisy = torch.where(left, 0.0, 1.0).double() + 0.02 * noise(576, 1)
    f = ImageBeltramiFlow(grid, 20.0)
    with torch.no_grad():
        path = integrate(f, noisy, [0.0, 10.0], SemiImplicitEuler(dt=1.0)).x
        blurred = integrate(Heat(grid_laplacian(grid)), noisy, [0.0, 10.0], SemiImplicitEuler(dt=1.0)).final
    flat = left.squeeze(1) & (grid.points[:, 0] < 9)
    assert float(path[-1][flat].std()) < 0.4 * float(noisy[flat].std())

    def step(u):
        rows = u.reshape(24, 24)
        return float((rows[12] - rows[11]).mean())

    assert step(path[-1]) > 0.9
    assert step(blurred) < 0.2


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    f = ImageBeltramiFlow(Grid((3, 2), 0.5), learned(0.8), **form)
    x = noise(6, form["channels"]).requires_grad_()
    (parameter,) = f.parameters()

    def at(x, log_scale):
        return torch.func.functional_call(f, {"alpha.log_value": log_scale}, (NOW, x))

    assert torch.autograd.gradcheck(at, (x, parameter))
    values = [
        torch.autograd.grad(
            (integrate(f, x, [0.0, 0.1], SemiImplicitEuler(0.05, gradient=mode)).final ** 2).sum(), (x, parameter)
        )
        for mode in (Direct(), Checkpointed(snapshots=1))
    ]
    for one, other in zip(*values, strict=True):
        assert_within(one, other, 1e-11 * float(1 + one.abs().max()))


def test_precision_batches_copies_and_other_pictures():
    grid = Grid((4, 5), 0.5)
    f = ImageBeltramiFlow(grid, 2.0, channels=3, learn=True)
    assert float(f.scale.detach()) == pytest.approx(2.0)
    x = noise(2, 2, 20, 3)
    whole = f(NOW, x)
    assert_within(whole[1, 0], f(NOW, x[1, 0]), 1e-13 * float(whole.detach().abs().max()))
    assert_within(f.area(x)[1, 0], f.area(x[1, 0]), 1e-12)
    single = copy.deepcopy(f).to(torch.float32)
    assert_within(single(NOW, x.float()).double(), whole, 4096 * roundoff(torch.float32) * float(whole.detach().abs().max()))
    assert integrate(single, x.float(), [0.0, 0.1], RK4(dt=0.05)).final.dtype == torch.float32
    assert single.invariants[0].measure(x).dtype == torch.float64
    moved = f.on(Grid((3, 7)))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in f.parameters()]
    assert moved(NOW, noise(21, 3)).shape == (21, 3)
    assert torch.equal(pickle.loads(pickle.dumps(f))(NOW, x), whole)


def test_the_kits_laws():
    few = Search(examples=3)
    assert_right_hand_side(lambda grid: ImageBeltramiFlow(grid, 2.0), IMAGES, search=few)
    assert_right_hand_side(
        lambda grid: ImageBeltramiFlow(grid, 2.0, channels=3, conservative=True),
        IMAGES,
        states=lambda f, grid, generator: torch.randn(grid.num_nodes, 3, generator=generator, dtype=torch.float64),
        search=few,
    )


def test_refusals_name_the_cure():
    for bad in (Grid(4), Grid((2, 2, 2)), icosphere(0)):
        with pytest.raises(DomainError, match="an image lies on a Grid of two axes"):
            ImageBeltramiFlow(bad, 1.0)
    with pytest.raises(DomainError, match=r"give its grid Boundary\.NEUMANN"):
        ImageBeltramiFlow(Grid((3, 3), 1.0, Boundary.DIRICHLET), 1.0)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must"):
            ImageBeltramiFlow(Grid((3, 3)), bad)
    with pytest.raises(TypeError, match="scale must be one number"):
        ImageBeltramiFlow(Grid((3, 3)), torch.ones(9, 1))
    with pytest.raises(ValueError, match="channels must be a positive integer"):
        ImageBeltramiFlow(Grid((3, 3)), 1.0, channels=0)
    f = ImageBeltramiFlow(Grid((3, 3)), 1.0)
    with pytest.raises(FieldError, match="channels=3"):
        f(NOW, noise(9, 3))
    with pytest.raises(FieldError, match="field must have shape"):
        f(NOW, noise(3, 3))
    with pytest.raises(FieldError, match="one image at a time"):
        integrate(f, noise(2, 9, 1), [0.0, 1.0], SemiImplicitEuler(dt=1.0))
