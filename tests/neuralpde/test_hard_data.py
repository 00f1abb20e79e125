"""The trajectories of meshpde-hard: the truth is accurate, the noise as said, the meshes of other shape and finer."""

from pathlib import Path

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.hard_data import (
    NOISE,
    HardEquation,
    conductivity,
    draw,
    hard_case,
    hard_cases,
    hard_meshes,
    of_area_one,
    simulate,
    source,
)
from neuralpde.heat_data import FRAMES, TRAIN_FRAMES
from operators import bumpy, face_gradient, icosphere

MESH = of_area_one(bumpy(icosphere(2), seed=3))


def test_the_truth_has_converged() -> None:
    drawn = draw(MESH, 0, 0)
    coarse, fine = simulate(MESH, drawn, 21), simulate(MESH, drawn, 21, 8)
    # ARK324 is of order 3: a fourth of the step leaves a 64th of the error, so this difference is the error.
    assert (coarse - fine).abs().max() < 1e-5
    rough = simulate(MESH, drawn, 21, 1)
    assert (rough - fine).abs().max() > 4 * (coarse - fine).abs().max()


def test_diffusion_keeps_the_mean_and_only_lowers_the_energy() -> None:
    drawn = draw(MESH, 0, 1)
    equation = HardEquation(MESH, drawn.material, drawn.tensor)
    rate = equation(torch.zeros(()), drawn.start)
    mass = equation.laplacian.mass[:, None]
    # What is not source is a divergence.
    torch.testing.assert_close((mass * rate).sum(), (mass * source(drawn.start)).sum(), rtol=1e-10, atol=1e-12)
    gradient = face_gradient(MESH)
    slopes = gradient.vectors(gradient(drawn.start))[:, :, 0]
    g = conductivity(drawn.material[:, 0])[MESH.faces].mean(1)
    area = gradient.weight[::3]
    energy = (area * g * torch.einsum("fi,ij,fj->f", slopes, drawn.tensor, slopes)).sum()
    lost = -(mass * drawn.start * (rate - source(drawn.start))).sum()
    torch.testing.assert_close(lost, energy, rtol=1e-9, atol=0.0)


def test_a_trajectory_is_drawn_from_its_number_alone() -> None:
    one, again, other = draw(MESH, 0, 0), draw(MESH, 0, 0), draw(MESH, 0, 1)
    assert torch.equal(one.tensor, again.tensor)
    assert torch.equal(one.start, again.start)
    assert not torch.equal(one.tensor, other.tensor)
    for drawn in (one, other):
        low, middle, high = torch.linalg.eigvalsh(drawn.tensor).tolist()
        assert abs(middle - low) < 1e-12
        assert 3 <= high / low <= 12
        assert 0.015 <= (high * low) ** 0.5 <= 0.06
        assert drawn.start.min() >= 0
        assert drawn.start.max() <= 1
        assert drawn.material.min() > 0
        assert drawn.material.max() < 1


def test_noise_is_one_per_cent_and_the_field_keeps_moving() -> None:
    case = hard_case("bumpy", MESH, 1, seed=0)
    assert case.frames.shape == (1, FRAMES, MESH.num_nodes, 1)
    assert case.frames.dtype == torch.float32
    noise = (case.frames - case.clean).std(dim=(1, 2, 3)) / case.clean[:, 0].std(dim=(1, 2))
    # 201 × 162 draws: their deviation is known to 0.4 %.
    assert ((noise / NOISE - 1).abs() < 0.02).all()
    assert (case.clean[:, -1].std(dim=(1, 2)) > 0.3 * case.clean[:, 0].std(dim=(1, 2))).all()
    assert ((case.clean[:, -1] - case.clean[:, 4]).square().mean((1, 2)).sqrt() > 0.1).all()


def test_test_meshes_are_others_and_split_into_four() -> None:
    train, test = hard_meshes(None)
    assert not set(train) & {name.removesuffix("-fine") for name in test}
    for mesh in [*train.values(), *test.values()]:
        assert abs(mesh.area - 1) < 1e-9
    least = min(mesh.faces.shape[0] for mesh in test.values())
    assert least > 3 * max(mesh.faces.shape[0] for mesh in train.values())


def test_simulations_are_kept_and_damage_is_mended(tmp_path: Path) -> None:
    done: list[str] = []
    train, test = hard_cases(None, tmp_path, trajectories=1, small=True, done=done.append)
    assert done == [case.scene.name for case in [*train, *test]]
    assert all(case.frames.shape[1] == TRAIN_FRAMES for case in train)
    assert test[0].frames.shape[1] == FRAMES
    (tmp_path / "torus.safetensors").write_bytes(b"damaged")
    before = (tmp_path / "bumpy-1.safetensors").stat().st_mtime_ns
    again, _ = hard_cases(None, tmp_path, trajectories=1, small=True)
    assert (tmp_path / "bumpy-1.safetensors").stat().st_mtime_ns == before
    for one, other in zip(train, again, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert one.context is not None
        assert other.context is not None
        assert torch.equal(one.context, other.context)


def test_a_missing_mesh_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no mesh sphere"):
        hard_meshes(tmp_path)
