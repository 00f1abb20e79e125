"""Small surfaces on disk, and one tiny run of the main job that several files look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from neuralpde import TriangleMesh, bumpy, icosphere, torus
from neuralpde.cli import main


@pytest.fixture(scope="session")
def surfaces() -> dict[str, TriangleMesh]:
    """Three small surfaces."""
    return {
        "ball": bumpy(icosphere(1), 0.2),
        "ring": bumpy(torus(10, 6), 0.1),
        "unseen": bumpy(icosphere(1), 0.3, seed=5),
    }


@pytest.fixture(scope="session")
def mesh_files(surfaces: dict[str, TriangleMesh], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The surfaces as files."""
    folder = tmp_path_factory.mktemp("meshes")
    paths = {name: folder / f"{name}.ply" for name in surfaces}
    for name, path in paths.items():
        surfaces[name].save(path)
    return paths


@pytest.fixture(scope="session")
def tiny(mesh_files: dict[str, Path]) -> list[str]:
    """The arguments of a run of seconds."""
    names = {name: str(path) for name, path in mesh_files.items()}
    meshes = ["--train-mesh", names["ball"], names["ring"], "--test-mesh", names["unseen"]]
    return ["run", "heat", *meshes, "--steps", "8", "--batch", "2"]


@pytest.fixture(scope="session")
def finished(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nothing interrupted; copy it before changing it."""
    folder = tmp_path_factory.mktemp("heat")
    state = torch.get_rng_state()
    assert main([*tiny, "--out", str(folder / "run"), "--json", str(folder / "rows.json")]) == 0
    torch.set_rng_state(state)
    return folder / "run"


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """The main job flushes denormal numbers; other tests look at them."""
    yield
    torch.set_flush_denormal(False)
