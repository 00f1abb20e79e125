"""The solver of meshpde-hard: accurate, with exact tangents and adjoints, and bounded."""

import pytest
import torch

from integrators import ARK324, integrate
from neuralpde.hard_data import HardEquation, draw, of_area_one
from neuralpde.hard_flow import LONGEST, Flow, Form, Place, Step
from neuralpde.hard_law import MaterialLaw, SourceLaw
from operators import bumpy, icosphere

MESH = of_area_one(bumpy(icosphere(2), seed=1))
PLACE = Place(MESH)
FORM = Form(False, SourceLaw(3, -0.2, 1.2), MaterialLaw(3))
DRAWN = draw(MESH, 0, 0)
MATERIAL = DRAWN.material[:, 0]
H = 1 / 200


def unknowns(form: Form = FORM) -> torch.Tensor:
    values = torch.randn(sum(form.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values[0] -= 5.0
    values[form.sizes[0] : form.sizes[0] + form.sizes[1]] *= 5.0
    return values


def run(p: torch.Tensor, u: torch.Tensor, steps: int, h: float = H, q: int = 0) -> Step:
    flow = Flow(PLACE, FORM, MATERIAL, p, h)
    step = flow.step(u, u.new_zeros(len(u), q) if q else None)
    for _ in range(steps - 1):
        step = flow.step(step.state, step.tangents)
    return step


@pytest.mark.parametrize("q", [6, 10, 16])
def test_tangents_are_those_of_differences(q: int) -> None:
    p, start = unknowns(), DRAWN.start
    tangents = run(p, start, 3, q=q).following
    assert tangents.shape == (MESH.num_nodes, q)
    for k in range(q):
        e = torch.zeros_like(p)
        e[k] = 1e-5
        difference = (run(p + e, start, 3).state - run(p - e, start, 3).state)[:, 0] / 2e-5
        # Central differences in float64: 1e-10 of truncation, 1e-11 of round-off.
        assert (tangents[:, k] - difference).norm() < 1e-7 * difference.norm()


def test_the_derivative_in_the_field_and_its_adjoint() -> None:
    flow = Flow(PLACE, FORM, MATERIAL, unknowns(), H)
    step = flow.step(DRAWN.start)
    x, y = torch.randn(2, MESH.num_nodes, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    difference = (flow.step(DRAWN.start + 1e-6 * x).state - flow.step(DRAWN.start - 1e-6 * x).state) / 2e-6
    torch.testing.assert_close(step.forward(x), difference, rtol=0, atol=1e-7)
    torch.testing.assert_close(PLACE.inner(step.forward(x), y), PLACE.inner(x, step.backward(y)), rtol=1e-10, atol=1e-14)


def test_a_step_is_of_order_two_and_close_to_the_truth() -> None:
    from numpy.polynomial import chebyshev, polynomial

    form = Form(False, SourceLaw(3, -0.2, 1.2), MaterialLaw(0))
    # f(u) = 30 u (1 − u) (u − 0.35) with u = 0.7 s + 0.5; a material that conducts alike everywhere.
    product = polynomial.polymul(polynomial.polymul([15.0, 21.0], [0.5, -0.7]), [0.15, 0.7])
    c = torch.from_numpy(chebyshev.poly2cheb(product))
    p = torch.cat([torch.tensor([3**0.5 * torch.tensor(0.02).log().item(), 0, 0, 0, 0, 0], dtype=torch.float64), c])
    g = torch.full_like(DRAWN.material, -3.0)
    truth = HardEquation(MESH, g, 0.02 * torch.eye(3, dtype=torch.float64))
    times = torch.tensor([0.0, 0.1], dtype=torch.float64)
    exact = integrate(truth, DRAWN.start, times, ARK324(dt=1 / 3200)).x
    assert isinstance(exact, torch.Tensor)
    errors = []
    for steps in (10, 20, 40):
        flow, u = Flow(PLACE, form, MATERIAL, p, 0.1 / steps), DRAWN.start
        for _ in range(steps):
            u = flow.step(u).state
        errors.append(float((u - exact[-1]).abs().max()))
    assert errors[1] < 3e-4
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


def test_nothing_runs_away() -> None:
    wild = torch.cat([torch.tensor([-3.0, 2, -2, 1, 1, 1]), 30 * torch.ones(4), torch.tensor([4.0, -4, 4, -4, 4, -4])]).double()
    flow, u = Flow(PLACE, FORM, MATERIAL, wild, H), 100 * (DRAWN.start - 0.5)
    for _ in range(400):
        u = flow.step(u).state
    # Where f = 120 at most at the end of its range: at 1.2 + 120 / 20 the pull back balances it.
    assert u.abs().max() < 10


def test_a_step_in_the_unknowns_is_shortened_and_bounded() -> None:
    p = torch.zeros(16, dtype=torch.float64)
    assert abs(float(FORM.moved(p, torch.full_like(p, 9.0))[:6].norm()) - LONGEST) < 1e-12
    far = p
    for _ in range(100):
        far = FORM.moved(far, torch.full_like(p, 9.0))
    assert far[0] <= 20
    assert far[1:6].max() <= 4


def test_tangents_that_were_not_asked_for() -> None:
    with pytest.raises(ValueError, match="without tangents"):
        _ = run(unknowns(), DRAWN.start, 1).following
