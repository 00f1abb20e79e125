import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.convection_data import Convection, sensors
from neuralpde.difference_regression_learned import (
    LearnedDifferenceRegression,
    LearnedDifferences,
    PlainStartDelaunayRegression,
    Surroundings,
)
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from operators.difference_graph import KNearest

PLACES = [sensors(30, seed) for seed in (1, 2)]
SURROUNDINGS = Surroundings.of(PLACES, KNearest(4))
GRAPH = SURROUNDINGS.graph(PLACES[0])


def quiet(step: int, steps: int, note: str) -> None:
    pass


def layer(seed=0, change=1.0, largest=5.0, channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LearnedDifferences(GRAPH, channels, change, largest)


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(one.numel() for one in layer().parameters()) == 60_038


def test_the_increment_is_that_of_both_forms() -> None:
    """Σ_j c a (u_i − b u_j) of both networks, in a loop over edges."""
    made, u = layer(), torch.randn(30, 1, generator=torch.Generator().manual_seed(0))
    nodes = torch.cat([u, GRAPH.points], dim=1)
    expected = torch.zeros(30)
    for network in (made.differences.of_gradient, made.differences.of_laplacian):
        for (a, b, c), i, j in zip(
            network(nodes, None, GRAPH.pattern).detach(), GRAPH.pattern.row, GRAPH.pattern.col, strict=True
        ):
            expected[i] += c * a * (u[i, 0] - b * u[j, 0])
    torch.testing.assert_close(made.increment(u, GRAPH)[:, 0].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_plain_start_is_persistence_and_its_first_slopes_are_those_of_plain_differences(channels) -> None:
    """∂/∂(bias of c) of Σ_i increment_i v_i is Σ_ij v_i (u_i − u_j), for each channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = LearnedDifferences(GRAPH, channels, 1.0, 5.0, plain=True)
    u, v = torch.randn(2, 30, channels, generator=torch.Generator().manual_seed(0))
    increment = made.increment(u, GRAPH)
    assert float(increment.detach().abs().max()) == 0
    (increment * v).sum().backward()
    i, j = GRAPH.pattern.row, GRAPH.pattern.col
    expected = (v[i] * (u[i] - u[j])).sum(0)
    for network in (made.differences.of_gradient, made.differences.of_laplacian):
        slope = network.output.bias.grad.unflatten(0, (3, channels))
        torch.testing.assert_close(slope[2], expected, rtol=1e-4, atol=1e-4)
        assert float(slope[:2].abs().max()) == 0


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.1, 30))
def test_no_weights_lead_out_of_bounds(seed, size) -> None:
    made = layer(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= size
        start = torch.randn(1, 30, 1, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)
        path = made(start, 5, GRAPH)
    whole = torch.cat([start[:, None], path], dim=1)
    assert float(whole.abs().max()) <= 5
    assert float(whole.diff(dim=1).abs().max()) <= 1 + 1e-5


def test_a_thousand_steps_of_an_untrained_layer_are_finite() -> None:
    graph = SURROUNDINGS.graph(sensors(10, 5))
    made = layer()
    with torch.no_grad():
        path = made(torch.randn(1, 10, 1, generator=torch.Generator().manual_seed(0)), 1000, graph)
    assert bool(path.isfinite().all())


def test_moving_all_placements_together_changes_nothing() -> None:
    moved = [Placement(place.name, 3 * place.points + 100) for place in PLACES]
    graph = Surroundings.of(moved, KNearest(4)).graph(moved[0])
    torch.testing.assert_close(graph.points, GRAPH.points, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [LearnedDifferenceRegression, PlainStartDelaunayRegression])
def test_it_learns_at_several_placements_and_forecasts_at_another(method, tmp_path) -> None:
    data = Convection(train=20, validation=6, test=6, frames=8, given=3)
    first, second, other = data.cases([*PLACES, sensors(30, 3)])
    trainer = method(steps=12, batch=4, unrolled=2)
    forecaster = trainer.fit([first[0], second[0]], [first[1], second[1]], 0, tmp_path / "w.safetensors", quiet)
    untrained = method(steps=1, learning_rate=1e-12).fit(first[:1], first[1:2], 0, tmp_path / "first.safetensors", quiet)
    assert mean_error(forecaster, [first[2], other[2]]) < mean_error(untrained, [first[2], other[2]])
    assert forecaster.parameters == 60_038
    found = forecaster.forecast(other[2].inputs)
    assert found.shape == (6, 5, 30, 1)
    assert bool(found.isfinite().all())
    again = trainer.fit([first[0], second[0]], [first[1], second[1]], 0, tmp_path / "w.safetensors", quiet)
    assert mean_error(again, [other[2]]) == mean_error(forecaster, [other[2]])
