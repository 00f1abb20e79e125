"""Objectives: windows of the truth, and through what their gradients flow."""

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, Direct
from neuralpde.objectives import Objective, OneStep, Pushforward, Unrolled
from neuralpde.stepper import CorrectedStep, SolverStep


class Rate(nn.Module):
    """c(t, x) = a x."""

    def __init__(self, a: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * x


def stepper(a: float = 0.0) -> CorrectedStep:
    return CorrectedStep(SolverStep(lambda t, x: -x, RK4(dt=0.1, gradient=Direct()), 0.1), Rate(a))


def truth(steps: int = 8, members: int = 5) -> Tensor:
    x0 = torch.randn(members, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return stepper(0.5).path(x0, steps).detach()


def dice() -> torch.Generator:
    return torch.Generator().manual_seed(7)


ALL = [Unrolled(lengths=(1, 4)), Pushforward(length=3), OneStep()]


@pytest.mark.parametrize("objective", ALL, ids=lambda o: type(o).__name__)
def test_zero_at_the_truth_and_nowhere_else(objective: Objective) -> None:
    assert float(objective.loss(stepper(0.5), truth(), 0.9, dice()).detach()) < 1e-28
    assert float(objective.loss(stepper(0.3), truth(), 0.9, dice()).detach()) > 1e-8


@pytest.mark.parametrize("objective", ALL, ids=lambda o: type(o).__name__)
def test_the_generator_is_all_of_its_randomness(objective: Objective) -> None:
    noisy = type(objective)(noise=0.1)
    state = torch.get_rng_state()
    step = stepper(0.3)
    longest = truth(20)
    assert torch.equal(noisy.loss(step, longest, 0.5, dice()), noisy.loss(step, longest, 0.5, dice()))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_curriculum_grows() -> None:
    seen: list[int] = []

    class Spy(CorrectedStep):
        def path(self, x0: Tensor, steps: int, t0: float = 0.0) -> Tensor:
            seen.append(steps)
            return super().path(x0, steps, t0)

    spy = Spy(stepper().step, Rate())
    for k in range(6):
        Unrolled(lengths=(1, 2, 5)).loss(spy, truth(), k / 6, dice())
    assert seen == [1, 1, 2, 2, 5, 5]


def test_only_unrolled_sees_the_solver() -> None:
    """∂loss/∂a by hand: through all four steps, or through the correction of one."""
    path, a = truth(4, 1), 0.3
    step = stepper(a)
    factor = 1 - 0.1 + 0.1**2 / 2 - 0.1**3 / 6 + 0.1**4 / 24
    x = path[0]
    growth = factor * (1 + 0.1 * a)
    wrong = sum(2 * (growth**k * x - path[k]) * k * growth ** (k - 1) * factor * 0.1 * x for k in range(1, 5))
    (gradient,) = torch.autograd.grad(Unrolled(lengths=(4,)).loss(step, path, 0.0, dice()), step.correction.parameters())
    assert float(gradient) == pytest.approx(float(wrong.mean()) / 4, rel=1e-10)
    (gradient,) = torch.autograd.grad(Pushforward(length=4).loss(step, path, 0.0, dice()), step.correction.parameters())
    before = growth**3 * x
    alone = 2 * (growth * before - path[4]) * factor * 0.1 * before
    assert float(gradient) == pytest.approx(float(alone.mean()), rel=1e-10)


def test_noise_has_the_size_of_the_truth() -> None:
    path = 10 * truth(2, 400)
    moved = OneStep(noise=0.1).disturbed(path[0], path, dice())
    assert float((moved - path[0]).std() / path.std()) == pytest.approx(0.1, rel=0.1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="lengths"):
        Unrolled(lengths=())
    with pytest.raises(ValueError, match="noise"):
        OneStep(noise=-1.0)
    with pytest.raises(ValueError, match="length must be"):
        Pushforward(length=0)
