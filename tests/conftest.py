"""One Hypothesis profile, one thread, and the real meshes and graphs."""

import os
import pickle
import warnings
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, register_random, settings

from operators import Graph, TriangleMesh, load_mesh

with warnings.catch_warnings():
    # PyG 2.8 compiles with torch.jit.script while it is imported, which torch 2.13 deprecates: not ours to mend.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric  # noqa: F401

    # The first dual number of a process loads decompositions that torch compiles the same way.
    with torch.autograd.forward_ad.dual_level():
        torch.autograd.forward_ad.make_dual(torch.ones(1), torch.ones(1))

# So that a broken law shows the numbers that broke it.
pytest.register_assert_rewrite("operator_laws")

DATA = Path(os.environ.get("NEURALPDE_DATA") or Path(__file__).parents[2] / "shared" / "data")
MESHES = sorted((DATA / "meshes").glob("*.ply"))
GRAPHS = sorted([*DATA.glob("graphs/*/raw/ind.*.graph"), *DATA.glob("graphs/*/raw/*.npz")])

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


class _PlainUnpickler(pickle.Unpickler):
    """Lists in dictionaries, and no code."""

    def find_class(self, module: str, name: str) -> type:
        return {("collections", "defaultdict"): defaultdict, ("__builtin__", "list"): list}[module, name]


@lru_cache(maxsize=2)
def _load_graph(path: Path) -> Graph:
    """Planetoid's lists of neighbours, or the CSR arrays of the gnn-benchmark; directed ones made undirected."""
    if path.suffix == ".npz":
        with np.load(path) as stored:
            n = int(stored["adj_shape"][0])
            entries = sp.csr_array((stored["adj_data"], stored["adj_indices"], stored["adj_indptr"]), shape=(n, n)).tocoo()
            pairs = np.stack(entries.coords).astype(np.int64)
    else:
        with path.open("rb") as file:
            lists = _PlainUnpickler(file, encoding="latin1").load()
        n, pairs = len(lists), np.array([(i, j) for i, ends in lists.items() for j in ends], dtype=np.int64).T
    graph = Graph(torch.from_numpy(pairs), n, torch.ones(pairs.shape[1], dtype=torch.float64))
    return graph if graph.report().undirected else graph.undirected()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with a `real_mesh` or `real_graph` argument run over all in the data folder, or are skipped with the reason."""
    for argument, folder, found in (("real_mesh", "meshes", MESHES), ("real_graph", "graphs", GRAPHS)):
        if argument in metafunc.fixturenames:
            absent = pytest.mark.skip(reason=f"no {folder} in {DATA / folder}: set NEURALPDE_DATA to the data folder")
            values = found or [pytest.param(None, marks=absent)]
            metafunc.parametrize(argument, values, indirect=True, ids=lambda path: path.stem if path else "absent")


@pytest.fixture
def real_mesh(request: pytest.FixtureRequest) -> TriangleMesh:
    """A published surface, cleaned."""
    return _load(request.param)


@pytest.fixture
def real_graph(request: pytest.FixtureRequest) -> Graph:
    """A published graph, undirected, with unit weights, or half ones where it was directed."""
    return _load_graph(request.param)
