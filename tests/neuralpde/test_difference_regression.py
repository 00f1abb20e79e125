import math
from dataclasses import replace

import pytest
import torch

from neuralpde.convection_data import sensors
from neuralpde.difference_regression import (
    DifferenceRegression,
    FixedDifferences,
    FreeStencil,
    LeastSquaresRegression,
    LinearForecaster,
    MeshRegression,
    RingRegression,
    StandardDelaunayRegression,
    StandardRegression,
    difference_methods,
)
from neuralpde.difference_regression_operators import standard_features
from neuralpde.files import RunFolderError
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_score import mean_error
from operators.difference_graph import KNearest

PLACE = sensors(40, 3)


def quiet(step: int, steps: int, note: str) -> None:
    pass


def case(windows=60, channels=1, seed=0):
    """Diffusion on the graph of neighbours at a rate of each sensor's own: exactly what standard-op can say."""
    laplacian = standard_features(PLACE, KNearest(4))[2]
    rate = 0.02 + 0.02 * torch.rand(40, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    step = torch.eye(40, dtype=torch.float64) - rate[:, None] * laplacian
    frames = [torch.randn(windows, 40, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)]
    for _ in range(5):
        frames.append(step @ frames[-1])
    values = torch.stack(frames, dim=1).float()
    times = torch.arange(6, dtype=torch.float64).expand(windows, -1)
    return SensorCase("test", PLACE, values, torch.ones_like(values, dtype=torch.bool), times, given=2)


def fitted(method, tmp_path, channels=1):
    return method.fit([case(channels=channels)], [case(20, channels, 1)], 0, tmp_path / "weights.safetensors", quiet)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_right_features_learn_the_right_rates(channels, tmp_path) -> None:
    forecaster = fitted(StandardRegression(steps=200, learning_rate=0.05), tmp_path, channels)
    test = case(20, channels, 2)
    still = float((test.values[:, 2:] - test.values[:, 1:2]).abs().mean())
    assert mean_error(forecaster, [test]) < 0.02 * still
    assert forecaster.parameters == 120 * channels


METHODS = [
    StandardRegression,
    StandardDelaunayRegression,
    RingRegression,
    MeshRegression,
    LeastSquaresRegression,
    FreeStencil,
]


@pytest.mark.parametrize("method", METHODS)
def test_a_little_training_is_better_than_persistence(method: type[FixedDifferences], tmp_path) -> None:
    forecaster = fitted(method(steps=60, learning_rate=0.02), tmp_path)
    test = case(20, 1, 2)
    still = float((test.values[:, 2:] - test.values[:, 1:2]).abs().mean())
    assert mean_error(forecaster, [test]) < 0.95 * still


def test_untrained_it_is_persistence() -> None:
    test = case(5)
    model = DifferenceRegression(standard_features(PLACE, KNearest(4)), test.values)
    found = LinearForecaster(1.0, model).forecast(test.inputs)
    torch.testing.assert_close(found, test.values[:, 1:2].expand(-1, 4, -1, -1))


def test_gaps_are_filled() -> None:
    test = case(5)
    seen = torch.rand(test.values.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    gappy = replace(test, seen=seen, values=torch.where(seen, test.values, 0.0))
    model = DifferenceRegression(standard_features(PLACE, KNearest(4)), test.values)
    assert bool(LinearForecaster(1.0, model).forecast(gappy.inputs).isfinite().all())


def test_it_belongs_to_one_placement(tmp_path) -> None:
    with pytest.raises(RunFolderError, match="one placement, not 2"):
        StandardRegression().fit([case(), case()], [case(), case()], 0, tmp_path / "w.safetensors", quiet)


def test_the_rows_of_every_table() -> None:
    assert [method.name for method in difference_methods()] == ["standard-op", "mesh-op", "least-squares", "sdl"]
    assert all(math.isfinite(method.learning_rate) for method in difference_methods())
