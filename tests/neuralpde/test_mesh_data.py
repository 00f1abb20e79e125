"""Cases are what the equations say, on the meshes that are there, from the cache that was written."""

import os
from pathlib import Path

import pytest
import torch

from neuralpde.files import RunFolderError, write_tensors
from neuralpde.heat_data import FRAMES, Truth, initial_fields, published_operator, simulate
from neuralpde.mesh_data import Part, cases, generated_meshes, made, make, mesh_digest, named_meshes, read_case
from neuralpde.mesh_equation import CotangentScene
from neuralpde.mesh_equation_cahn_hilliard import MeshCahnHilliard
from neuralpde.mesh_equation_heat import MeshHeat
from neuralpde.mesh_equation_wave import MeshWave
from neuralpde.mesh_manifest import Manifest
from operators import TriangleMesh, bumpy, icosphere

DATA = os.environ.get("NEURALPDE_DATA")


@pytest.fixture(scope="module")
def folder(surfaces, tmp_path_factory):
    """Two meshes under names of the paper, one as a substitute."""
    folder = tmp_path_factory.mktemp("named")
    surfaces["ball"].save(folder / "sphere.ply")
    surfaces["ring"].save(folder / "armadillo_sub.obj")
    return folder


@pytest.fixture
def part(surfaces):
    return Part(MeshHeat(), Truth.PUBLISHED, "sphere", surfaces["ball"], False, seed=0, conditions=2)


def test_cases_of_a_folder(folder, surfaces):
    said = []
    train, test = cases(MeshHeat(), Truth.PUBLISHED, folder, conditions=2, said=said.append)
    assert [case.scene.name for case in train] == ["sphere"]
    assert [case.scene.name for case in test] == ["armadillo_sub"]
    case = train[0]
    assert case.frames.shape == (2, FRAMES, 42, 1)
    assert case.frames.dtype == torch.float32
    assert case.clean is case.frames
    assert torch.equal(case.scene.mesh.vertices, surfaces["ball"].vertices.float())
    assert any("bunny_coarse, lucy, spider, woman (to train on)" in text for text in said)
    assert any("urn, spot_low, goathead (to test on)" in text for text in said)
    assert any(text.startswith("heat-published-sphere: 42 vertices") for text in said)


def test_test_meshes_start_from_other_numbers(surfaces):
    first, second = (Part(MeshWave(), Truth.SURFACE, "x", surfaces["ball"], test, seed=0, conditions=1) for test in (False, True))
    assert not torch.equal(first.simulate()[0].frames, second.simulate()[0].frames)


def test_heat_is_that_of_the_main_job():
    """The same surfaces, starting fields and scheme; where the paper has no time step, with that of its meshes as a rate."""
    train, test = cases(MeshHeat(), Truth.PUBLISHED, conditions=1)
    unseen = bumpy(icosphere(3, radius=2.0), 0.35, bumps=9, seed=2)
    for case, mesh, seed in ((train[0], bumpy(icosphere(3), 0.2), 0), (test[0], unseen, 1000)):
        laplacian = published_operator(mesh)
        start = initial_fields(mesh, Truth.PUBLISHED, 1, seed)
        assert torch.equal(case.frames, simulate(laplacian, case.scene.dt, start, Truth.PUBLISHED).float())
        assert case.scene.dt * float(laplacian.diagonal().mean()) == pytest.approx(0.025)


def test_generated_meshes_are_of_the_seed():
    train, test = generated_meshes(0)
    assert len(train) == 3
    assert len(test) == 2
    again, other = generated_meshes(0)[0], generated_meshes(1)[0]
    assert {name: mesh_digest(mesh) for name, mesh in train.items()} == {name: mesh_digest(mesh) for name, mesh in again.items()}
    assert mesh_digest(train["bumpy-sphere"]) != mesh_digest(other["bumpy-sphere"])


def test_missing_meshes(folder, tmp_path):
    with pytest.raises(RunFolderError, match="no folder"):
        named_meshes(MeshHeat(), tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="no mesh to train heat on: put one of sphere, bunny_coarse"):
        named_meshes(MeshHeat(), tmp_path)
    (tmp_path / "sphere.ply").write_bytes((folder / "sphere.ply").read_bytes())
    with pytest.raises(RunFolderError, match="no mesh to test heat on: put one of armadillo, urn"):
        named_meshes(MeshHeat(), tmp_path)
    with pytest.raises(RunFolderError, match="at least one starting field"):
        cases(MeshHeat(), Truth.PUBLISHED, folder, conditions=0)


def test_a_mesh_itself_comes_before_its_substitute(folder, tmp_path, surfaces):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    surfaces["unseen"].save(tmp_path / "armadillo.ply")
    _, test = named_meshes(MeshHeat(), tmp_path)
    assert list(test) == ["armadillo"]


def test_a_cache_is_read_and_mended(part, tmp_path):
    first = made(part, tmp_path)
    path = tmp_path / "heat-published-sphere.safetensors"
    content, stamp = path.read_bytes(), path.stat().st_mtime_ns
    again = made(part, tmp_path)
    assert path.stat().st_mtime_ns == stamp
    assert torch.equal(again.frames, first.frames)
    assert again.scene.dt == first.scene.dt
    assert torch.equal(again.scene.mesh.vertices, first.scene.mesh.vertices)
    path.write_bytes(content[: len(content) // 2])
    assert torch.equal(made(part, tmp_path).frames, first.frames)
    assert path.read_bytes() == content
    # One of other settings is made anew.
    made(Part(part.equation, part.truth, part.name, part.mesh, part.test, seed=1, conditions=2), tmp_path)
    assert path.read_bytes() != content


def test_listed_data_of_other_settings_stay(part, tmp_path):
    path = tmp_path / f"{part.stem}.safetensors"
    make(part, path)
    Manifest(tmp_path).record(path)
    content = path.read_bytes()
    with pytest.raises(RunFolderError, match="other settings"):
        made(Part(part.equation, part.truth, part.name, part.mesh, part.test, seed=1, conditions=2), tmp_path)
    assert path.read_bytes() == content
    # Damage is mended, and the list with it.
    path.write_bytes(content[:-4] + b"\0\0\0\1")
    made(part, tmp_path)
    assert path.read_bytes() == content
    assert Manifest(tmp_path).faults() == []
    # As when another version of the program made it.
    Manifest(tmp_path).write({path.name: {"sha256": "0" * 64}})
    made(part, tmp_path)
    assert Manifest(tmp_path).faults() == []


def test_reading_checks_the_sum(part, tmp_path):
    path = tmp_path / f"{part.stem}.safetensors"
    case = make(part, path)
    Manifest(tmp_path).record(path)
    assert torch.equal(read_case(path).frames, case.frames)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum"):
        read_case(path)


def test_foreign_files(part, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_case(tmp_path / "nothing.safetensors")
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"weights": torch.zeros(3)}, {"mesh": "x", "dt": 1.0, "truth": "surface", "equation": "heat"})
    with pytest.raises(RunFolderError, match="no case of MeshPDE"):
        read_case(path)
    points, faces = (torch.from_numpy(array) for array in part.mesh.arrays)
    tensors = {"vertices": points, "faces": faces, "frames": torch.zeros(1, 3, 42, 1)}
    write_tensors(path, tensors, {"mesh": "x", "dt": 1.0, "truth": "surface", "equation": "heat"})
    with pytest.raises(RunFolderError, match="frames of shape"):
        read_case(path)


def test_a_case_that_is_read_has_its_scene(surfaces, tmp_path):
    part = Part(MeshCahnHilliard(), Truth.PUBLISHED, "sphere", surfaces["ball"], False, 0, 1)
    make(part, tmp_path / "x.safetensors")
    assert isinstance(read_case(tmp_path / "x.safetensors").scene, CotangentScene)


def test_a_simulation_that_overflows_is_refused(surfaces):
    class Exploding(MeshHeat):
        def time_step(self, name, mesh, truth):
            return 1e6

    with pytest.raises(RunFolderError, match="left the numbers"):
        Part(Exploding(), Truth.PUBLISHED, "ball", surfaces["ball"], False, 0, 1).simulate()


def test_threads_are_given_back(part):
    before = torch.get_num_threads()
    part.simulate()
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not DATA or not (Path(DATA) / "meshes" / "spider.ply").exists(), reason="no spider.ply in NEURALPDE_DATA")
def test_a_real_mesh_that_is_no_manifold():
    train, test = named_meshes(MeshHeat(), Path(DATA) / "meshes")
    assert "spider" in train
    assert {"armadillo_sub", "spot_low", "goathead"} <= set(test)
    case = Part(MeshHeat(), Truth.PUBLISHED, "spider", train["spider"], False, 0, 1).simulate()[0]
    assert case.scene.dt == 3e-5
    assert bool(torch.isfinite(case.frames).all())


@pytest.mark.parametrize("equation", [MeshHeat(), MeshWave(), MeshCahnHilliard()])
def test_a_mesh_too_small_for_the_starting_fields(equation):
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    tetrahedron = TriangleMesh(corners, torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    with pytest.raises(RunFolderError, match="4 vertices"):
        Part(equation, Truth.SURFACE, "sphere", tetrahedron, False, 0).simulate()
