import math

import numpy as np
import pytest
import torch

from neuralpde.convection_data import CELLS, SPACING, TIME_STEP, UNIT, Convection, coefficients, grid_nodes, sensors, tendency
from neuralpde.sensor_placement import Placement
from operators import DomainError


def field(f):
    line = SPACING * torch.arange(CELLS, dtype=torch.float64)
    return f(*torch.meshgrid(line, line, indexing="ij"))


def test_the_tendency_is_the_equation_inside() -> None:
    """On f = sin x cos 2y it is a f_x + b f_y + c Δf up to the second-order error of central differences."""
    found = tendency(field(lambda x, y: torch.sin(x) * torch.cos(2 * y)))[1:-1, 1:-1]
    points = field(lambda x, y: torch.stack([x, y], dim=-1))[1:-1, 1:-1]
    (x, y), (a, b, c) = points.unbind(-1), coefficients(points)
    sx, cx, sy, cy = torch.sin(x), torch.cos(x), torch.sin(2 * y), torch.cos(2 * y)
    exact = a * cx * cy - 2 * b * sx * sy - 5 * c * sx * cy
    # h²/6 |f'''| a + h²/6 |f'''| b + h²/12 |f''''| c, with the largest coefficients 5, 5 and 1/2.
    assert float((found - exact).abs().max()) < SPACING**2 * (5 / 6 + 8 * 5 / 6 + 17 / 24)


def test_it_is_the_sum_of_eq_7_written_out() -> None:
    """A loop over neighbours, those beyond the edge left out, as the independent reference."""
    values = torch.randn(CELLS, CELLS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    found = tendency(torch.from_numpy(values)).numpy()
    for p, q in ((0, 0), (0, 17), (CELLS - 1, 3), (25, CELLS - 1), (20, 30)):
        x, y = p * SPACING, q * SPACING
        a = 0.5 * (math.cos(y) + x * (2 * math.pi - x) * math.sin(x)) + 0.6
        b = 2 * (math.cos(y) + math.sin(x)) + 0.8
        c = 0.5 * (1 - math.sqrt((x - math.pi) ** 2 + (y - math.pi) ** 2) / (math.sqrt(2) * math.pi))
        total = 0.0
        for dp, dq in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if 0 <= p + dp < CELLS and 0 <= q + dq < CELLS:
                change = values[p + dp, q + dq] - values[p, q]
                total += ((a * dp + b * dq) / (2 * SPACING) + c / SPACING**2) * change
        assert found[p, q] == pytest.approx(total, rel=1e-12, abs=1e-12)


def test_sessions_start_with_the_drawn_waves_alone_and_step_by_euler() -> None:
    data = Convection(train=3, validation=1, test=1, frames=3, given=1, wave_numbers=(4,))
    everywhere = data.simulate([torch.arange(CELLS**2)])[0].double().reshape(5, 3, CELLS, CELLS) * UNIT
    spectrum = torch.fft.fft2(everywhere[:, 0]).abs()
    high = torch.fft.fftfreq(CELLS, 1 / CELLS).abs() > 4
    outside = spectrum[:, high[:, None] | high]
    assert float(outside.max()) < 1e-5 * float(spectrum.max())
    euler = everywhere[:, 0] + TIME_STEP * tendency(everywhere[:, 0])
    torch.testing.assert_close(everywhere[:, 1], euler, rtol=1e-4, atol=1e-4)


def test_more_substeps_approach_the_equation_in_time() -> None:
    """Euler's error is of first order: half the step, half the difference to a much finer one."""
    ends = []
    for substeps in (4, 8, 64):
        data = Convection(train=1, validation=1, test=1, frames=6, given=1, substeps=substeps)
        ends.append(data.simulate([torch.arange(CELLS**2)])[0][0, -1].double())
    coarse, fine = ((end - ends[2]).abs().mean() for end in ends[:2])
    assert 1.7 < float(coarse / fine) < 2.7


def test_cases_are_the_same_sessions_at_different_sensors() -> None:
    one, two = sensors(40, 42), sensors(40, 43)
    data = Convection(train=4, validation=2, test=2, frames=6, given=2)
    both = Placement("both", torch.cat([one.points, two.points]))
    joined, first, second = data.cases([both, one, two])
    for together, left, right in zip(joined, first, second, strict=True):
        assert torch.equal(together.values, torch.cat([left.values, right.values], dim=2))
    assert [len(case.values) for case in first] == [4, 2, 2]
    assert torch.equal(data.cases([one])[0][2].values, first[2].values)


def test_sensors_are_drawn_as_published() -> None:
    drawn = np.random.RandomState(42)
    p, q = drawn.choice(50, 250), drawn.choice(50, 250)
    assert torch.equal(grid_nodes(sensors(250, 42)), torch.from_numpy(p * 50 + q))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"train": 0}, "train must be at least 1"),
        ({"given": 20}, "some must be forecast"),
        ({"wave_numbers": (25,)}, "wave numbers lie from 1"),
        ({"wave_numbers": ()}, "wave numbers lie from 1"),
    ],
)
def test_wrong_settings_are_named(wrong, words) -> None:
    with pytest.raises(DomainError, match=words):
        Convection(**wrong)


def test_a_sensor_between_grid_points_is_refused() -> None:
    with pytest.raises(DomainError, match="multiples of 2π/50"):
        grid_nodes(Placement("off", torch.tensor([[0.0, 0.0], [0.05, 0.0]])))
