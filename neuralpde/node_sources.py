"""Where the published graphs come from: local files in PyG's or OGB's layout, or their download."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
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
    """The data set from `root`, in PyG's or OGB's layout; what is there is only read, what is not is downloaded by PyG or OGB.

    Raises:
        DomainError: files that are damaged. RunFolderError: some files are missing, or nothing is there and no network.
    """
    return SOURCES[dataset].load(root)


@dataclass(frozen=True)
class RawFiles:
    """The published files `root/folder/file`; `fetch(root)` downloads them, `read` is given their paths.

    The folder's name is found whatever its capitals. The classes of PyG and OGB that download also write a folder `processed`
    (OGB's cannot read its own since torch 2.6), so the files are read without them.
    """

    folder: str
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Graph, Features, Tensor, Split | None]]
    fetch: Callable[[str], object]

    def load(self, root: Path) -> NodeData:
        """The data, with its published split if it has one."""
        failure: Exception | None = None
        if not any(path.is_file() for path in self._paths(root)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.fetch(str(root))
            except Exception as error:  # Whatever the network, fsspec and the file system raise.
                failure = error
        paths = self._paths(root)
        missing = [path for path in paths if not path.is_file()]
        if missing and failure is not None:
            raise RunFolderError(
                f"{self.folder} is not in {root}, and downloading it failed ({type(failure).__name__}: {failure}): "
                f"name the folder that holds {self.folder}/{self.files[0]} with --data"
            ) from failure
        home = paths[0].parent
        if missing:
            names = ", ".join(path.name for path in missing)
            raise RunFolderError(f"{home} lacks {names}: add it, or delete the folder to have all downloaded again")
        try:
            graph, features, labels, split = self.read(paths)
        except Exception as error:  # Unpickling what is damaged may raise anything.
            what = f"{type(error).__name__}: {error}"
            raise DomainError(f"{home} cannot be read ({what}): its files are damaged or of another data set") from error
        return NodeData(self.folder, graph, features, labels, split)

    def _paths(self, root: Path) -> list[Path]:
        folders = [path for path in sorted(root.iterdir()) if path.name.lower() == self.folder.lower()] if root.is_dir() else []
        return [(folders[0] if folders else root / self.folder) / file for file in self.files]


def read_citations(paths: Sequence[Path]) -> tuple[Graph, Features, Tensor, Split]:
    """The files `ind.*` of Yang et al. (2016), with their fixed split; pickles, so take them from where you trust."""
    from torch_geometric.io import read_planetoid_data

    with warnings.catch_warnings():
        # Files pickled in 2016 speak to NumPy in an accent that it warns about.
        warnings.simplefilter("ignore")
        data = read_planetoid_data(str(paths[0].parent), paths[0].name.split(".")[1])
    split = Split(data.train_mask, data.val_mask, data.test_mask)
    return _undirected(data.edge_index, len(data.y)), _features(sp.csr_matrix(data.x.numpy())), data.y, split


def read_arrays(paths: Sequence[Path]) -> tuple[Graph, Features, Tensor, None]:
    """The one .npz file of Shchur et al. (2018); features are made binary, as in PyG."""
    with np.load(paths[0]) as held:
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


def read_benchmark(paths: Sequence[Path]) -> tuple[Graph, Features, Tensor, Split]:
    """The tables of a node property of the Open Graph Benchmark (Hu et al. 2020): edges, features, labels, and the three sets."""
    edges, labels, *sets = (torch.from_numpy(_table(path, np.int64)) for path in (paths[0], *paths[2:]))
    features = torch.from_numpy(_table(paths[1], np.float32))
    n = len(features)
    return _undirected(edges.T, n), features, labels[:, 0], Split.from_nodes(n, *(nodes[:, 0] for nodes in sets))


def _table(path: Path, dtype: type[np.generic]) -> Any:
    return np.loadtxt(path, dtype, delimiter=",", ndmin=2)


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
    return RawFiles(name, tuple(f"raw/ind.{name.lower()}.{part}" for part in parts), read_citations, fetch)


def _purchases(name: str) -> RawFiles:
    def fetch(root: str) -> object:
        from torch_geometric.datasets import Amazon

        return Amazon(root, name)

    return RawFiles(name, (f"raw/amazon_electronics_{name.lower()}.npz",), read_arrays, fetch)


def _authors() -> RawFiles:
    def fetch(root: str) -> object:
        from torch_geometric.datasets import Coauthor

        return Coauthor(root, "CS")

    return RawFiles("CS", ("raw/ms_academic_cs.npz",), read_arrays, fetch)


def _benchmark(name: str) -> RawFiles:
    def fetch(root: str) -> object:
        try:
            from ogb.nodeproppred import PygNodePropPredDataset  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise ImportError("the package ogb, which downloads it, is not installed: pip install ogb") from error
        return PygNodePropPredDataset(name=name, root=root)

    tables = ("raw/edge", "raw/node-feat", "raw/node-label", "split/time/train", "split/time/valid", "split/time/test")
    return RawFiles(name.replace("-", "_"), tuple(f"{table}.csv.gz" for table in tables), read_benchmark, fetch)


SOURCES: dict[Dataset, RawFiles] = {
    Dataset.CORA: _citations("Cora"),
    Dataset.CITESEER: _citations("CiteSeer"),
    Dataset.PUBMED: _citations("PubMed"),
    Dataset.CS: _authors(),
    Dataset.COMPUTERS: _purchases("Computers"),
    Dataset.PHOTO: _purchases("Photo"),
    Dataset.OGBN_ARXIV: _benchmark("ogbn-arxiv"),
}
