"""Scores agree with the definitions of WeatherBench 2 written out in NumPy and xarray, on grids and on welded meshes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within
from neuralpde.weather_metrics import Scores, acc, area_mean, bias, rmse
from operators import FieldError
from operators.lat_lon import LatLon

GRID = LatLon(torch.linspace(90, -90, 13, dtype=torch.float64), torch.arange(0, 360, 15))


def drawn(grid=GRID, forecasts=5, leads=3, channels=2, seed=0):
    """Forecasts, truth and climatology (B, L, rows, columns, c) around 54000, equal along rows at the poles, as in ERA5."""
    random = np.random.default_rng(seed)
    latitude = np.deg2rad(grid.latitude.numpy())[:, None, None]
    climatology = 54000 - 4000 * np.sin(latitude) ** 2 + np.zeros((forecasts, leads, *grid.shape, channels))
    truth = climatology + 300 * random.normal(size=climatology.shape)
    prediction = climatology + 0.6 * (truth - climatology) + 200 * random.normal(size=climatology.shape) + 20
    for field in (prediction, truth):
        for row in np.flatnonzero(np.abs(grid.latitude.numpy()) == 90):
            field[:, :, row] = field[:, :, row, :1]
    return [torch.from_numpy(field) for field in (prediction, truth, climatology)]


def weights_by_hand(latitude):
    """∫ cos over each row's cell, in the order of the rows, of mean one."""
    order = np.argsort(latitude)
    x = np.deg2rad(latitude[order])
    edges = [-np.pi / 2, *((x[1:] + x[:-1]) / 2), np.pi / 2]
    weights = np.empty(len(x))
    weights[order] = [np.sin(edges[i + 1]) - np.sin(edges[i]) for i in range(len(x))]
    return weights / weights.mean()


def by_hand(prediction, truth, climatology, latitude):
    """RMSE, ACC and bias (L, c) by loops over forecasts, leads and channels."""
    f, o, c = (x.numpy() for x in (prediction, truth, climatology))
    w = weights_by_hand(latitude)[:, None]
    mean = lambda x: (w * x).mean() / np.mean(w)  # noqa: E731
    forecasts, leads, _, _, channels = f.shape
    result = np.zeros((3, leads, channels))
    for lead in range(leads):
        for channel in range(channels):
            square, correlation, difference = [], [], []
            for k in range(forecasts):
                a, b, r = f[k, lead, ..., channel], o[k, lead, ..., channel], c[k, lead, ..., channel]
                square.append(mean((a - b) ** 2))
                correlation.append(mean((a - r) * (b - r)) / np.sqrt(mean((a - r) ** 2) * mean((b - r) ** 2)))
                difference.append(mean(a - b))
            result[:, lead, channel] = np.sqrt(np.mean(square)), np.mean(correlation), np.mean(difference)
    return torch.from_numpy(result)


def scored(prediction, truth, climatology, weights):
    return torch.stack(
        [rmse(prediction, truth, weights), acc(prediction, truth, climatology, weights), bias(prediction, truth, weights)]
    )


@pytest.mark.parametrize(
    "latitude",
    [np.linspace(90, -90, 13), np.linspace(-90, 90, 13), np.linspace(-84.375, 84.375, 16)],
    ids=["falling", "rising", "no poles"],
)
def test_scores_on_grids_are_those_by_hand(latitude):
    grid = LatLon(torch.from_numpy(latitude), torch.arange(0, 360, 15))
    fields = drawn(grid)
    expected = by_hand(*fields, latitude)
    actual = scored(*(x.flatten(2, 3) for x in fields), grid.cell_weights)
    assert_within(actual / expected, 1.0, 1e-9)
    # On the welded mesh the weights are areas: the same numbers.
    on_nodes = scored(*(grid.to_nodes(x) for x in fields), grid.areas)
    assert_within(on_nodes / expected, 1.0, 1e-9)
    # In single precision to 1e-6 of the anomalies' size (300 of 54000, whose digits the data lack).
    single = scored(*(grid.to_nodes(x.float()) for x in fields), grid.areas)
    assert_within(single[1], expected[1], 1e-6)
    assert_within((single - expected)[0] / 300, 0.0, 1e-6)


def test_scores_are_those_of_xarray():
    xarray = pytest.importorskip("xarray", reason="the second opinion is xarray's: pip install 'neuralpde-toolkit[weather]'")
    axes = ("time", "lead", "latitude", "longitude", "channel")
    coordinates = {"latitude": GRID.latitude.numpy()}
    f, o, c = (xarray.DataArray(x.numpy(), dims=axes, coords=coordinates) for x in drawn())
    weights = f.latitude.copy(data=weights_by_hand(GRID.latitude.numpy()))

    def mean(x):
        return x.weighted(weights).mean(["latitude", "longitude"])

    square = np.sqrt(mean((f - o) ** 2).mean("time"))
    correlation = (mean((f - c) * (o - c)) / np.sqrt(mean((f - c) ** 2) * mean((o - c) ** 2))).mean("time")
    difference = mean(f - o).mean("time")
    expected = torch.from_numpy(np.stack([x.transpose("lead", "channel").values for x in (square, correlation, difference)]))
    assert_within(scored(*(x.flatten(2, 3) for x in drawn()), GRID.cell_weights) / expected, 1.0, 1e-9)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_batches_add_up(sizes):
    prediction, truth, climatology = (GRID.to_nodes(x) for x in drawn(forecasts=sum(sizes)))
    scores = Scores(GRID.areas)
    for fields in zip(prediction.split(sizes), truth.split(sizes), climatology.split(sizes), strict=True):
        scores.add(*fields)
    assert scores.count == sum(sizes)
    whole = scored(prediction, truth, climatology, GRID.areas)
    assert_within(torch.stack([scores.rmse, scores.acc, scores.bias]) / whole, 1.0, 1e-12)


def test_special_forecasts():
    prediction, truth, climatology = (GRID.to_nodes(x) for x in drawn())
    weights = GRID.areas
    assert_within(acc(truth, truth, climatology, weights), 1.0, 1e-12)
    assert_within(acc(2 * climatology - truth, truth, climatology, weights), -1.0, 1e-12)
    assert torch.equal(rmse(truth, truth, weights), torch.zeros(3, 2, dtype=torch.float64))
    assert torch.equal(acc(climatology, truth, climatology, weights), torch.zeros(3, 2, dtype=torch.float64))
    assert_within(rmse(truth + 3, truth, weights), 3.0, 1e-9)
    assert_within(bias(truth - 3, truth, weights), -3.0, 1e-9)
    assert_within(area_mean(torch.ones(GRID.num_nodes, 2), 7 * weights), 1.0, 1e-12)
    prediction[0, 0, 5, 0] = torch.nan
    assert rmse(prediction, truth, weights).isnan().tolist() == [[True, False], [False, False], [False, False]], "never silent"
    assert acc(prediction, truth, climatology, weights).isnan().tolist() == [[True, False], [False, False], [False, False]]


def test_what_does_not_fit_is_refused():
    prediction, truth, climatology = (GRID.to_nodes(x) for x in drawn())
    for weights in (torch.ones(3, 3), torch.zeros(5), torch.tensor([1.0, -1.0]), torch.tensor([torch.nan])):
        with pytest.raises(FieldError, match="weights must"):
            Scores(weights)
    scores = Scores(GRID.areas)
    with pytest.raises(FieldError, match="no forecast"):
        _ = scores.rmse
    with pytest.raises(FieldError, match="truth must have the shape"):
        scores.add(prediction, truth[:, :1])
    with pytest.raises(FieldError, match="climatology must have the shape"):
        scores.add(prediction, truth, climatology[0])
    with pytest.raises(FieldError, match="B > 0"):
        scores.add(prediction[:0], truth[:0])
    with pytest.raises(FieldError, match="weights"):
        scores.add(prediction[:, :, 1:], truth[:, :, 1:])
    scores.add(prediction, truth)
    with pytest.raises(FieldError, match="without a climatology"):
        _ = scores.acc
    with pytest.raises(FieldError, match="earlier forecasts"):
        scores.add(prediction[:, :1], truth[:, :1])
