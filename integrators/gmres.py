"""GMRES: linear systems of which only products are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class Krylov(NamedTuple):
    """What GMRES found: x, the norm of b − A x, and the number of products with A."""

    x: Tensor
    residual: float
    products: int


def gmres(product: Product, b: Tensor, tol: float, *, restart: int = 30, budget: int = 300) -> Krylov:
    """x with ‖b − A x‖ ≤ tol, or the best that `budget` products could do: look at `residual`.

    x minimises the residual over the Krylov space of up to `restart` products, from which the search starts again (Saad and
    Schultz 1986, SIAM J. Sci. Stat. Comput. 7). Every new direction is orthogonalised twice, which keeps the basis
    orthogonal to round-off as modified Gram–Schmidt with reorthogonalisation does, in two products with the whole basis
    (Giraud, Langou, Rozložník and van den Eshof 2005, Numer. Math. 101).

    Args:
        product: x ↦ A x on real vectors (m,).
        b: a real vector (m,).
        tol: absolute tolerance of the residual, in the Euclidean norm.
        restart: directions kept at once.
        budget: products with A at most.
    """
    x, r = torch.zeros_like(b), b
    size, products = float(torch.linalg.vector_norm(r)), 0
    while size > tol and products < budget and math.isfinite(size):
        step, used = _cycle(product, r, size, tol, min(restart, budget - products))
        products += used
        y = x + step
        r = b - product(y)
        products += 1
        before, size = size, float(torch.linalg.vector_norm(r))
        if not size < before:
            return Krylov(x, before, products)  # Round-off, or a singular matrix: the rest would be no better.
        x = y
        if size > 0.99 * before:
            break
    return Krylov(x, size, products)


def _cycle(product: Product, r: Tensor, size: float, tol: float, length: int) -> tuple[Tensor, int]:
    """The correction out of one Krylov space of at most `length` products, and the products used."""
    basis = r.new_empty(length + 1, len(r))
    basis[0] = r / size
    columns: list[list[float]] = []
    turns: list[tuple[float, float]] = []
    goal = [size]
    for k in range(length):
        w = product(basis[k])
        whole = float(torch.linalg.vector_norm(w))
        known = basis[: k + 1]
        first = known @ w
        w = w - first @ known
        second = known @ w
        w = w - second @ known
        rest = float(torch.linalg.vector_norm(w))
        column = (first + second).tolist()
        for j, (c, s) in enumerate(turns):
            column[j], column[j + 1] = c * column[j] + s * column[j + 1], c * column[j + 1] - s * column[j]
        length_of_turn = math.hypot(column[k], rest)
        if not length_of_turn > 0 or not math.isfinite(length_of_turn):
            break  # Singular here, or not finite: what was found so far must do.
        c, s = column[k] / length_of_turn, rest / length_of_turn
        column[k] = length_of_turn
        turns.append((c, s))
        columns.append(column)
        goal[k:] = [c * goal[k], -s * goal[k]]
        if abs(goal[-1]) <= tol or rest <= torch.finfo(r.dtype).eps * whole:
            break
        if k + 1 < length:
            basis[k + 1] = w / rest
    n = len(columns)
    weights = [0.0] * n
    for i in reversed(range(n)):
        weights[i] = (goal[i] - sum(columns[j][i] * weights[j] for j in range(i + 1, n))) / columns[i][i]
    return r.new_tensor(weights) @ basis[:n], max(1, n)
