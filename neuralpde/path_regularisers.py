"""Penalties along the path of a flow: its kinetic energy and the size of its Jacobian, integrated together with the state."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of, state_map
from neuralpde.invariants import Invariant, LaplacianInvariant, Part
from neuralpde.rhs import RightHandSide, as_right_hand_side

Pull = Callable[[State], State]
"""v ↦ Jᵀ v with J = ∂f/∂x at the present state; v and the result have the form of the state."""


class PathRegulariser(ABC):
    """A density r(t, x) ≥ 0 whose integral along the path is a penalty. A new one writes `rate`."""

    @abstractmethod
    def rate(self, slope: State, pull: Pull) -> Tensor:
        """r, given f(t, x) and v ↦ Jᵀ v; states (..., n, c) → (...), a mean over the nodes."""

    def starting_at(self, x0: State) -> PathRegulariser:
        """The regulariser of a solve from x0: itself, unless it draws something that must stay for the whole solve."""
        return self


class KineticEnergy(PathRegulariser):
    """½ |f|², of a node on average: the path goes straight and no faster than it must (Finlay et al. 2020, ICML)."""

    def rate(self, slope: State, pull: Pull) -> Tensor:
        return half_square(slope)


class JacobianPenalty(PathRegulariser):
    """½ |Jᵀ e|² with a random e of mean square one, so that its mean is ½ |J|² in the Frobenius norm (Finlay et al. 2020).

    e holds signs (Hutchinson 1990, Commun. Stat. 19), drawn by torch's generator at the start of every solve, and at
    its restarts, and kept through it, so that the penalty is the integral of a smooth function, and a gradient that repeats
    steps meets the same e.

    Args:
        direction: e in the form of the state, in place of a drawn one.

    Raises:
        ValueError: when it is solved, a direction that is not of the state's shape.
    """

    def __init__(self, direction: State | None = None) -> None:
        self.direction = direction

    def starting_at(self, x0: State) -> PathRegulariser:
        if self.direction is not None:
            own, wanted = ([tuple(part.shape) for part in parts_of(z)] for z in (self.direction, x0))
            if own != wanted:
                raise ValueError(f"the direction has the shape of another state: {own}, not {wanted}")
            return self
        return JacobianPenalty(state_map(_signs, x0))

    def rate(self, slope: State, pull: Pull) -> Tensor:
        if self.direction is None:
            raise ValueError("the random e is drawn at the start of a solve: integrate does it; by hand, call starting_at(x0)")
        return half_square(pull(self.direction))


class DirectionalPenalty(PathRegulariser):
    """½ |Jᵀ f|²: the speed f, pulled back by the flow's own Jacobian; no random numbers.

    Where J is symmetric and f does not depend on t, Jᵀ f = d²x/dt².
    """

    def rate(self, slope: State, pull: Pull) -> Tensor:
        return half_square(pull(slope))


class Regularised(RightHandSide):
    """d(x, r)/dt = (f(t, x), r₁(t, x), …, r_k(t, x)): a flow with the penalties that its path gathers.

    Begin with `flow.start(x0)` and take apart with `flow.split(solution.x)`:

        flow = Regularised(f, [KineticEnergy(), JacobianPenalty()])
        path, penalties = flow.split(integrate(flow, flow.start(x0), [0.0, T]).x)
        loss = loss + (weights * penalties[-1]).sum()

    Gradients flow through the penalties in every mode, which takes second derivatives of f. The error control of an adaptive
    solver sees the penalties like the state. Each penalty of the Jacobian costs one product with Jᵀ an evaluation, the
    kinetic energy none.

    Good values: weights of 1e-3 to 1e-1 of the loss; the penalty of a path that is half as long, and as fast, is half.

    Invariants: those of f, of its own part of the state.

    Args:
        flow: f. A flow that is linear in x, with exact steps, is solved as any other here.
        regularisers: what to gather; at least one.

    Raises:
        TypeError: something else than a regulariser, or none.
    """

    def __init__(self, flow: Any, regularisers: Sequence[PathRegulariser]) -> None:
        super().__init__()
        self.flow = as_right_hand_side(flow)
        self.regularisers = tuple(regularisers)
        wrong = [r for r in self.regularisers if not isinstance(r, PathRegulariser)]
        if wrong or not self.regularisers:
            raise TypeError(f"give regularisers such as [KineticEnergy(), JacobianPenalty()], not {wrong or 'none'}")

    def start(self, x0: State) -> tuple[Tensor, ...]:
        """x0 beside penalties of zero, (..., 1, k); the state that this flow is solved from."""
        parts = parts_of(x0)
        first = parts[0]
        if first.ndim < 2:
            raise ValueError(f"a state has shape (..., n, c), not {tuple(first.shape)}")
        return (*parts, first.real.new_zeros(*first.shape[:-2], 1, len(self.regularisers)))

    def split(self, state: State) -> tuple[State, Tensor]:
        """The state or path of f, and the penalties (..., k) in the order of the regularisers."""
        *parts, gathered = parts_of(state)
        return (parts[0] if len(parts) == 1 else tuple(parts)), gathered.squeeze(-2)

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.flow.jumps

    @property
    def restarts(self) -> tuple[float, ...]:
        return self.flow.restarts

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        own = self.flow.invariants
        return tuple(i if isinstance(i, Part) else Part(0, i) for i in own if isinstance(i, (Part, LaplacianInvariant)))

    def starting_at(self, x0: State) -> RightHandSide:
        """With the flow begun at x0, and e drawn for the solve."""
        own, _ = self.split(self._checked(x0))
        return self._begun(self.flow.starting_at(own), own)

    def restarting_at(self, t: Tensor, x: State, x0: State) -> RightHandSide:
        own, start = (self.split(self._checked(state))[0] for state in (x, x0))
        return self._begun(self.flow.restarting_at(t, own, start), own)

    def _begun(self, flow: RightHandSide, own: State) -> RightHandSide:
        begun = copy.copy(self)
        begun._modules = {"flow": flow}
        begun.regularisers = tuple(r.starting_at(own) for r in self.regularisers)
        return begun

    def forward(self, t: Tensor, state: State) -> State:
        x, _ = self.split(self._checked(state))
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            # Jᵀ needs a graph of f in x, whether or not the solve records one; in a view of x, since at the start the flow may
            # hold x itself, as its source β x(0), which is no part of J.
            x = state_map(lambda part: part.view_as(part) if recorded and part.requires_grad else _leaf(part), x)
            slope = self.flow(t, x)

            def pull(v: State) -> State:
                if torch.is_inference_mode_enabled():
                    raise RuntimeError(
                        "inference mode has no Jacobian, which autograd makes: solve under torch.no_grad() instead"
                    )
                return _pulled(slope, x, v, recorded)

            rates = torch.stack([r.rate(slope, pull) for r in self.regularisers], dim=-1)[..., None, :]
        parts = (*parts_of(slope), rates)
        return parts if recorded else tuple(part.detach() for part in parts)

    def _checked(self, state: State) -> State:
        parts = parts_of(state)
        if len(parts) < 2 or parts[-1].shape[-2:] != (1, len(self.regularisers)):
            raise ValueError(
                "the state has no penalties beside it: begin with flow.start(x0), integrate(flow, flow.start(x0), t)"
            )
        return state


def half_square(state: State) -> Tensor:
    """½ Σ |x_i|² / n over the nodes and channels of every part; (..., n, c) → (...)."""
    shares = [(part.real.square() + part.imag.square() if part.is_complex() else part.square()) for part in parts_of(state)]
    return torch.stack([share.sum((-2, -1)) / (2 * share.shape[-2]) for share in shares]).sum(0)


def _pulled(slope: State, x: State, v: State, again: bool) -> State:
    """Jᵀ v."""
    pairs = [(f, w) for f, w in zip(parts_of(slope), parts_of(v), strict=True) if f.requires_grad]
    if not pairs:
        return state_map(torch.zeros_like, x)
    found = torch.autograd.grad(
        [f for f, _ in pairs], parts_of(x), [w for _, w in pairs], create_graph=again, retain_graph=True, allow_unused=True
    )
    pulled = tuple(torch.zeros_like(part) if g is None else g for part, g in zip(parts_of(x), found, strict=True))
    return pulled if isinstance(x, tuple) else pulled[0]


def _leaf(part: Tensor) -> Tensor:
    return part if torch.is_inference_mode_enabled() else part.detach().requires_grad_()


def _signs(part: Tensor) -> Tensor:
    if part.is_complex():
        raise TypeError("the Jacobian of a complex state has no such transpose here: split it into real and imaginary parts")
    return torch.randint(0, 2, part.shape, device=part.device).to(part.dtype) * 2 - 1
