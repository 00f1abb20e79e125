"""Rewiring while solving: the edges of a flow are made from its state, at the start and at given times."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuralpde.averaging import Averaging
from neuralpde.beltrami import BeltramiFlow
from neuralpde.correction import Corrected
from neuralpde.invariants import Invariant, Mass, MaximumPrinciple
from neuralpde.rhs import RightHandSide, Scaled, Sum
from operators import DomainError, FieldError, Graph
from operators.diffusivity import Joint, joined
from operators.rewiring import Rewiring

M = TypeVar("M", bound=nn.Module)


def positions(z: Joint) -> Tensor:
    """u of a pair (u, x)."""
    if not isinstance(z, tuple):
        raise FieldError(
            "this state is one tensor, not a pair (u, x): name what is to be rewired, of=Channels(0, 16) or of=features"
        )
    return z[0]


def features(z: Joint) -> Tensor:
    """x of a pair (u, x), or the whole of a state that is one tensor: E′ = E(X), as in DGCNN."""
    return z[1] if isinstance(z, tuple) else z


@dataclass(frozen=True)
class Channels:
    """Channels first, ..., end − 1 of a state, those of a pair side by side."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise ValueError(f"channels count from 0 and end after they begin, not {self.first}:{self.end}")

    def __call__(self, z: Joint) -> Tensor:
        z = joined(z)
        if z.shape[-1] < self.end:
            raise FieldError(f"a state of {z.shape[-1]} channels has none up to {self.end}: name others in Channels(first, end)")
        return z[..., self.first : self.end]


class Rewired(RightHandSide):
    """A flow whose edges follow its state: dz/dt = f(t, z; E′) with E′ = E(u(t_k)) for t_k ≤ t < t_{k+1}.

    Without times E′ is made once, from u(0), as BLEND-kNN does; with them it is made again from u(t_k), as a moving mesh
    (Chamberlain et al. 2021, § 3.1 and § 3.3). `integrate` stops at each t_k and goes on with the flow on the new edges, so no
    step crosses the discontinuity. Frozen attention is frozen anew at each t_k; a source remains β z(0). The gradient is exact
    for the edges as chosen: it flows through the states, and through the weights of edges where these depend on distances.

    Args:
        flow: any right-hand side that `.on(graph)` moves, such as `BeltramiFlow(ScaledDotProduct(graph, channels))`; the graph
            it was built on only serves to build it.
        rewiring: from positions (n, d) to a graph, such as `NearestNeighbours(16)` or `Radius(1.0, PoincareBall())`.
        times: t_1, t_2, ..., in any order; those outside a solve do nothing. Good values: 2 to 8 of them, evenly spaced.
        of: what positions are: `positions`, u of a pair (default), `features`, or `Channels(first, end)`; or any function of z.

    Invariants: of those of the flow, the hull of every channel, and the sum over nodes: they hold on any edges.

    Raises:
        DomainError: when it is solved, a batch (..., n, c), whose members have no common graph; what `rewiring` refuses.
    """

    def __init__(
        self,
        flow: RightHandSide,
        rewiring: Rewiring | Callable[[Tensor], Graph],
        times: Sequence[float] = (),
        *,
        of: Callable[[Joint], Tensor] = positions,
    ) -> None:
        super().__init__()
        if not isinstance(flow, RightHandSide):
            raise TypeError(f"flow must be a right-hand side such as BeltramiFlow(...), not {type(flow).__name__}")
        if not callable(rewiring):
            raise TypeError(f"rewiring must make a graph of positions, as NearestNeighbours(8) does, not {rewiring!r}")
        if isinstance(times, (int, float)):
            raise TypeError(f"times must be a list, as in [{times}], not a number")
        moments = sorted({float(t) for t in times})
        if not all(math.isfinite(t) for t in moments):
            raise ValueError(f"times holds a NaN or infinite time: {list(times)}")
        self.flow, self.rewiring, self.of = flow, rewiring, of
        self.times = tuple(moments)

    @property
    def restarts(self) -> tuple[float, ...]:
        """When the edges are made again."""
        return self.times

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.flow.jumps

    def graph(self, z: Joint) -> Graph:
        """E′ at the state z."""
        made = self.rewiring(self.of(z))
        if not isinstance(made, Graph):
            raise DomainError(f"a rewiring must make a Graph of positions, not {type(made).__name__}")
        return made

    def starting_at(self, x0: Joint) -> RightHandSide:
        """The flow on the edges of x0, begun there."""
        return self.flow.on(self.graph(x0)).starting_at(x0)

    def restarting_at(self, t: Tensor, x: Joint, x0: Joint) -> RightHandSide:
        """The flow on the edges of x from time t on; what it remembers of the start of the solve is still x0."""
        return _going_on(_aliased(self.flow).on(self.graph(x)), t, x, x0)

    def forward(self, t: Tensor, z: Joint) -> Any:
        """The slope just after a rewiring at (t, z)."""
        return self.flow.on(self.graph(z))(t, z)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return tuple(i for i in self.flow.invariants if isinstance(i, MaximumPrinciple) or (isinstance(i, Mass) and _even(i)))

    @property
    def dissipative(self) -> bool:
        return self.flow.dissipative


def _even(mass: Mass) -> bool:
    return bool((mass.laplacian.mass == mass.laplacian.mass[0]).all())


def _going_on(flow: RightHandSide, t: Tensor, x: Joint, x0: Joint) -> RightHandSide:
    """A flow that is frozen at x, and whose source is that of x0; so is every term of a sum."""
    if isinstance(flow, Sum):
        return Sum(*[_going_on(term, t, x, x0) for term in flow.summands])
    if isinstance(flow, Scaled):
        return Scaled(flow.coefficient, _going_on(flow.rhs, t, x, x0))
    if isinstance(flow, Corrected):
        return Corrected(_going_on(flow.physics, t, x, x0), _going_on(flow.correction, t, x, x0))
    if not isinstance(flow, BeltramiFlow) or not flow.frozen_attention:
        return flow.starting_at(x0)
    return Averaging(
        flow.diffusivity.at(t)(x),
        flow.log_rate.exp() * flow.diffusivity.rate,
        over=flow.diffusivity.over,
        source=None if flow.source is None else (flow.source, x0),
        moving=flow.moving,
    )


def _aliased(module: M) -> M:
    """A view of a module with its learned parameters behind tensors of this moment.

    What a later stretch holds, as its frozen attention, has a past in which the same parameters act. With tensors of their own
    the two are told apart; else `Checkpointed` would go back through all earlier stretches from every piece of this one.
    """
    view = copy.copy(module)
    view.__dict__ = dict(module.__dict__)
    view._modules = {name: None if child is None else _aliased(child) for name, child in module._modules.items()}
    held = {name: p for name, p in module._parameters.items() if p is not None and p.requires_grad and torch.is_grad_enabled()}
    view._parameters = {name: p for name, p in module._parameters.items() if name not in held}
    view.__dict__.update({name: p.clone() for name, p in held.items()})
    return view
