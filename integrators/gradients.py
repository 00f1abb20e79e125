"""How the gradient of a solve is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators.integrator import Evaluate
from integrators.solution import State
from integrators.state import parts_of


@dataclass(frozen=True)
class Direct:
    """The exact gradient of the discrete solution, by autograd through the solver's steps. The default."""


@dataclass(frozen=True)
class Adjoint:
    """The continuous adjoint (Chen et al. 2018): solves a second equation backwards, in constant memory.

    Every tensor with a gradient that the right-hand side reaches is found and included: parameters, tensors captured
    by a closure, and the parameters behind tensors computed outside (each leaf once, so nothing is counted double).

    A trap for diffusion: solved backwards it is unstable, so a solve of a dissipative right-hand side warns, and the
    backward solve stops with a SolveError after `max_nfe` evaluations.

    Args:
        rtol, atol: tolerances of the backward solve; the forward ones if absent.
        max_nfe: the budget of the backward solve.
    """

    rtol: float | None = None
    atol: float | None = None
    max_nfe: int = 20_000


def reachable_leaves(f: Evaluate, t: Tensor, x: State) -> tuple[Tensor, ...]:
    """Every leaf tensor with a gradient that f(t, x) depends on, other than t and x; found by one evaluation.

    A leaf behind a branch that this evaluation does not take is found only if it is a parameter of f.
    """
    probe = _detached(x)
    with torch.enable_grad():
        value = f(t.detach(), probe)
    # What is no tensor the solve itself refuses, with a better message than any from here.
    returned = [part for part in parts_of(value) if isinstance(part, Tensor)]
    own = {id(part) for part in parts_of(probe)}
    leaves: dict[int, Tensor] = {}
    if isinstance(f, torch.nn.Module):
        leaves.update((id(p), p) for p in f.parameters() if p.requires_grad)
    pending: list[Any] = [part.grad_fn for part in returned]
    pending_leaves = [part for part in returned if part.grad_fn is None and part.requires_grad]
    leaves.update((id(part), part) for part in pending_leaves)
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in own:
            leaves[id(variable)] = variable
        pending.extend(parent for parent, _ in node.next_functions)
    return tuple(leaves.values())


def _detached(x: State) -> State:
    if isinstance(x, tuple):
        return tuple(part.detach() for part in x)
    return x.detach()
