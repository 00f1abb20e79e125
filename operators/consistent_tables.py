"""Tables of the neighbours of scattered points: the nearest, or those some steps away in a graph, and more if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from operators.checks import DomainError
from operators.domains import Graph, PointCloud
from operators.stencils import LARGEST_GROWTH, NeighbourSearch, check_count

# A graph's neighbourhoods grow by up to so many hops.
MORE_HOPS = 2
# Pairs of a node and a neighbour, padding among them: what neighbourhoods of a few gigabytes hold.
MOST_PAIRS = 2**25

Table = Callable[[Tensor], Tensor]
"""From nodes (b,) to their neighbours (b, k), padded with −1."""


def nearest_tables(cloud: PointCloud, count: int | None, least: int) -> Iterator[Table]:
    """The nearest `count` other points, twice `least` if None, then twice as many, up to the largest growth."""
    size = check_count(count, cloud.num_nodes, least)
    limit = min(cloud.num_nodes - 1, LARGEST_GROWTH * size)
    search = NeighbourSearch(cloud)

    def nearest(nodes: Tensor) -> Tensor:
        check_pairs(len(nodes), size)
        return search.nearest(nodes, size).neighbours

    while True:
        yield nearest
        if size == limit:
            return
        size = min(2 * size, limit)


def graph_tables(graph: Graph, n: int, hops: int) -> Iterator[Table]:
    """What leads to a node in at most `hops` steps, then in one and two more."""
    if graph.nodes != n:
        raise DomainError(f"the graph has {graph.nodes} nodes, the cloud {n}: one node for each point")
    source, target = graph.edge_index.cpu().numpy()
    step = sp.csr_array((np.ones(len(source)), (target, source)), shape=(n, n)) + sp.eye_array(n, format="csr")
    reach = sp.eye_array(n, format="csr")

    def reached(nodes: Tensor) -> Tensor:
        return _rows(reach, nodes.cpu().numpy()).to(nodes.device)

    degree = np.asarray(step.sum(axis=1)).reshape(-1)
    for hop in range(1, hops + MORE_HOPS + 1):
        # Bounded before the product, whose memory is the danger.
        bound = np.minimum(reach @ degree, n)
        if bound.sum() > MOST_PAIRS:
            check_pairs(n, int(bound.max()))
        reach = (reach @ step).sign().tocsr()
        if hop >= hops:
            yield reached


def check_pairs(nodes: int, widest: int) -> None:
    """Raise before tables of so many nodes, with so many neighbours at most, take the memory of the machine."""
    if nodes * widest > MOST_PAIRS:
        raise DomainError(
            f"{nodes} nodes with up to {widest} neighbours each are {nodes * widest} pairs, over the limit of {MOST_PAIRS}: "
            "ask for fewer neighbours or hops, or join with cloud.knn_graph(k), in which no node is a hub"
        )


def _rows(reach: sp.csr_array, own: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """The columns of these rows, without the diagonal."""
    found = reach[own].tocoo()
    row, column = (np.asarray(index, dtype=np.int64) for index in found.coords)
    keep = column != own[row]
    row, column = row[keep], column[keep]
    by_row = np.argsort(row, kind="stable")
    row, column = row[by_row], column[by_row]
    count = np.bincount(row, minlength=len(own))
    check_pairs(len(own), int(count.max(initial=0)))
    table = np.full((len(own), max(int(count.max(initial=0)), 1)), -1, dtype=np.int64)
    table[row, np.arange(len(row)) - (np.cumsum(count) - count)[row]] = column
    return torch.from_numpy(table)
