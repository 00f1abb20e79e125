"""The unitary methods as rows of MeshPDE's tables."""

import pytest
import torch

from neuralpde.heat_data import GIVEN_FRAMES, Truth, initial_fields, simulate
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_pde import Pde
from neuralpde.mesh_unitary import RUniMeshMethod, RUniMeshStep, Unitary, UnitaryStep, unitary_methods
from operators import bumpy, icosphere, torus

TINY = (
    Unitary(steps=12, width=6, layers=1),
    RUniMeshMethod(steps=12, width=8, layers=2, hidden=(8,), paces=2),
)
METHODS = pytest.mark.parametrize("method", TINY, ids=lambda method: method.name)


def case(name, mesh, frames=21):
    laplacian = Truth.PUBLISHED.laplacian(mesh)
    dt = 0.25 / laplacian.largest_eigenvalue()
    path = simulate(laplacian, dt, initial_fields(mesh, Truth.PUBLISHED, 2, 0), Truth.PUBLISHED)[:, :frames].float()
    return Case(Scene(name, mesh.to(torch.float32), dt, Truth.PUBLISHED), path, path)


@pytest.fixture(scope="module")
def cases():
    return [case("ball", bumpy(icosphere(1), 0.2)), case("ring", torus(8, 5))]


@METHODS
def test_it_learns_rolls_out_elsewhere_and_is_the_same_again(method, cases, tmp_path):
    losses = []
    fitted = method.fit(cases, 0, tmp_path / "a.safetensors", lambda step, steps, loss: losses.append(loss))
    assert sum(losses[-4:]) < sum(losses[:4])
    assert fitted.parameters == sum(p.numel() for p in fitted.model.parameters())
    there = case("unseen", icosphere(1))
    path = fitted.rollout(there.given, 7)
    assert path.shape == (2, 7, there.scene.mesh.num_nodes, 1)
    assert bool(path.isfinite().all())
    again = method.fit(cases, 0, tmp_path / "b.safetensors", lambda *_: None)
    assert torch.equal(again.rollout(there.given, 7), path)
    other = method.fit(cases, 1, tmp_path / "c.safetensors", lambda *_: None)
    assert not torch.equal(other.rollout(there.given, 7), path)


@METHODS
def test_it_resumes_to_the_same_weights(method, cases, tmp_path):
    whole = method.fit(cases, 3, tmp_path / "whole.safetensors", lambda *_: None)

    def stop(step, steps, loss):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fit(cases, 3, tmp_path / "cut.safetensors", stop)
    resumed = method.fit(cases, 3, tmp_path / "cut.safetensors", lambda *_: None)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight)


def test_the_strict_step_keeps_the_norm_of_five_frames_and_starts_near_persistence(cases):
    scene, frames = cases[0].scene, cases[0].frames[:, :GIVEN_FRAMES]
    torch.manual_seed(0)
    step = UnitaryStep(scene, 6, 3, 0.3)
    inside = step.net.encoded(frames.flip(1).squeeze(-1).transpose(1, 2))
    torch.testing.assert_close(inside.norm(), frames.norm(), rtol=1e-5, atol=0)
    # Reading one channel cannot give more than all frames had.
    assert float(step(frames, None).detach().norm()) <= float(frames.norm())
    still = UnitaryStep(scene, 6, 3, 1e-6)
    torch.testing.assert_close(still(frames, None), frames[:, -1], rtol=0, atol=1e-4)


def test_r_unimesh_starts_as_persistence_and_follows_scale(cases):
    scene, frames = cases[0].scene, cases[0].frames[:, :GIVEN_FRAMES]
    torch.manual_seed(0)
    step = RUniMeshStep(scene, 8, 2, 3, (8,))
    assert torch.equal(step(frames, None), frames[:, -1])
    torch.nn.init.normal_(step.net.net.decoder[-1].weight)
    torch.testing.assert_close(step(5 * frames, None), 5 * step(frames, None), rtol=1e-4, atol=1e-4)


def test_settings_for_an_equation():
    for pde in Pde:
        strict, relaxed = unitary_methods(pde)
        assert (strict.name, relaxed.name) == ("unitary", "r-unimesh")
        assert relaxed.order == (3 if pde is Pde.HEAT else 10)
