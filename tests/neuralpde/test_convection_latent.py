from dataclasses import replace

import pytest
import torch

from neuralpde.convection_grid import FieldGrid
from neuralpde.convection_latent import LatentField
from neuralpde.sensor_case import Given
from neuralpde.sensor_placement import Placement
from operators import DomainError

STEP = 0.1


def placement(n=30, seed=0):
    return Placement("random", 4 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def model(seed=0, size=0.3):
    made = LatentField(FieldGrid(torch.zeros(2).double(), torch.full((2,), 4.0).double(), 14), STEP, waves=2, degree=2)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += size * torch.randn(parameter.shape, generator=draw)
    return made


def given(made, place, windows=3, w=4, h=3, seed=1):
    """Frames that the model itself could have made: what `drawn` returns at given and wanted times."""
    frames = made.frames(w + h).detach()
    z = torch.randn(frames.shape[2], windows, generator=torch.Generator().manual_seed(seed))
    index, weights = made.grid.read(place.points)
    path = torch.einsum("nk,tnkw->wtn", weights.float(), (frames @ z)[:, index])[..., None]
    times = (STEP * torch.arange(w + h, dtype=torch.float64)).expand(windows, -1)
    seen = torch.ones(windows, w, place.num_nodes, 1, dtype=torch.bool)
    return Given(place, path[:, :w], seen, times[:, :w], times[:, w:]), path[:, w:]


def quiet(made, noise=-12.0):
    with torch.no_grad():
        made.noise.fill_(noise)
    return made


def test_what_the_model_made_it_forecasts() -> None:
    """25 waves seen at 30 sensors without noise are known, and so is what follows."""
    made = quiet(model())
    window, after = given(made, placement())
    found = made(window).detach()
    torch.testing.assert_close(found, after, rtol=0, atol=2e-3 * float(after.abs().max()))


def test_the_mean_is_that_of_the_joint_gaussian() -> None:
    """Against the textbook formula Σ_wg (Σ_gg + σ²)⁻¹ y in the sensors' space."""
    made, place = model(1), placement(6)
    window, _ = given(made, place)
    frames = made.frames(7).detach().double()
    index, weights = made.grid.read(place.points)
    seen = torch.einsum("nk,tnkm->tnm", weights, frames[:, index])
    g, h = seen[:4].flatten(0, 1), seen[4:].flatten(0, 1)
    y = window.values.double().flatten(1).T
    noise = float(torch.exp(2 * made.noise.detach()))
    exact = (h @ g.T @ torch.linalg.solve(g @ g.T + noise * torch.eye(len(g)).double(), y)).T.reshape(3, 3, 6, 1)
    # Frames are float32.
    torch.testing.assert_close(made(window).detach().double(), exact, rtol=1e-3, atol=1e-3)


def test_weights_belong_to_no_placement_and_the_order_of_sensors_does_not_matter() -> None:
    made, place = model(), placement()
    window, _ = given(made, place)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    turned = replace(window, placement=place.take(order), values=window.values[:, :, order], seen=window.seen[:, :, order])
    torch.testing.assert_close(made(turned), made(window)[:, :, order], rtol=1e-3, atol=1e-3)


def test_hidden_values_do_not_matter_and_complete_windows_do_not_notice_them() -> None:
    made = quiet(model(), -4.0)
    window, _ = given(made, placement())
    seen = window.seen.clone()
    seen[1, 2, 5:20] = False
    hidden = replace(window, seen=seen, values=torch.where(seen, window.values, 0.0))
    other = replace(window, seen=seen, values=torch.where(seen, window.values, 7.0))
    assert torch.equal(made(hidden), made(other))
    torch.testing.assert_close(made(hidden)[[0, 2]], made(window)[[0, 2]], rtol=1e-4, atol=1e-4)


def test_channels_are_forecast_each_by_itself() -> None:
    made = model()
    window, _ = given(made, placement())
    two = replace(
        window, values=torch.cat([window.values, 2 * window.values], dim=-1), seen=torch.cat([window.seen, window.seen], dim=-1)
    )
    torch.testing.assert_close(made(two), torch.cat([made(window), 2 * made(window)], dim=-1), rtol=1e-4, atol=1e-4)


def test_irregular_times_are_read_between_frames() -> None:
    """Frames at 0, 1, 3 of a window's steps: the same as if the others had not been seen."""
    made = quiet(model(), -4.0)
    window, _ = given(made, placement())
    some = torch.tensor([0, 1, 3])
    uneven = replace(window, values=window.values[:, some], seen=window.seen[:, some], times=window.times[:, some])
    seen = window.seen.clone()
    seen[:, 2] = False
    hidden = replace(window, seen=seen, values=torch.where(seen, window.values, 0.0))
    torch.testing.assert_close(made(uneven), made(hidden), rtol=1e-3, atol=1e-3)
    halfway = replace(window, wanted=window.wanted[:, :2] + STEP / 2)
    between = (made(window)[:, :2] + made(window)[:, 1:]) / 2
    torch.testing.assert_close(made(halfway), between, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_wild_weights_stay_finite_over_a_long_time(seed) -> None:
    """Diffusion much faster than the grid's limit: the step divides, so that nothing grows beyond what a and r make."""
    made = model(seed, size=1.0)
    with torch.no_grad():
        made.speeds.zero_()
        made.diffusion += 2
        made.shares.zero_()
        made.reaction.zero_()
    frames = made.frames(50).detach()
    assert bool(frames.isfinite().all())
    assert float(frames[-1].abs().max()) <= 1.001 * float(frames[0].abs().max())


def test_everything_learned_has_a_gradient() -> None:
    made = model()
    window, after = given(made, placement())
    (made(window) - after - 0.1).square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_the_gradient_is_that_of_finite_differences() -> None:
    made = quiet(model(), -2.0)
    window, after = given(made, placement(12))

    def loss() -> torch.Tensor:
        return (made(window).double() - after.double() - 0.1).square().sum()

    loss().backward()
    for parameter in (made.speeds, made.spectrum):
        slope = float(parameter.grad.flatten()[0])
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-2
            up = float(loss())
            parameter.view(-1)[0] -= 2e-2
            down = float(loss())
            parameter.view(-1)[0] += 1e-2
        assert slope == pytest.approx((up - down) / 2e-2, rel=2e-2, abs=1e-3)


def test_the_earth_and_wrong_steps_are_refused() -> None:
    made = model()
    window, _ = given(made, placement())
    earth = Placement("earth", torch.rand(30, 2), earth=True)
    with pytest.raises(DomainError, match="lives in a plane"):
        made(replace(window, placement=earth))
    with pytest.raises(DomainError, match="must be positive"):
        LatentField(made.grid, 0.0)
