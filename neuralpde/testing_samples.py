"""One small plain domain of each kind, to see what a builder makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from neuralpde.testing_cases import domain_kind
from neuralpde.testing_search import name_of
from operators import Graph, Grid, Laplacian, PointCloud, TriangleMesh, combinatorial_laplacian, grid, icosphere


def sample_graph() -> Graph:
    """A path of four nodes and one isolated node."""
    ends = torch.tensor([[0, 1, 2], [1, 2, 3]])
    return Graph(torch.cat([ends, ends.flip(0)], 1), 5, torch.ones(6, dtype=torch.float64))


def sample_points() -> PointCloud:
    """Twelve points of an icosahedron, and some inside."""
    points = icosphere(0).vertices
    return PointCloud(torch.cat([points, points[:5] * torch.tensor([[0.5, 0.3, 0.4]], dtype=torch.float64)]))


SAMPLES: dict[type, tuple[Callable[[], Any], ...]] = {
    Graph: (sample_graph,),
    TriangleMesh: (lambda: icosphere(1), lambda: grid(3, 3)),
    PointCloud: (sample_points,),
    Grid: (lambda: Grid((3, 4)),),
    Laplacian: (lambda: combinatorial_laplacian(sample_graph()),),
}
"""By kind; of surfaces a closed one and a planar one."""


def sample(build: Callable[..., Any]) -> Any:
    """A small domain that the builder takes: of the annotated kind, or of the first kind that does not make it raise.

    Raises:
        TypeError: the builder takes none, and why not.
    """
    kind = domain_kind(build)
    reasons = []
    for candidate in [kind] if kind is not None else list(SAMPLES):
        domain = SAMPLES[candidate][0]()
        try:
            build(domain)
        except Exception as error:
            reasons.append(f"{candidate.__name__}: {type(error).__name__}: {error}")
        else:
            return domain
    raise TypeError(f"{name_of(build)} takes no domain. " + "; ".join(reasons))
