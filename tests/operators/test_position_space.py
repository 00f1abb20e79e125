"""Distances and geodesics: against ninety digits, under isometries, and where other formulas lose everything."""

import copy
import pickle

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators.checks import DomainError
from operators.position_space import Euclidean, PoincareBall, check_space

F64 = torch.float64
BALL = PoincareBall()
SPACES = [Euclidean(), BALL]


def points(draw, count, radius, dtype=F64, dims=None):
    d = draw(st.integers(1, 5)) if dims is None else dims
    seed = draw(st.integers(0, 2**31 - 1))
    random = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, d, generator=random, dtype=F64), dim=-1)
    return (direction * radius * torch.rand(count, 1, generator=random, dtype=F64)).to(dtype)


@st.composite
def triples(draw, radius=0.95):
    return points(draw, 3, radius)


def exact_distance(u, v):
    with mpmath.workdps(90):
        u, v = ([mpmath.mpf(float(x)) for x in p] for p in (u, v))
        gap = sum((x - y) ** 2 for x, y in zip(u, v, strict=True))
        room = [1 - sum(x**2 for x in p) for p in (u, v)]
        return mpmath.acosh(1 + 2 * gap / (room[0] * room[1]))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("apart", [1e-15, 1e-12, 1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("radius", [0.0, 0.5, 0.999, 0.999999])
def test_distance_against_ninety_digits(dtype, apart, radius):
    eps = torch.finfo(dtype).eps
    u = torch.tensor([radius, 0.0, 0.0], dtype=dtype)
    v = torch.tensor([radius * (1 - 1e-3 * apart), apart * 0.5 * (1 - radius**2), apart * 1e-3 * (1 - radius)], dtype=dtype)
    wanted = exact_distance(u, v)
    # 1 − |u|² has lost the digits that the boundary takes; nothing else may be lost.
    allowed = 8 * eps + 2 * eps / (1 - radius**2)
    assert abs(float(BALL.distance(u, v)) - wanted) <= allowed * max(wanted, mpmath.mpf("1e-37"))


def test_from_the_origin_in_closed_form():
    r = torch.linspace(0, 0.9999, 50, dtype=F64)
    u = torch.stack([r, torch.zeros_like(r)], -1)
    torch.testing.assert_close(BALL.distance(torch.zeros(2, dtype=F64), u), 2 * r.atanh(), rtol=1e-12, atol=1e-15)


@given(p=triples())
def test_metric_and_isometries(p):
    u, v, a = p
    d = BALL.distance(u, v)
    torch.testing.assert_close(BALL.distance(v, u), d, rtol=0, atol=0)
    assert float(BALL.distance(u, u)) == 0
    assert float(d) <= float(BALL.distance(u, a) + BALL.distance(a, v)) + 1e-12
    torch.testing.assert_close(BALL.distance(BALL.add(a, u), BALL.add(a, v)), d, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(BALL.add(-a, BALL.add(a, u)), u, rtol=1e-9, atol=1e-11)
    rotation, _ = torch.linalg.qr(torch.randn(len(u), len(u), dtype=F64))
    torch.testing.assert_close(BALL.distance(rotation @ u, rotation @ v), d, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("space", SPACES, ids=str)
@given(p=triples(radius=0.99))
def test_log_and_exp_are_inverse_and_as_long_as_the_distance(space, p):
    u, v, _ = p
    w = space.log(u, v)
    torch.testing.assert_close(space.exp(u, w), v, rtol=1e-9, atol=1e-11)
    scale = BALL.factor(u) if space is BALL else 1.0
    torch.testing.assert_close(w.norm() * scale, space.distance(u, v), rtol=1e-9, atol=1e-12)
    # The middle of the geodesic is equally far from both ends, and lies on the way.
    middle, half = space.exp(u, w / 2), space.distance(u, v) / 2
    torch.testing.assert_close(space.distance(u, middle), half, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(space.distance(middle, v), half, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("apart", [1e-14, 1e-9, 1e-4])
def test_log_and_exp_keep_their_digits_for_near_points(apart):
    u, w = torch.tensor([0.6, -0.3], dtype=F64), apart * torch.tensor([0.2, 0.9], dtype=F64)
    # To first order exp_u w = u + w: what is added must not drown in u.
    origin = torch.zeros(2, dtype=F64)
    torch.testing.assert_close(BALL.exp(origin, w), w, rtol=apart**2 + 1e-15, atol=0)
    torch.testing.assert_close(BALL.log(u, u + w), w, rtol=10 * apart + 1e-15 / apart, atol=0)


def test_log_is_the_gradient_of_half_the_squared_distance():
    torch.manual_seed(1)
    u, v = (0.7 * torch.rand(6, 3, dtype=F64) / 3**0.5 for _ in range(2))
    u.requires_grad_()
    half = BALL.distance(u, v).square().sum() / 2
    (gradient,) = torch.autograd.grad(half, u)
    # The Riemannian gradient is λ⁻² times the Euclidean one.
    torch.testing.assert_close(-gradient / BALL.factor(u.detach())[:, None] ** 2, BALL.log(u.detach(), v), rtol=1e-11, atol=0)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_gradients_are_right_and_finite_where_points_meet(space):
    torch.manual_seed(2)
    u, v, w = (0.5 * torch.rand(4, 3, dtype=F64, requires_grad=True) - 0.2 for _ in range(3))
    for map_, inputs in ((space.distance, (u, v)), (space.log, (u, v)), (space.exp, (u, w))):
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        assert torch.autograd.gradcheck(map_, inputs)
        assert torch.autograd.gradgradcheck(map_, inputs)
    x, y = (torch.full((2,), 0.3, dtype=F64, requires_grad=True) for _ in range(2))
    assert all(torch.equal(g, torch.zeros(2, dtype=F64)) for g in torch.autograd.grad(space.distance(x, y), (x, y)))
    assert torch.autograd.gradcheck(space.log, (x, y))
    still = torch.zeros(2, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(space.exp, (x, still))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@given(data=st.data())
def test_nothing_leaves_the_ball_and_nothing_is_nan(dtype, data):
    d = data.draw(st.integers(1, 4))
    eps = torch.finfo(dtype).eps
    u, v = points(data.draw, 2, 1 - 2 * eps, dtype, d)
    u, v = (torch.nn.functional.normalize(x, dim=-1) * (1 - data.draw(st.sampled_from([2, 8, 1e3, 1e6])) * eps) for x in (u, v))
    BALL.check(torch.stack([u, v]))
    speed = 10.0 ** data.draw(st.integers(-30, 30))
    u.requires_grad_()
    for end in (BALL.exp(u, speed * (v - u)), BALL.add(u, v), BALL.exp(u, BALL.log(u, v)), BALL.distance(u, v)[None] / 100):
        BALL.check(end)
        (slope,) = torch.autograd.grad(end.sum(), u)
        assert bool(torch.isfinite(slope).all())


def test_the_way_through_the_middle_keeps_its_digits():
    # From one side to the other: the textbook denominator 1 + 2⟨u, y⟩ + |u|²|y|² cancels here.
    u, v = torch.tensor([1 - 1e-6, 0.0], dtype=F64), torch.tensor([-0.999, 1e-3], dtype=F64)
    torch.testing.assert_close(BALL.exp(u, BALL.log(u, v)), v, rtol=1e-8, atol=1e-8)


def test_broadcasting_and_copies():
    u, v = 0.3 * torch.rand(2, 5, 1, 3), 0.3 * torch.rand(2, 1, 5, 3)
    for space in SPACES:
        d = space.distance(u, v)
        assert d.shape == (2, 5, 5)
        assert d.dtype == torch.float32
        assert space.log(u, v).shape == space.exp(u, v).shape == (2, 5, 5, 3)
        assert copy.deepcopy(space) == pickle.loads(pickle.dumps(space)) == space


@pytest.mark.parametrize("wrong", [PoincareBall, "ball", None])
def test_what_is_no_space_is_refused(wrong):
    for space in SPACES:
        check_space(space)
    with pytest.raises(DomainError, match=r"such as Euclidean\(\) or PoincareBall\(\), not "):
        check_space(wrong)


def test_points_outside_are_refused():
    BALL.check(torch.zeros(3, 2))
    Euclidean().check(torch.full((3, 2), 10.0))
    with pytest.raises(DomainError, match=r"2 positions lie outside.*node 1 \(\|u\| = 1\)"):
        BALL.check(torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0]]))
    with pytest.raises(DomainError, match=r"1 centres lie outside.*node 2"):
        BALL.check(torch.tensor([[[0.1], [0.2], [0.1]], [[0.1], [0.2], [float("nan")]]]), "centres")
    with pytest.raises(DomainError, match="lie outside"):
        BALL.check(torch.tensor([1.0, 1.0]))
    with pytest.raises(DomainError, match="non-finite"):
        Euclidean().check(torch.tensor([[float("inf")]]))
    with pytest.raises(DomainError, match="floating point"):
        BALL.check(torch.zeros(3, 2, dtype=torch.int64))
