"""Many small minimisations at once, each with its own curvature and its own step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def minimise_each(
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    *,
    memory: int = 10,
    told: Callable[[int, Tensor], None] = lambda step, best: None,
) -> Tensor:
    """Minimise f_k(x_k) for all k together by L-BFGS (Liu and Nocedal 1989), with a step for each k.

    A step that does not decrease f_k is not taken: it is tried a quarter as long next time, so every f_k only ever falls.

    Args:
        loss: (K, m) ↦ (K,), the k-th a function of the k-th row alone. Values that are not finite count as increases.
        x: (K, m), the start.
        steps: evaluations of `loss` and its gradient.
        memory: pairs kept.
        told: called with (step, f of all k so far).
    """
    x = x.detach()

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        at = x.clone().requires_grad_()
        with torch.enable_grad():
            value = loss(at)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), gradient

    value, gradient = slope(x)
    value, gradient = value.nan_to_num(torch.inf, torch.inf), gradient.nan_to_num(0.0, 0.0, 0.0)
    # The latest steps and changes of the gradient, newest last; zero where a row has not yet taken so many.
    moves, turns = (x.new_zeros(memory, *x.shape) for _ in range(2))
    length = torch.ones(len(x), 1, dtype=x.dtype, device=x.device)
    direction = -gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
    for step in range(steps - 1):
        trial = x + length * direction
        found, there = slope(trial)
        better = (torch.isfinite(found) & (found < value) & torch.isfinite(there).all(1))[:, None]
        moves = torch.where(better, torch.cat([moves[1:], (trial - x)[None]]), moves)
        turns = torch.where(better, torch.cat([turns[1:], (there - gradient)[None]]), turns)
        x, value = torch.where(better, trial, x), torch.where(better[:, 0], found, value)
        gradient = torch.where(better, there, gradient)
        newton = _direction(gradient, moves, turns)
        downhill = (newton * gradient).sum(1, keepdim=True) < 0
        plain = -gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
        direction = torch.where(downhill, newton, plain)
        length = torch.where(better, 1.0, length / 4)
        told(step + 1, value)
    return x


def _direction(gradient: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    """−H g by the two-loop recursion, row by row; a pair without positive curvature is left out of its row."""
    curvature, size = (moves * turns).sum(2, keepdim=True), turns.square().sum(2, keepdim=True)
    good = curvature > 1e-10 * size
    rho = torch.where(good, 1 / torch.where(good, curvature, 1.0), 0.0)
    q: Tensor = gradient
    shares: list[Tensor] = []
    for k in reversed(range(len(moves))):
        shares.append(rho[k] * (moves[k] * q).sum(1, keepdim=True))
        q = q - shares[-1] * turns[k]
    # Without a pair, a step of length one at most.
    scale = 1 / gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
    for k in range(len(moves)):
        scale = torch.where(good[k], curvature[k] / torch.where(good[k], size[k], 1.0), scale)
    q = scale * q
    for k, share in enumerate(reversed(shares)):
        q = q + moves[k] * (share - rho[k] * (turns[k] * q).sum(1, keepdim=True))
    downhill: Tensor = -q
    return downhill
