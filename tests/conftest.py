"""One Hypothesis profile, one thread, and the real meshes."""

import os
import warnings
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, register_random, settings

from operators import TriangleMesh, load_mesh

with warnings.catch_warnings():
    # PyG 2.8 compiles with torch.jit.script while it is imported, which torch 2.13 deprecates: not ours to mend.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric  # noqa: F401

    # The first dual number of a process loads decompositions that torch compiles the same way.
    with torch.autograd.forward_ad.dual_level():
        torch.autograd.forward_ad.make_dual(torch.ones(1), torch.ones(1))

DATA = Path(os.environ.get("NEURALPDE_DATA") or Path(__file__).parents[2] / "shared" / "data")
MESHES = sorted((DATA / "meshes").glob("*.ply"))

settings.register_profile(
    "laws",
    deadline=None,
    derandomize=True,
    max_examples=30,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "laws"))
torch.set_num_threads(1)


class _TorchGenerator:
    """Torch's generator in the shape of `random.Random`, so that Hypothesis seeds it for every example."""

    def seed(self, value: int) -> None:
        torch.manual_seed(value)

    def getstate(self) -> torch.Tensor:
        return torch.get_rng_state()

    def setstate(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


_torch_generator = _TorchGenerator()  # Hypothesis keeps only a weak reference.
register_random(_torch_generator)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@lru_cache(maxsize=2)
def _load(path: Path) -> TriangleMesh:
    return load_mesh(path, clean=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `real_mesh` argument runs over every mesh in the data folder, or is skipped with the reason."""
    if "real_mesh" in metafunc.fixturenames:
        absent = pytest.mark.skip(reason=f"no meshes in {DATA / 'meshes'}: set NEURALPDE_DATA to the data folder")
        values = MESHES or [pytest.param(None, marks=absent)]
        metafunc.parametrize("real_mesh", values, indirect=True, ids=lambda path: path.stem if path else "absent")


@pytest.fixture
def real_mesh(request: pytest.FixtureRequest) -> TriangleMesh:
    """A published surface, cleaned."""
    return _load(request.param)
