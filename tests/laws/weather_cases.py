"""Small weather for the tests of forecasts: waves that turn around a sphere, over a mean field."""

import torch

from neuralpde.climatology import MeanClimatology
from neuralpde.forecast_case import ForecastCase, latitude_features
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import Variable, WeatherRecord, regular_times
from operators.sphere_meshes import centroidal_icosphere


def turning(frames=60, members=2, seed=0, noise=0.02):
    """A field that turns about the axis by 6° a frame, of amplitude and phase of the member's own."""
    place = MeshNodes(centroidal_icosphere(2))
    x = place.mesh.vertices.double()
    longitude, across = torch.atan2(x[:, 1], x[:, 0]), x[:, :2].norm(dim=1)
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(frames, dtype=torch.float64)[:, None]
    fields = []
    for _ in range(members):
        phase = 6.3 * torch.rand(2, generator=g, dtype=torch.float64)
        wave = across**2 * torch.cos(2 * longitude - 0.2 * time + phase[0]) + across * torch.cos(
            longitude - 0.1 * time + phase[1]
        )
        fields.append(10 + 3 * x[:, 2] + wave + noise * torch.randn(frames, len(x), generator=g, dtype=torch.float64))
    values = torch.stack(fields)[..., None].float()
    return WeatherRecord.of(values, regular_times("2001-01-01", 6.0, frames), place, [Variable("height", units="m")])


def case(leads=8, inputs=3, stride=4, **settings):
    """Other trajectories are forecast than are learned from."""
    train, test = turning(seed=0, **settings), turning(seed=1, **settings)
    return ForecastCase("turning", train, test, inputs, leads, stride, MeanClimatology.of(train), latitude_features(train))
