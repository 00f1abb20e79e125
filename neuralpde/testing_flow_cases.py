"""What a law of right-hand sides looks at: an equation on a domain with a state; and where they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hypothesis import strategies as st

from integrators import State
from neuralpde.rhs import as_right_hand_side
from neuralpde.testing_cases import KINDS, default_domains, domain_kind, is_builder, nodes_of, on_domains
from neuralpde.testing_entries import as_operator
from neuralpde.testing_graphs import graphs
from neuralpde.testing_meshes import meshes
from neuralpde.testing_search import is_strategy, told
from neuralpde.testing_states import Form, drawn_state, dtype_in, fastest_rate, form_of, nodes_in, rounding
from operators import Graph, Laplacian, Operator, TriangleMesh

States = Callable[[Any, Any, torch.Generator], State]
"""f, its domain and a generator → a state that f takes."""


@dataclass(frozen=True, eq=False)
class FlowCase:
    """A right-hand side on a domain, and two states.

    Args:
        build: a function of the domain, or the right-hand side itself.
        domain, other: two domains; None where only a right-hand side is given.
        seed: of the states and of further choices.
    """

    build: Any
    domain: Any
    other: Any
    seed: int
    states: States | None = None

    @cached_property
    def subject(self) -> Any:
        """What `build` makes of the domain: a right-hand side, or an operator."""
        torch.manual_seed(self.seed)
        made = self.build(self.domain) if is_builder(self.build) else self.build
        return made if callable(made) else as_operator(made)

    @cached_property
    def f(self) -> Any:
        """The right-hand side; of an operator A, the flow A x."""
        if isinstance(self.subject, Operator):
            return as_right_hand_side(lambda t, x: self.subject @ x)
        return as_right_hand_side(self.subject)

    def applied(self, subject: Any, x: Any) -> Any:
        """The operator or right-hand side, or one like it, on a state."""
        return subject @ x if isinstance(subject, Operator) else subject(self.t, x)

    def result(self) -> Any:
        """Its value on the state."""
        return self.applied(self.subject, self.x)

    @cached_property
    def x(self) -> State:
        """A state on the domain."""
        return self.state(self.subject, self.domain, self.seed)

    @cached_property
    def y(self) -> State:
        """Another."""
        return self.state(self.subject, self.domain, self.seed + 1)

    @property
    def t(self) -> torch.Tensor:
        """A time."""
        return torch.tensor(0.25 * (self.seed % 4), dtype=torch.float64)

    def state(self, f: Any, domain: Any, seed: int) -> State:
        """A state for f."""
        generator = torch.Generator().manual_seed(seed)
        if self.states is not None:
            return self.states(f, domain, generator)
        return drawn_state(self.form, self._nodes(f, domain), dtype_in(f), generator)

    @cached_property
    def form(self) -> Any:
        """The form of the state that f takes."""
        if isinstance(self.subject, Operator):
            return Form((2,))
        return form_of(self.subject, self._nodes(self.subject, self.domain), dtype_in(self.subject))

    def _nodes(self, f: Any, domain: Any) -> int:
        if isinstance(f, Operator):
            return f.shape[1]
        return nodes_in(f) if domain is None else nodes_of(domain)

    @cached_property
    def noise(self) -> float:
        """What one unit round-off in x makes of f(t, x)."""
        return rounding(lambda x: self.applied(self.subject, x), self.x)

    @cached_property
    def rate(self) -> float:
        """The largest |∂f/∂x| at x, estimated."""
        with torch.no_grad():
            return fastest_rate(self.f, self.x)

    @property
    def data(self) -> dict[str, Any]:
        """What a replay needs."""
        return {"domain": self.domain, "other": self.other, "seed": self.seed}

    def told(self) -> str:
        """The case in words."""
        return f"{told(self.domain)}\nx = {told(self.x)}\nt = {float(self.t)}"


def flow_cases(f: Any, domain: Any = None, states: States | None = None) -> Any:
    """The cases that a law of right-hand sides is held against: a strategy, or a few where the domain is given."""
    if is_builder(f):
        domain = flow_domains(f) if domain is None else domain
        f = on_domains(f)
    if is_strategy(domain):
        return st.builds(FlowCase, st.just(f), domain, domain, st.integers(0, 99), st.just(states))
    return [FlowCase(f, domain, None, seed, states) for seed in range(6)]


def flow_domains(build: Any, kind: type | None = None) -> st.SearchStrategy[Any]:
    """As `default_domains`, without slivers and weights from 1e-6 to 1e6: flows on those are a solver's trouble."""
    kind = kind or domain_kind(build)
    weighted = graphs(weights=("ones", "dyadic"))
    if kind is Graph:
        return weighted
    if kind is TriangleMesh:
        return meshes(slivers=False)
    if kind is Laplacian:
        return st.one_of(weighted, meshes(slivers=False))
    return default_domains(build) if kind is None else KINDS[kind]()
