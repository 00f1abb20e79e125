"""Stencils are exact on what they can represent, and least squares on what they cannot."""

import numpy as np
import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.heat_data import Truth
from neuralpde.mesh_baselines import Stand
from neuralpde.mesh_baselines_stencils import (
    Cubic,
    FourParameters,
    OwnCubic,
    OwnFourParameters,
    OwnNormalisedRate,
    OwnRate,
    OwnTwoParameters,
    Rate,
    TwoParameters,
    normal_equations,
    solved,
)
from neuralpde.testing_mesh_cases import small_case
from operators import bumpy, icosphere


def fitted(method, cases, folder):
    return method.fit(cases, 0, folder / "none.safetensors", lambda *told: None)


@pytest.mark.parametrize("truth", list(Truth))
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("stencil", [Rate, FourParameters, OwnRate, OwnFourParameters])
def test_exact_on_another_mesh_with_another_time_step(stencil, order, truth, tmp_path):
    train = [small_case(truth=truth, order=order, rate=0.6)]
    test = small_case("other", bumpy(icosphere(1, radius=3.0), 0.3, seed=7), truth=truth, order=order, rate=0.6, seed=5)
    model = fitted(stencil(order), train, tmp_path)
    path = model.rollout(test.given, 7)
    assert float((path - test.frames[:, 5:]).abs().max()) < 1e-3 * float(test.frames.abs().max())
    if stencil is Rate:
        assert float(model.coefficients) == pytest.approx(0.6, abs=1e-5)
        assert model.parameters == 1


@pytest.mark.parametrize("stencil", [TwoParameters, OwnTwoParameters])
def test_two_parameters_find_decay_and_rate(stencil, tmp_path):
    case = small_case()
    decay = 0.9 ** torch.arange(12)[:, None, None]
    frames = case.frames * decay
    decaying = type(case)(case.scene, frames, frames)
    model = fitted(stencil(), [decaying], tmp_path)
    path = model.rollout(decaying.given, 7)
    assert float((path - frames[:, 5:]).abs().max()) < 1e-4
    if model.coefficients is not None:
        assert model.coefficients.tolist() == pytest.approx([0.9, -0.9], abs=1e-4)


def test_the_fit_is_the_least_squares_fit_of_numpy():
    case = small_case()
    noisy = case.frames + 0.1 * torch.randn_like(case.frames)
    terms = FourParameters().terms(case.scene)
    gram, moment, change = normal_equations(terms, noisy)
    base, r = terms(noisy[:, 1:-1].double(), noisy[:, :-2].double())
    for k in range(2):
        matrix, right = r[k].reshape(-1, 4).numpy(), (noisy[k, 2:].double() - base[k]).reshape(-1).numpy()
        expected = np.linalg.lstsq(matrix, right, rcond=None)[0]
        assert solved(gram[k], moment[k]).tolist() == pytest.approx(expected.tolist(), rel=1e-6)
        assert float(change[k]) == pytest.approx(float((noisy[k, 2:] - noisy[k, 1:-1]).double().square().sum()))


def test_each_rollout_has_its_own_rate(tmp_path):
    slow, fast = small_case(rate=0.2, trajectories=1), small_case(rate=1.0, trajectories=1, seed=3)
    frames = torch.cat([slow.frames, fast.frames])
    both = type(slow)(slow.scene, frames, frames)
    own = fitted(OwnRate(), [], tmp_path).rollout(both.given, 7)
    assert float((own - frames[:, 5:]).abs().max()) < 1e-4
    shared = fitted(Rate(), [both], tmp_path)
    assert 0.2 < float(shared.coefficients) < 1.0
    assert float((shared.rollout(both.given, 7) - frames[:, 5:]).abs().max()) > 1e-2


def test_a_rate_without_area_and_time(tmp_path):
    method = OwnNormalisedRate()
    assert method.stand is Stand.NORMALISED
    assert method.own
    case = small_case()
    path = fitted(method, [], tmp_path).rollout(case.given, 7)
    assert bool(torch.isfinite(path).all())


def test_what_is_at_rest_stays(tmp_path):
    case = small_case()
    still = case.frames[:, :1].expand(-1, 12, -1, -1).clone()
    for frames in (still, torch.zeros_like(still)):
        for method in (OwnRate(), OwnTwoParameters(), OwnFourParameters()):
            path = fitted(method, [], tmp_path).rollout(type(case)(case.scene, frames, frames).given, 4)
            assert torch.allclose(path, frames[:, :4], atol=1e-4)


def test_no_case_to_fit_to(tmp_path):
    with pytest.raises(RunFolderError, match="at least one training case"):
        fitted(Rate(), [], tmp_path)


@pytest.mark.parametrize("stencil", [Cubic, OwnCubic])
def test_a_cubic_step_is_found(stencil, tmp_path):
    case = small_case(trajectories=1)
    laplacian, dt = Stand.SIMULATION.of(case.scene), case.scene.dt
    path = [0.5 * case.frames[:, 0].double()]
    for _ in range(13):
        y = path[-1]
        path.append(y - dt * (-0.3 * laplacian(y) + 0.2 * laplacian(y**3) + 0.4 * dt * laplacian(laplacian(y))))
    frames = torch.stack(path, dim=1).float()
    model = fitted(stencil(), [type(case)(case.scene, frames, frames)], tmp_path)
    rolled = model.rollout(type(case)(case.scene, frames, frames).given, 9)
    assert float((rolled - frames[:, 5:]).abs().max()) < 1e-3
    if model.coefficients is not None:
        assert model.coefficients.tolist() == pytest.approx([-0.3, 0.2, 0.4], abs=1e-4)
