"""Where the published graphs come from: local files in PyG's layout, PyG's download, or OGB's package."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.node_data import Dataset, Features, NodeData
from neuralpde.node_splits import Split
from operators import DomainError, Graph, SparseOperator


def load_nodes(dataset: Dataset, root: Path) -> NodeData:
    """The data set from `root`, in the layout of PyG; what is there is only read, what is not is downloaded by PyG or OGB.

    Raises:
        DomainError: files that are damaged. RunFolderError: some files are missing, or nothing is there and no network.
    """
    return SOURCES[dataset].load(root)


class Source(ABC):
    """Where a data set comes from."""

    @abstractmethod
    def load(self, root: Path) -> NodeData:
        """The data, with its published split if it has one."""


@dataclass(frozen=True)
class RawFiles(Source):
    """`root/folder/raw/file` for each of the files; `fetch(root)` downloads them.

    The folder's name is found whatever its capitals. PyG's data set classes also write a folder `processed`, so they are left to
    download, and the files are read without them.
    """

    folder: str
    files: tuple[str, ...]
    read: Callable[[Path], tuple[Graph, Features, Tensor, Split | None]]
    fetch: Callable[[str], object]

    def load(self, root: Path) -> NodeData:
        raw = self._raw(root)
        if not raw.is_dir():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.fetch(str(root))
            except Exception as error:  # Whatever the network, fsspec and the file system raise.
                raise RunFolderError(
                    f"{self.folder} is not in {root}, and downloading it failed ({type(error).__name__}: {error}): "
                    f"name the folder that holds {self.folder}/raw with --data"
                ) from error
            raw = self._raw(root)
        missing = [name for name in self.files if not (raw / name).is_file()]
        if missing:
            raise RunFolderError(f"{raw} lacks {', '.join(missing)}: add it, or delete the folder to have all downloaded again")
        try:
            graph, features, labels, split = self.read(raw)
        except Exception as error:  # Unpickling what is damaged may raise anything.
            what = f"{type(error).__name__}: {error}"
            raise DomainError(f"{raw} cannot be read ({what}): its files are damaged or of another data set") from error
        return NodeData(self.folder, graph, features, labels, split)

    def _raw(self, root: Path) -> Path:
        folders = [path for path in sorted(root.iterdir()) if path.name.lower() == self.folder.lower()] if root.is_dir() else []
        return (folders[0] if folders else root / self.folder) / "raw"


def read_citations(raw: Path) -> tuple[Graph, Features, Tensor, Split]:
    """The files `ind.*` of Yang et al. (2016), with their fixed split."""
    from torch_geometric.io import read_planetoid_data

    name = next(raw.glob("ind.*.graph")).name.split(".")[1]
    with warnings.catch_warnings():
        # Files pickled in 2016 speak to NumPy in an accent that it warns about.
        warnings.simplefilter("ignore")
        data = read_planetoid_data(str(raw), name)
    split = Split(data.train_mask, data.val_mask, data.test_mask)
    return _undirected(data.edge_index, len(data.y)), _features(sp.csr_matrix(data.x.numpy())), data.y, split


def read_arrays(raw: Path) -> tuple[Graph, Features, Tensor, None]:
    """The one .npz file of Shchur et al. (2018); features are made binary, as in PyG."""
    with np.load(next(raw.glob("*.npz"))) as held:
        features, edges = (
            sp.csr_matrix((held[f"{part}_data"], held[f"{part}_indices"], held[f"{part}_indptr"]), (int(rows), int(columns)))
            for part in ("attr", "adj")
            for rows, columns in [held[f"{part}_shape"]]
        )
        labels = torch.from_numpy(held["labels"].astype(np.int64))
    for matrix in (features, edges):
        matrix.check_format(full_check=True)
    features.data = np.where(features.data > 0, 1, features.data)
    entries = sp.coo_matrix(edges)
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return _undirected(index, edges.shape[0]), _features(features), labels, None


@dataclass(frozen=True)
class OpenGraphBenchmark(Source):
    """A node property of the Open Graph Benchmark (Hu et al. 2020), through its own package."""

    name: str

    def load(self, root: Path) -> NodeData:
        try:
            from ogb.nodeproppred import PygNodePropPredDataset  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise RunFolderError(f"{self.name} is read by the package ogb, which is not installed: pip install ogb") from error
        given: Any = PygNodePropPredDataset(name=self.name, root=str(root))
        data, split = given[0], given.get_idx_split()
        labels = data.y.squeeze(1)
        parts = (split["train"], split["valid"], split["test"])
        graph = _undirected(data.edge_index, len(labels))
        return NodeData(self.name, graph, data.x, labels, Split.from_nodes(len(labels), *parts))


def _undirected(index: Tensor, nodes: int) -> Graph:
    """Each edge once in both directions, no self-loops."""
    index = index[:, index[0] != index[1]]
    key = torch.cat([index[0] * nodes + index[1], index[1] * nodes + index[0]])
    key = torch.unique(key)
    return Graph(torch.stack([key // nodes, key % nodes]), nodes)


def _features(matrix: Any) -> Features:
    """Sparse where that is faster."""
    rows, columns = matrix.shape
    if matrix.nnz > 0.1 * rows * columns:
        return torch.from_numpy(matrix.toarray().astype(np.float32))
    return SparseOperator.from_scipy(matrix, torch.float32)


def _citations(name: str) -> RawFiles:
    def fetch(root: str) -> object:
        from torch_geometric.datasets import Planetoid

        return Planetoid(root, name)

    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    return RawFiles(name, tuple(f"ind.{name.lower()}.{part}" for part in parts), read_citations, fetch)


def _purchases(name: str) -> RawFiles:
    def fetch(root: str) -> object:
        from torch_geometric.datasets import Amazon

        return Amazon(root, name)

    return RawFiles(name, (f"amazon_electronics_{name.lower()}.npz",), read_arrays, fetch)


def _authors() -> RawFiles:
    def fetch(root: str) -> object:
        from torch_geometric.datasets import Coauthor

        return Coauthor(root, "CS")

    return RawFiles("CS", ("ms_academic_cs.npz",), read_arrays, fetch)


SOURCES: dict[Dataset, Source] = {
    Dataset.CORA: _citations("Cora"),
    Dataset.CITESEER: _citations("CiteSeer"),
    Dataset.PUBMED: _citations("PubMed"),
    Dataset.CS: _authors(),
    Dataset.COMPUTERS: _purchases("Computers"),
    Dataset.PHOTO: _purchases("Photo"),
    Dataset.OGBN_ARXIV: OpenGraphBenchmark("ogbn-arxiv"),
}
