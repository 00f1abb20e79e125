"""Small graphs whose nodes have classes, in memory and as files in the published formats, for tests of node classification."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from neuralpde.node_data import NodeData
from neuralpde.node_splits import Split
from operators import DomainError, Graph, SparseOperator


def node_blocks(
    nodes: int = 120, classes: int = 3, features: int = 24, *, isolated: int = 2, degree: float = 6.0, seed: int = 0
) -> NodeData:
    """A stochastic block model: classes that prefer their own words and their own kind, four training nodes each.

    Args:
        nodes: all of them, node i of class i mod `classes`.
        features: binary words, a share of them for each class.
        isolated: the last so many nodes have no edges.
        degree: expected neighbours of a node, four fifths of them of its class.

    A linear classifier of the features alone is right for about half; neighbours tell much of the rest.

    Raises:
        DomainError: fewer than eight nodes a class.
    """
    if nodes < 8 * classes:
        raise DomainError(f"{nodes} nodes are too few for {classes} classes: take at least eight each")
    draw = np.random.default_rng(seed)
    labels = np.arange(nodes) % classes
    alike = labels[:, None] == labels
    chance = np.where(alike, 0.8 * degree * classes / nodes, 0.2 * degree * classes / (nodes * (classes - 1)))
    joined = np.triu(draw.random((nodes, nodes)) < chance, 1)
    joined[:, nodes - isolated :] = False
    one, other = np.nonzero(joined)
    index = torch.from_numpy(np.stack([np.concatenate([one, other]), np.concatenate([other, one])]).astype(np.int64))
    own = labels[:, None] == np.arange(features) % classes
    words = sp.csr_matrix((draw.random((nodes, features)) < np.where(own, 0.3, 0.15)).astype(np.float32))
    known, last = 4 * classes, nodes - nodes // 3
    order = torch.arange(nodes)
    split = Split.from_nodes(nodes, order[:known], order[known:last], order[last:])
    return NodeData("Blocks", Graph(index, nodes), SparseOperator.from_scipy(words), torch.from_numpy(labels), split)


def write_citations(data: NodeData, root: Path, name: str = "Cora") -> Path:
    """Write the eight files `ind.*` of Yang et al. (2016) to root/name/raw; the last third of the nodes are the test set.

    The published reader takes the next 500 nodes after the training ones for validation, so `data` must have at least
    training nodes + 500 + a test set.
    """
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    features, labels = _words(data), np.eye(data.classes, dtype=np.int32)[data.labels.numpy()]
    known, first = 4 * data.classes, data.nodes - data.nodes // 3
    neighbours: dict[int, list[int]] = {node: [] for node in range(data.nodes)}
    for source, target in data.graph.edge_index.T.tolist():
        neighbours[source].append(target)
    parts: dict[str, Any] = {
        "x": features[:known],
        "tx": features[first:],
        "allx": features[:first],
        "y": labels[:known],
        "ty": labels[first:],
        "ally": labels[:first],
        "graph": neighbours,
    }
    for part, content in parts.items():
        (raw / f"ind.{name.lower()}.{part}").write_bytes(pickle.dumps(content))
    (raw / f"ind.{name.lower()}.test.index").write_text("\n".join(map(str, range(first, data.nodes))) + "\n", encoding="ascii")
    return raw


def write_arrays(data: NodeData, root: Path, folder: str, file: str) -> Path:
    """Write the one .npz file of Shchur et al. (2018) to root/folder/raw."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    source, target = data.graph.edge_index.numpy()
    edges = sp.csr_matrix((np.ones(len(source), np.float32), (source, target)), (data.nodes, data.nodes))
    arrays: dict[str, Any] = {"labels": data.labels.numpy()}
    for part, matrix in (("attr", _words(data)), ("adj", edges)):
        arrays |= {f"{part}_data": matrix.data, f"{part}_indices": matrix.indices, f"{part}_indptr": matrix.indptr}
        arrays |= {f"{part}_shape": np.array(matrix.shape)}
    np.savez(raw / file, **arrays)
    return raw


def write_benchmark(data: NodeData, root: Path) -> Path:
    """Write the tables of ogbn-arxiv of the Open Graph Benchmark (Hu et al. 2020) to root/ogbn_arxiv, with the data's split."""
    home = root / "ogbn_arxiv"
    (home / "raw").mkdir(parents=True)
    (home / "split" / "time").mkdir(parents=True)
    source, target = data.graph.edge_index.numpy()
    tables: dict[str, Any] = {
        "raw/edge": data.graph.edge_index.T.numpy()[source < target],
        "raw/node-feat": _words(data).toarray(),
        "raw/node-label": data.labels.numpy(),
    }
    if data.split is not None:
        parts = {"train": data.split.train, "valid": data.split.validation, "test": data.split.test}
        tables |= {f"split/time/{name}": mask.nonzero().numpy() for name, mask in parts.items()}
    for name, table in tables.items():
        np.savetxt(home / f"{name}.csv.gz", table, fmt="%g", delimiter=",")
    return home


def _words(data: NodeData) -> Any:
    if isinstance(data.features, SparseOperator):
        return sp.csr_matrix(data.features.to_scipy().astype(np.float32))
    return sp.csr_matrix(data.features.numpy())
