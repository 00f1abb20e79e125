"""What a law looks at: a builder, the domain it is held against, and fields; and which domains a builder takes."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.testing_bounds import roundoff
from neuralpde.testing_entries import accumulated, amplification, as_operator, magnitudes, weights_of
from neuralpde.testing_graphs import graphs
from neuralpde.testing_grids import grids
from neuralpde.testing_meshes import meshes
from neuralpde.testing_points import point_clouds
from neuralpde.testing_search import is_strategy, name_of, told
from operators import (
    Boundary,
    Graph,
    Grid,
    Laplacian,
    Operator,
    PointCloud,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
)

Builder = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One domain, what the builder makes of it, and two fields.

    Args:
        build: a function of the domain, or what it would give.
        domain: None where only the operator is given.
        x, y: real fields (n, 2) in float64.
        seed: of further choices.
        options: of the laws.
    """

    build: Any
    domain: Any
    x: Tensor
    y: Tensor
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def operator(self) -> Operator:
        """What `build` makes of the domain."""
        return self.rebuilt(self.domain)

    def rebuilt(self, domain: Any) -> Operator:
        """What `build` makes of another domain."""
        return as_operator(self.build if self.fixed else self.build(domain))

    @property
    def fixed(self) -> bool:
        """Whether an operator was given instead of a builder of operators."""
        return not is_builder(self.build)

    @cached_property
    def size(self) -> sp.csr_array:
        """|L_ij|."""
        return magnitudes(self.operator)

    @cached_property
    def weights(self) -> Tensor:
        """Those of the inner product."""
        return weights_of(self.operator)

    @cached_property
    def unit(self) -> float:
        """u times what the geometry amplifies."""
        return roundoff(self.operator.dtype) * amplification(self.domain)

    def rows(self, *fields: Tensor) -> Tensor:
        """Σ_j |L_ij| Σ |x_j|, the magnitudes that a product accumulates in each row."""
        x = torch.stack([f.abs() for f in fields]).sum(0)
        rows = accumulated(self.size, x)
        return rows if self._loops is None else rows + self._loops[:, None] * x

    @cached_property
    def _loops(self) -> Tensor | None:
        """Self-loops, which cancel in the diagonal of a Laplacian, but leave their round-off."""
        if not isinstance(self.domain, Graph) or self.operator.shape != (self.domain.nodes, self.domain.nodes):
            return None
        i, j = self.domain.edge_index
        loops = torch.zeros(self.domain.nodes, dtype=torch.float64)
        loops.index_add_(0, i[i == j], self.domain.edge_weight[i == j].abs().double())
        return loops / self.weights.clamp(min=1e-300) if bool(loops.any()) else None

    def cast(self, x: Tensor) -> Tensor:
        """A field in the operator's precision."""
        dtype = self.operator.dtype
        return x.to(dtype if not dtype.is_complex else torch.empty(0, dtype=dtype).real.dtype)

    def generator(self) -> torch.Generator:
        """For further choices, the same ones every time."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def data(self) -> dict[str, Any]:
        """What a replay needs."""
        return {"domain": self.domain, "x": self.x, "y": self.y, "seed": self.seed}

    def told(self) -> str:
        """The case in words."""
        lines = [told(self.domain)] if self.domain is not None else []
        return "\n".join([*lines, f"x = {told(self.x)}", f"y = {told(self.y)}"])


def is_builder(subject: Any) -> bool:
    """Whether this is a function of a domain rather than an operator or a matrix."""
    return callable(subject) and not isinstance(subject, (torch.nn.Module, Tensor))


def cases(subject: Any, domain: Any = None, **options: Any) -> st.SearchStrategy[Case] | list[Case]:
    """The cases that a law is held against: a strategy, or a few where the domain is given (or n alone, by an operator)."""
    if not is_builder(subject):
        subject = as_operator(subject)
        n = subject.shape[1]
        return [_seeded(subject, domain, n, seed, options) for seed in range(8)]
    if domain is None:
        domain = default_domains(subject)
    subject = on_domains(subject)
    if not is_strategy(domain):
        # Built once: a real surface is large.
        built = Case(subject, domain, torch.empty(0), torch.empty(0), 0, options)
        made = []
        for seed in range(3):
            case = _seeded(subject, domain, nodes_of(domain), seed, options)
            for kept in ("operator", "size", "weights"):
                case.__dict__[kept] = getattr(built, kept)
            made.append(case)
        return made
    return drawn_cases(subject, domain, options)


def drawn_cases(build: Builder, domains: st.SearchStrategy[Any], options: dict[str, Any]) -> st.SearchStrategy[Case]:
    """A drawn domain with fields that a drawn seed gives: an example then shrinks to the domain that matters."""
    return st.builds(lambda domain, seed: _seeded(build, domain, nodes_of(domain), seed, options), domains, st.integers(0, 63))


def _seeded(subject: Any, domain: Any, n: int, seed: int, options: dict[str, Any]) -> Case:
    """Two fields (n, 2): small multiples of ⅛, nearly constant ones, spikes, and numbers to 1e6, in turns."""
    random = np.random.default_rng(seed)
    small = random.integers(-16, 17, size=(2, n, 2)) / 8
    kinds = (
        lambda: small,
        lambda: 1.0 + 1e-3 * random.normal(size=small.shape),
        lambda: np.where(random.random(small.shape) < 0.2, 100.0 * small, 0.0),
        lambda: small * 10.0 ** random.integers(-6, 7, size=small.shape),
    )
    x, y = torch.from_numpy(kinds[seed % 4]())
    return Case(subject, domain, x, y, seed, options)


def default_domains(build: Builder) -> st.SearchStrategy[Any]:
    """The domains that the annotation of the first argument names: Graph, TriangleMesh, PointCloud, Grid or Laplacian."""
    kind = domain_kind(build)
    if kind is None:
        raise TypeError(
            f"{name_of(build)} does not say which domains it takes: annotate its first argument, as in "
            f"`def {name_of(build)}(graph: Graph)`, or pass domain=graphs(), meshes() or another strategy"
        )
    return KINDS[kind]()


def domain_kind(build: Builder) -> type | None:
    """The annotation of the first argument, if it is a domain or a Laplacian; None if there is none."""
    build = inspect.unwrap(build)
    try:
        first = next(iter(inspect.signature(build).parameters.values()))
    except (StopIteration, ValueError, TypeError):
        return None
    annotation = first.annotation
    if isinstance(annotation, str):
        try:
            hints = typing.get_type_hints(vars(build)["__init__"] if inspect.isclass(build) else build)
            annotation = hints.get(first.name)
        except Exception:  # a name that is only imported for type checkers
            annotation = next((kind for kind in KINDS if kind.__name__ in re.findall(r"\w+", annotation)), None)
    named = typing.get_args(annotation) or (annotation,)
    return next((kind for kind in KINDS if any(isinstance(one, type) and issubclass(one, kind) for one in named)), None)


def graph_domains() -> st.SearchStrategy[Graph]:
    """Undirected graphs, and now and then a directed one, which a builder may refuse with a DomainError."""
    return st.integers(0, 7).flatmap(lambda k: graphs(directed=True) if k == 7 else graphs())


def mesh_domains() -> st.SearchStrategy[TriangleMesh]:
    """Surfaces in space, and planar ones, on which linear functions are harmonic."""
    return st.one_of(meshes(), meshes(planar=True))


def grid_domains() -> st.SearchStrategy[Grid]:
    """Boxes without Dirichlet ends, where constants are in the kernel."""
    return grids(boundaries=(Boundary.NEUMANN, Boundary.PERIODIC))


def laplacian_domains() -> st.SearchStrategy[Any]:
    """Graphs and surfaces, for what is built on the Laplacian of one; see `on_domains`."""
    return st.one_of(graphs(), meshes())


def on_domains(build: Builder) -> Builder:
    """A builder that takes a Laplacian as one that takes a graph or surface, and builds on its Laplacian; others as they are."""
    if domain_kind(build) is not Laplacian:
        return build

    def through(domain: Any) -> Any:
        if isinstance(domain, Laplacian):
            return build(domain)
        return build(combinatorial_laplacian(domain) if isinstance(domain, Graph) else cotangent_laplacian(domain))

    through.__name__ = name_of(build)
    return through


KINDS: dict[type, Callable[[], st.SearchStrategy[Any]]] = {
    Graph: graph_domains,
    TriangleMesh: mesh_domains,
    PointCloud: point_clouds,
    Grid: grid_domains,
    Laplacian: laplacian_domains,
}


def nodes_of(domain: Any) -> int:
    """n, of a domain or of a Laplacian on one."""
    return int(domain.shape[1] if isinstance(domain, Laplacian) else domain.num_nodes)
