"""Motions of a domain and its fields with which a flow may commute: renumbering of the nodes, rigid motion."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of, state_map
from operators import Domain, DomainError, Graph, PointCloud, TriangleMesh


class Symmetry(ABC):
    """A group of motions g: a flow has it if f.on(g domain)(t, g x) = g f(t, x) for every g.

    `draw` gives a random element; `domain` and `field` let it act.
    """

    @abstractmethod
    def draw(self, domain: Domain, generator: torch.Generator) -> Any:
        """A random motion of the domain."""

    @abstractmethod
    def domain(self, motion: Any, domain: Any) -> Any:
        """The moved domain."""

    @abstractmethod
    def field(self, motion: Any, x: State) -> State:
        """The moved field, on the moved domain."""


@dataclass(frozen=True)
class Permutation(Symmetry):
    """Renumbering: node i of the moved domain is node p_i of the first; (P x)_i = x_{p_i}."""

    def draw(self, domain: Domain, generator: torch.Generator) -> Tensor:
        return torch.randperm(domain.num_nodes, generator=generator)

    def domain(self, motion: Tensor, domain: Any) -> Any:
        motion = _permutation(motion, domain.num_nodes)
        place = torch.empty_like(motion)
        place[motion] = torch.arange(len(motion))
        if isinstance(domain, Graph):
            return Graph(place[domain.edge_index], domain.num_nodes, domain.edge_weight)
        if isinstance(domain, TriangleMesh):
            return TriangleMesh(domain.vertices[motion], place[domain.faces])
        if isinstance(domain, PointCloud):
            return PointCloud(domain.points[motion])
        raise DomainError(f"the nodes of a {type(domain).__name__} cannot be renumbered: its numbering is its geometry")

    def field(self, motion: Tensor, x: State) -> State:
        return state_map(lambda part: part.index_select(-2, motion.to(part.device)), x)


@dataclass(frozen=True)
class RigidMotion(Symmetry):
    """Rotation and translation of the positions, p ↦ R p + s. Scalar fields keep their values, vector fields turn.

    Args:
        vectors: which parts of the state are vector fields (..., n, d) in the axes of the domain; the others are scalars.
        reflections: also R with determinant −1.
    """

    vectors: tuple[int, ...] = ()
    reflections: bool = False

    def draw(self, domain: Domain, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        points = _positions(domain)
        d = points.shape[1]
        rotation, upper = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        rotation = rotation * upper.diagonal().sign()
        if not self.reflections and float(torch.linalg.det(rotation)) < 0:
            rotation = torch.cat([-rotation[:1], rotation[1:]])
        size = float((points - points.mean(0)).abs().max().clamp(min=1e-30))
        return rotation, size * torch.randn(d, generator=generator, dtype=torch.float64)

    def domain(self, motion: tuple[Tensor, Tensor], domain: Any) -> Any:
        points = _positions(domain)
        moved = (points.double() @ motion[0].T + motion[1]).to(points.dtype)
        return dataclasses.replace(domain, **{"vertices" if isinstance(domain, TriangleMesh) else "points": moved})

    def field(self, motion: tuple[Tensor, Tensor], x: State) -> State:
        parts = [
            part @ motion[0].T.to(part.dtype) if k in self.vectors else part for k, part in enumerate(parts_of(x))
        ]
        return tuple(parts) if isinstance(x, tuple) else parts[0]


def _permutation(motion: Tensor, n: int) -> Tensor:
    if motion.shape != (n,) or not torch.equal(motion.sort().values, torch.arange(n)):
        raise ValueError(f"a permutation of {n} nodes holds each of 0 … {n - 1} once")
    return motion


def _positions(domain: Any) -> Tensor:
    if isinstance(domain, TriangleMesh):
        return domain.vertices
    if isinstance(domain, PointCloud):
        return domain.points
    raise DomainError(f"a {type(domain).__name__} has no positions to move")
