"""Where the nodes of a graph are: positional encodings, each a function of the graph, and their cache."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from operators.cache import Cache
from operators.checks import DomainError, is_integer
from operators.domains import Graph
from operators.laplacian import Laplacian, symmetric_laplacian
from operators.page_rank import page_rank, sparse_page_rank
from operators.spectrum import eigenpairs

# Raise it when an encoding of ours would come out different.
VERSION = 1
# What dense positions may occupy.
MOST_BYTES = 8 * 2**30


def eigenvector_encoding(laplacian: Laplacian, k: int, *, skip: int = 1) -> Tensor:
    """The eigenvectors of the k smallest eigenvalues after the first `skip`, L v = λ v, as positions (n, k).

    Each is of unit length in L's inner product, with its first entry of at least 0.9 of the largest magnitude positive. That
    fixes the sign of a simple eigenvalue's vector, up to a tie of such entries. Within the space of a repeated eigenvalue, as
    symmetric graphs have, the basis is arbitrary: the same in every run, but not the same after the nodes are renumbered.
    Use k that ends between two distinct eigenvalues, and features that do not depend on the basis. Positions have no gradient in
    the weights of the graph.

    Args:
        laplacian: real; that of a graph, a mesh or a point cloud.
        k: the number of dimensions.
        skip: how many of the smoothest to leave out: the constant, by default. A graph of m parts has m vectors with λ = 0,
            which tell the parts apart; `skip` counts them one by one.

    Raises:
        DomainError: k + skip out of range, or a complex Laplacian.
        ConvergenceError: see `eigenpairs`.

    Source: M. Belkin, P. Niyogi, Laplacian eigenmaps, Neural Computation 2003.
    """
    n = laplacian.shape[0]
    if not is_integer(skip) or skip < 0:
        raise DomainError(f"skip must be an integer of at least 0, not {skip!r}")
    if not is_integer(k) or not 1 <= k <= n - skip:
        raise DomainError(f"k must be an integer from 1 to {n - skip}, of {n} eigenvectors less the {skip} skipped, not {k!r}")
    if laplacian.dtype.is_complex:
        raise DomainError("positions are real: take the Laplacian of graph.undirected() instead of a complex one")
    return eigenpairs(laplacian, k + skip).vectors[:, skip:]


@dataclass(frozen=True)
class Eigenvectors:
    """`eigenvector_encoding` of a graph's Laplacian: Eigenvectors(k)(graph) gives (n, k).

    Args:
        k: the number of dimensions.
        skip: how many of the smoothest to leave out.
        laplacian: the function of a graph that gives its Laplacian.
    """

    k: int
    skip: int = 1
    laplacian: Callable[[Graph], Laplacian] = symmetric_laplacian

    def __call__(self, graph: Graph) -> Tensor:
        """(n, k). Raises DomainError: k out of range, or a directed graph."""
        return eigenvector_encoding(self.laplacian(graph), self.k, skip=self.skip)


@dataclass(frozen=True)
class PageRank:
    """The rows of personalised PageRank as positions: PageRank()(graph) gives (n, n).

    Args:
        restart: α in [1e-6, 1].
        tolerance: None for the exact matrix; otherwise it is pushed, see `sparse_page_rank`, and what it leaves out is zero.
        progress: whether a bar shows on standard error. It takes no part in comparisons.

    Good values: the defaults up to 9,000 nodes, `tolerance=1e-4` from there to some 30,000; beyond, n × n positions no longer
    fit: use `DeepWalk`, or rewire by `sparse_page_rank` itself.
    """

    restart: float = 0.05
    tolerance: float | None = None
    progress: bool = field(default=True, compare=False)

    def __call__(self, graph: Graph) -> Tensor:
        """(n, n). Raises DomainError: see `page_rank`; and beyond 8 GiB."""
        if self.tolerance is None:
            return page_rank(graph, self.restart)
        size = graph.nodes**2 * graph.edge_weight.element_size()
        if size > MOST_BYTES:
            raise DomainError(
                f"PageRank positions of {graph.nodes:,} nodes are n × n and need {size / 2**30:.0f} GiB, over the 8 GiB allowed: "
                "use DeepWalk(64), or sparse_page_rank(graph) as it is"
            )
        rank = sparse_page_rank(graph, self.restart, self.tolerance, progress=self.progress)
        return rank.values.new_zeros(rank.shape).index_put((rank.pattern.row, rank.pattern.col), rank.values)


class Cached:
    """An encoding that is computed once for each graph and setting, and kept on disk.

    The address is a hash of the graph's nodes, edges (in their order) and weights, and of every setting of the encoding; see
    `Cache`. An entry is written whole or not at all; one that was damaged, or is no entry, is computed anew.

    Args:
        encoding: a frozen dataclass whose call takes a graph and gives a tensor, such as `DeepWalk(64)`. A field that takes
            no part in comparisons, such as `progress`, has no part in the address.
        folder: of the cache, or a `Cache`.
        version: raise it when an encoding of your own changes.

    `Cached(DeepWalk(64), "encodings")(graph)` gives (n, d) on the graph's device, without gradient.

    Raises:
        DomainError: an encoding whose settings cannot be read or hashed, or a result that does not fit the graph.
    """

    def __init__(self, encoding: Callable[[Graph], Tensor], folder: str | os.PathLike[str] | Cache, *, version: int = 1) -> None:
        self.encoding: Callable[[Graph], Tensor] = encoding
        self.version = version
        if not dataclasses.is_dataclass(encoding) or isinstance(encoding, type):
            raise DomainError(
                f"the settings of {encoding!r} cannot be read, so the cache could not tell two of them apart: "
                "give an object of a dataclass, such as DeepWalk(64)"
            )
        self.cache: Cache = folder if isinstance(folder, Cache) else Cache(folder)

    def __call__(self, graph: Graph) -> Tensor:
        """The encoding of this graph, (n, d)."""
        kind = f"{type(self.encoding).__module__}.{type(self.encoding).__qualname__}"
        read: Any = self.encoding
        settings = {f.name: _named(getattr(read, f.name), f.name) for f in dataclasses.fields(read) if f.compare}
        try:
            self.cache.key(kind, settings)
        except (TypeError, ValueError) as error:
            raise DomainError(f"the settings of {self.encoding!r} cannot be hashed: {error}") from None
        inputs = {
            "encoding": kind,
            "version": self.version,
            "settings": settings,
            "nodes": graph.nodes,
            "edge_index": graph.edge_index,
            "edge_weight": graph.edge_weight.detach(),
        }

        def compute() -> dict[str, Tensor]:
            return {"positions": self._fitting(self.encoding(graph).detach(), graph)}

        found = self.cache.get(type(self.encoding).__name__, inputs, compute, version=VERSION)
        return self._fitting(found["positions"], graph).to(graph.device)

    def _fitting(self, positions: Tensor, graph: Graph) -> Tensor:
        if positions.ndim != 2 or positions.shape[0] != graph.nodes:
            raise DomainError(
                f"{type(self.encoding).__name__} gave positions of shape {tuple(positions.shape)} for {graph.nodes} nodes: "
                f"an encoding gives one row a node, ({graph.nodes}, d)"
            )
        return positions

    def __repr__(self) -> str:
        return f"Cached({self.encoding!r}, {str(self.cache.folder)!r})"


def _named(value: Any, name: str) -> Any:
    """A setting as the cache can hash it: a function of ours by its name."""
    if not callable(value) or isinstance(value, Tensor):
        return value
    full = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '<object>')}"
    # A method also depends on its object, which the name does not tell.
    if not full.startswith("operators.") or "<" in full or getattr(value, "__self__", None) is not None:
        raise DomainError(
            f"the setting {name} is {full}, whose content the cache cannot see: use a function of operators, or no cache"
        )
    return full
