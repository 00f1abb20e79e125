"""Domains of different sizes side by side as one, so that one operator and one solve serve a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from operators.checks import DomainError, FieldError, as_field
from operators.domains import Domain, Graph, PointCloud, TriangleMesh
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator

D = TypeVar("D", bound=Domain)
E = TypeVar("E", bound=Domain)


@dataclass(frozen=True, eq=False)
class Batch(Generic[D]):
    """Several domains of one kind, and their disjoint union.

    An operator built on `union` acts on every member by itself, on fields (..., N, c) with N = Σ nᵢ.
    """

    members: tuple[D, ...]
    union: D

    @cached_property
    def pointers(self) -> Tensor:
        """Where each member's nodes begin, and N, (k + 1,): member i holds pointers[i]:pointers[i + 1]."""
        return torch.tensor([0, *self.sizes], device=self.union.device).cumsum(0)

    @property
    def sizes(self) -> list[int]:
        """The number of nodes of each member."""
        return [member.num_nodes for member in self.members]

    @property
    def member_of_node(self) -> Tensor:
        """The member that every node of the union belongs to, (N,): PyG's `batch`."""
        return torch.repeat_interleave(self.pointers.diff())

    def split(self, x: Tensor) -> list[Tensor]:
        """The members' parts of a field on the union, as views; (..., N, c) → (..., nᵢ, c)."""
        return list(torch.split(as_field(x, self.union.num_nodes), self.sizes, dim=-2))

    def join(self, fields: Sequence[Tensor]) -> Tensor:
        """Fields on the members as one on the union; (..., nᵢ, c) each → (..., N, c)."""
        found = [x.shape[-2] if isinstance(x, Tensor) and x.ndim >= 2 else -1 for x in fields]
        if found != self.sizes:
            raise FieldError(f"the members need fields (..., n, c) with n = {self.sizes}, not {found}")
        if len({(*x.shape[:-2], x.shape[-1], x.dtype, x.device) for x in fields}) > 1:
            raise FieldError("fields of one batch need equal leading shapes, channels, dtype and device")
        return torch.cat(list(fields), dim=-2)

    def map(self, build: Callable[[D], E]) -> Batch[E]:
        """The batch of what `build` makes of each member, such as `lambda cloud: cloud.knn_graph(6)`.

        On the union itself, neighbours in space would be joined across members.
        """
        return batch([build(member) for member in self.members])

    def to(self, *targets: torch.device | str | torch.dtype) -> Batch[D]:
        """A copy on another device, in another precision, or both."""
        return Batch(tuple(member.to(*targets) for member in self.members), self.union.to(*targets))

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> D:
        return self.members[index]


def batch(domains: Sequence[D]) -> Batch[D]:
    """Join graphs, meshes or point clouds of any sizes into one disjoint union.

    `robust_laplacian` regularises by the mean edge of the union: for members of very different scale, join the
    operators of the members by `block_diagonal` instead.

    Raises:
        DomainError: nothing to join, or domains of different kind, dimension, precision or device.
    """
    if isinstance(domains, Domain):
        raise DomainError(f"a batch is made of a list of domains, not of one {type(domains).__name__}: use [domain]")
    members = tuple(domains)
    if not members:
        raise DomainError("a batch needs at least one domain")
    kinds = {type(member) for member in members}
    if len(kinds) > 1 or not isinstance(members[0], Domain):
        told = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise DomainError(f"a batch needs domains of one kind, not {told} (Laplacians are joined by block_diagonal)")
    # Members are valid, and so is their union; vertices of two members that coincide are no seam.
    return Batch(members, members[0]._with(**_union(members)))


def block_diagonal(laplacians: Sequence[Laplacian]) -> Laplacian:
    """The Laplacian of the union from those of the members: blocks C₁, C₂, … and masses m₁, m₂, …, unchanged."""
    if not laplacians:
        raise DomainError("a block-diagonal Laplacian needs at least one block")
    stiffness = [laplacian.stiffness for laplacian in laplacians]
    values = _joined([block.values for block in stiffness], "stiffness values")
    rows, columns, start = [], [], 0
    for block in stiffness:
        rows.append(block.pattern.row + start)
        columns.append(block.pattern.col + start)
        start += block.shape[0]
    joined = SparseOperator.from_entries(torch.cat(rows), torch.cat(columns), values, (start, start))
    return Laplacian(joined, torch.cat([laplacian.mass for laplacian in laplacians]))


def _union(members: tuple[Any, ...]) -> dict[str, Any]:
    sizes = [member.num_nodes for member in members]
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    if isinstance(members[0], Graph):
        index = [member.edge_index + start for member, start in zip(members, starts, strict=False)]
        weight = _joined([member.edge_weight for member in members], "edge_weight")
        return {"edge_index": torch.cat(index, dim=1), "nodes": sum(sizes), "edge_weight": weight}
    if isinstance(members[0], TriangleMesh):
        faces = [member.faces + start for member, start in zip(members, starts, strict=False)]
        vertices = _joined([member.vertices for member in members], "vertices")
        return {"vertices": vertices, "faces": torch.cat(faces), "cleaning": None}
    if isinstance(members[0], PointCloud):
        return {"points": _joined([member.points for member in members], "points")}
    raise DomainError(f"a {type(members[0]).__name__} has no disjoint union: join graphs, meshes or point clouds")


def _joined(tensors: Sequence[Tensor], name: str) -> Tensor:
    kinds = {(t.shape[1:].numel(), t.dtype, t.device) for t in tensors}
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{columns} columns of {dtype} on {device}" for columns, dtype, device in kinds))
        raise DomainError(f"{name} of one batch must agree in dimension, precision and device, not {told}: use .to(...)")
    return torch.cat(list(tensors))
