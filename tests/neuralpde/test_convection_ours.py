from dataclasses import replace

import torch

from neuralpde.convection_data import Convection, coefficients, sensors
from neuralpde.convection_grid import FieldGrid
from neuralpde.convection_latent import LatentField
from neuralpde.convection_ours import LatentConvection, LatentForecaster, relative_error
from neuralpde.sensor_score import mean_error


def test_it_learns_the_equation_and_forecasts_where_nobody_trained(tmp_path) -> None:
    """Fields of 3 waves at 60 sensors: after short training a third of persistence's error, also at sensors not trained on."""
    data = Convection(train=40, validation=10, test=10, frames=10, given=4, wave_numbers=(3,))
    first, second, other = data.cases([sensors(60, seed) for seed in (42, 43, 44)])
    method = LatentConvection(steps=40, learning_rate=0.2, batch=20, count=22, waves=4, degree=5)
    told: list[int] = []
    forecaster = method.fit(
        [first[0], second[0]], [first[1], second[1]], 0, tmp_path / "w.safetensors", lambda step, steps, note: told.append(step)
    )
    assert told[-1] == 40
    for case in (first[2], other[2]):
        still = float((case.values[:, 4:] - case.values[:, 3:4]).abs().mean())
        assert mean_error(forecaster, [case]) < 0.33 * still
    assert isinstance(forecaster, LatentForecaster)
    assert forecaster.parameters == 3 * 36 + 1 + 3 + 8 + 1
    # What it was not told and has found: where the field moves, and how fast.
    points = forecaster.model.grid.points
    inside = ((points > 1) & (points < 5)).all(1)
    found = torch.cat(forecaster.model.coefficients()[:2]).detach()[inside.repeat(2)].double()
    exact = torch.cat(coefficients(points)[:2])[inside.repeat(2)]
    assert float(torch.nn.functional.cosine_similarity(found, exact, dim=0)) > 0.8


def test_the_loss_does_not_see_what_was_not_seen() -> None:
    data = Convection(train=3, validation=1, test=1, frames=6, given=3, wave_numbers=(3,))
    case = data.cases([sensors(30, 1)])[0][0]
    method = LatentConvection(count=12, waves=2, degree=2)
    model = LatentField(FieldGrid.around(case.placement.points, method.count), 0.01, method.waves, method.degree)
    seen = torch.rand(case.values.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    hidden = replace(case, seen=seen, values=torch.where(seen, case.values, 0.0))
    targets, kept = hidden.targets
    error = (model(hidden.inputs) - targets).square()
    expected = torch.stack([torch.log(error[k][kept[k]].mean()) for k in range(3)]).mean()
    torch.testing.assert_close(relative_error(model, hidden), expected)
