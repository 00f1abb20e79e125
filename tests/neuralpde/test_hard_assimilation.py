"""Five frames give a trajectory's tensor and its first frame back, through the solver."""

import math

import pytest
import torch
from torch import Tensor

from neuralpde.hard_assimilation import (
    CORRELATION,
    Assimilated,
    Belief,
    _conjugate_gradients,
    _Path,
    _Roughness,
    assimilate,
    noise_of,
)
from neuralpde.hard_data import draw, of_area_one
from neuralpde.hard_flow import Flow, Form, Place
from neuralpde.hard_law import MaterialLaw, SourceLaw, positive_tensor, symmetric_basis
from operators import bumpy, icosphere

PLACE = Place(of_area_one(bumpy(icosphere(2), seed=1)))
FORM = Form(False, SourceLaw(3, -0.2, 1.2), MaterialLaw(3))
DRAWN = draw(PLACE.mesh, 0, 0)
MATERIAL = DRAWN.material[:, 0]
SHARED = torch.tensor([0.5, 2.0, -1.0, -2.0, 0.5, 0.3, 0.0, -0.6, -0.8, -1.0], dtype=torch.float64)
BELIEF = Belief(torch.tensor([3**0.5 * math.log(0.02), 0, 0, 0, 0, 0], dtype=torch.float64), torch.full((6,), 2.0).double())
H = 1 / 200


def logarithm(tensor: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(tensor)
    numbers: Tensor = (symmetric_basis(False) * ((vectors * values.log()) @ vectors.T)).sum((1, 2))
    return numbers


def seen(noise: float, own: Tensor) -> Tensor:
    flow, frames = Flow(PLACE, FORM, MATERIAL, torch.cat([own, SHARED]), H), [DRAWN.start]
    for _ in range(4):
        frames.append(flow.step(frames[-1]).state)
    clean = torch.stack(frames)
    return clean + noise * torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(3))


def found(noise: float, belief: Belief = BELIEF) -> tuple[Assimilated, float]:
    own = logarithm(DRAWN.tensor)
    result = assimilate(PLACE, FORM, MATERIAL, seen(noise, own), H, belief, SHARED)
    A, _ = positive_tensor(result.own, symmetric_basis(False))
    return result, float((A - DRAWN.tensor).norm() / DRAWN.tensor.norm())


def test_clean_frames_give_rate_and_anisotropy_back() -> None:
    result, error = found(0.0)
    # The belief pulls the tensor, and the third differences of the smooth field are taken for noise: both are tiny.
    assert error < 2e-3
    assert (result.first - DRAWN.start).square().mean().sqrt() < 1e-4


def test_noisy_frames_give_them_within_the_noise() -> None:
    level = 0.01 * float(DRAWN.start.std())
    result, error = found(level)
    assert error < 0.05
    assert abs(result.noise / level - 1) < 0.1
    # Five frames and smoothness know the first frame better than it was seen.
    assert (result.first - DRAWN.start).square().mean().sqrt() < 0.9 * level


@pytest.mark.parametrize(
    "off", [[-4.0, 1.5, 0, 0, -1.5, 0], [-2.6124, 1.7, -1.6, 0.2, -0.8, 0.6]], ids=["straight", "overshooting"]
)
def test_a_guess_far_off_is_no_matter(off: list[float]) -> None:
    mean = BELIEF.mean + torch.tensor(off, dtype=torch.float64)
    _, error = found(0.003, Belief(mean, 10 * BELIEF.variance))
    assert error < 0.05


def test_all_known_leaves_the_first_frame() -> None:
    own, nothing = logarithm(DRAWN.tensor), torch.zeros(0, dtype=torch.float64)
    frames = seen(0.003, own)
    result = assimilate(PLACE, FORM, MATERIAL, frames, H, Belief(nothing, nothing), torch.cat([own, SHARED]))
    assert result.own.shape == (0,)
    assert (result.first - DRAWN.start).square().mean() < 0.8 * (frames[0] - DRAWN.start).square().mean()
    # Nothing is left to gain: the gradient of frames and roughness together vanishes.
    path = _Path(Flow(PLACE, FORM, MATERIAL, torch.cat([own, SHARED]), H), result.first, 5, 0)
    variance = float((frames[0] - frames[0].mean()).square().mean()) + result.noise**2
    fourth = CORRELATION**2 * result.noise**2 / (4 * math.pi * frames.shape[1] * variance)
    pull = _Roughness(PLACE, fourth, 5)(result.first)
    push = path.adjoint([y - u for y, u in zip(frames, path.states, strict=True)])
    assert (push - pull).norm() < 0.02 * pull.norm()


def test_noise_is_read_from_third_differences() -> None:
    t = torch.arange(5.0, dtype=torch.float64)[:, None, None]
    x = torch.randn(1, 4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = x + t * x**2 - t**2 * x
    assert noise_of(smooth) < 1e-4
    noisy = smooth + 0.02 * torch.randn(5, 4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert abs(noise_of(noisy) / 0.02 - 1) < 0.05


def test_conjugate_gradients_solve_their_equation() -> None:
    flow = Flow(PLACE, FORM, MATERIAL, torch.cat([logarithm(DRAWN.tensor), SHARED]), H)
    path, roughness = _Path(flow, DRAWN.start, 5, 0), _Roughness(PLACE, 1e-8, 5)
    b = torch.randn(PLACE.mesh.num_nodes, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x = _conjugate_gradients(path, roughness, b)
    residual = path.gram(x) + roughness(x) - b
    assert residual.norm() < 3e-3 * b.norm()
    y = roughness.precondition(b)
    torch.testing.assert_close(5 * y + roughness(y), b, rtol=1e-8, atol=1e-8)


def test_frames_that_are_not_finite_are_refused() -> None:
    frames = seen(0.0, logarithm(DRAWN.tensor))
    frames[2, 7] = math.nan
    with pytest.raises(ValueError, match="finite"):
        assimilate(PLACE, FORM, MATERIAL, frames, H, BELIEF, SHARED)
