"""Trivial predictors and the schemes that are told a rate, against their recurrences written out."""

import pytest
import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_baselines import ExplicitMass, ExplicitRobust, ImplicitEuler, Persistence, Stand, Zero
from neuralpde.metrics import nrmse
from neuralpde.testing_mesh_cases import small_case
from operators import cotangent_laplacian, robust_laplacian


def fitted(method, folder):
    return method.fit([], 0, folder / "none.safetensors", lambda *told: None)


def test_zero_and_persistence(tmp_path):
    case = small_case()
    zero, same = (fitted(method, tmp_path).rollout(case.given, 7) for method in (Zero(), Persistence()))
    assert zero.shape == same.shape == (2, 7, 42, 1)
    assert float(zero.abs().max()) == 0
    assert bool((same == case.frames[:, 4:5]).all())
    truth = case.clean[:, 5:].double().transpose(0, 1)
    assert float((nrmse(zero.double().transpose(0, 1), truth) - 1).abs().max()) < 1e-4
    assert not Zero().random
    assert fitted(Persistence(), tmp_path).parameters == 0


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("truth", list(Truth))
def test_what_stands_on_the_right_operator_is_exact(order, truth, tmp_path):
    case = small_case(truth=truth, order=order)
    path = fitted(ExplicitMass(order, Stand.SIMULATION), tmp_path).rollout(case.given, 7)
    # Rounded to float32 once, at the given frames, and carried along by a stable recurrence.
    assert float((path - case.frames[:, 5:]).abs().max()) < 1e-4 * float(case.frames.abs().max())


@pytest.mark.parametrize("order", [1, 2])
def test_implicit_euler_against_a_dense_solve(order, tmp_path):
    case = small_case(order=order)
    path = fitted(ImplicitEuler(order), tmp_path).rollout(case.given, 3).double()
    frames = torch.cat([case.frames[:, :5].double(), path], dim=1)
    dense = torch.eye(42, dtype=torch.float64) + case.scene.dt**order * Stand.SIMULATION.of(case.scene).matrix()
    for k in range(5, 8):
        free = frames[:, k - 1] if order == 1 else 2 * frames[:, k - 1] - frames[:, k - 2]
        assert torch.allclose(torch.linalg.solve(dense, free), frames[:, k], atol=1e-6)


def test_what_each_scheme_stands_on():
    scene = small_case().scene
    for stand, expected in (
        (Stand.SIMULATION, scene.truth.laplacian(scene.mesh)),
        (Stand.COTANGENT, cotangent_laplacian(scene.mesh)),
        (Stand.ROBUST, robust_laplacian(scene.mesh)),
    ):
        assert torch.allclose(stand.of(scene).matrix().float(), expected.matrix(), rtol=1e-4, atol=1e-4)
    normalised = Stand.NORMALISED.of(scene).matrix()
    assert torch.allclose(normalised.diagonal(), torch.ones(42, dtype=torch.float64), atol=1e-6)
    assert ExplicitMass().stand is Stand.COTANGENT
    assert ExplicitRobust().stand is Stand.ROBUST
    # The scene's own operators stay in float32.
    assert scene.laplacian.dtype == scene.robust.dtype == torch.float32
