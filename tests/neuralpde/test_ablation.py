"""The comparison: three methods beside each other, errors by hand, and a rollout that breaks down."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, Direct
from neuralpde.ablation import UNCORRECTED, Comparison, compare, relative_error, rollout
from neuralpde.bench import write_rows
from neuralpde.objectives import OneStep, Pushforward, Unrolled
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


def truth(steps: int, seed: int) -> Tensor:
    x0 = torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return stepper(0.5).path(x0, steps).detach()


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    objectives = (Unrolled(lengths=(1, 4)), Pushforward(length=3), OneStep())
    return compare(stepper(), truth(4, 0), truth(16, 1), objectives, steps=60, learning_rate=0.05)


def test_methods_beside_each_other(comparison: Comparison) -> None:
    assert list(comparison.errors) == [
        "uncorrected",
        "corrected, through the solver",
        "corrected, through the last step",
        "corrected, one step, no gradient through the solver",
    ]
    assert comparison.horizons == 4
    for name in list(comparison.errors)[1:]:
        assert comparison.improvement(name) > 10
    table = str(comparison)
    assert "to 4x" in table
    assert all(name in table for name in comparison.errors)


def test_rows_are_the_same_numbers(comparison: Comparison, tmp_path: Path) -> None:
    rows = comparison.rows
    assert {row.method for row in rows} == set(comparison.errors)
    value = next(r.value for r in rows if r.method == UNCORRECTED and r.metric == "error_4x")
    assert value == comparison.error(UNCORRECTED, 4)
    ratio = next(r for r in rows if r.metric == "improvement")
    assert ratio.baseline == UNCORRECTED
    write_rows(tmp_path / "rows.json", rows)


def test_the_given_stepper_is_not_trained(comparison: Comparison) -> None:
    names = list(comparison.steppers)
    rates = [float(next(comparison.steppers[name].parameters()).detach()) for name in names[1:]]
    assert rates == pytest.approx([0.5] * 3, abs=0.02)
    assert len({id(comparison.steppers[name]) for name in names}) == 4


def test_errors_by_hand() -> None:
    y = torch.tensor([[[[3.0], [4.0]]], [[[0.0], [2.0]]]], dtype=torch.float64)
    x = y.clone()
    x[0, 0, 0] = 0.0
    x[1, 0, 1] = torch.nan
    assert relative_error(x, y).tolist() == [pytest.approx(0.6), torch.inf]
    mass = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert relative_error(x, y, mass)[0] == 0


def test_a_rollout_that_breaks_down_counts_as_infinite() -> None:
    plain = SolverStep(lambda t, x: 50 * x**3, RK4(dt=0.1), 0.1)
    y = truth(16, 2)
    path = rollout(plain, 10 * y)
    assert path.shape == y.shape
    assert torch.equal(path[0], 10 * y[0])
    assert relative_error(path, 10 * y)[-1] == torch.inf


def test_checkpoints(tmp_path: Path) -> None:
    for _ in range(2):
        compare(stepper(), truth(4, 0), truth(4, 1), (OneStep(),), steps=5, folder=tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_a_simulator_that_is_right_already() -> None:
    """Nothing to learn: both errors are zero, and the table still prints."""
    plain = stepper()
    path = plain.path(torch.ones(3, 4, 1, dtype=torch.float64), 4).detach()
    found = compare(plain, path, path, (OneStep(),), steps=2)
    assert max(float(error.max()) for error in found.errors.values()) < 1e-15
    assert "better" in str(found)


def test_states_of_several_parts() -> None:
    """x is pulled down by 1 and should be by ½, y is right."""

    class OfFirst(Rate):
        def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return self.a * x[0], torch.zeros_like(x[1])

    def two(a: float) -> CorrectedStep:
        physics = SolverStep(lambda t, x: (-x[0], x[0] - x[1]), RK4(dt=0.1, gradient=Direct()), 0.1)
        return CorrectedStep(physics, OfFirst(a))

    start = tuple(torch.randn(3, 4, c, generator=torch.Generator().manual_seed(c), dtype=torch.float64) for c in (1, 1))
    path = tuple(part.detach() for part in two(0.5).path(start, 8))
    found = compare(two(0.0), tuple(part[:5] for part in path), path, (OneStep(),), steps=60, learning_rate=0.05)
    assert found.horizon == 4
    assert found.horizons == 2
    assert found.improvement(list(found.errors)[1]) > 10


def test_a_zero_truth_in_float32_is_no_error() -> None:
    zero = torch.zeros(2, 3, 4, 1)
    assert relative_error(zero, zero).tolist() == [0.0, 0.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least as long"):
        compare(stepper(), truth(4, 0), truth(3, 1))
    with pytest.raises(ValueError, match="both called"):
        compare(stepper(), truth(4, 0), truth(4, 1), (OneStep(), OneStep(noise=0.1)), steps=1)
