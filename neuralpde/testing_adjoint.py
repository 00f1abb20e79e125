"""`assert_adjoint_pair`: ⟨y, A x⟩ = ⟨A* y, x⟩, each in the inner product that its operator declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from neuralpde.testing_bounds import roundoff
from neuralpde.testing_cases import Case, cases, default_domains, is_builder, on_domains
from neuralpde.testing_entries import as_operator
from neuralpde.testing_measured import Measured, compared
from neuralpde.testing_operators import hold
from neuralpde.testing_search import Search, words


def assert_adjoint_pair(
    A: Any,
    B: Any = None,
    domain: Any = None,
    *,
    sign: float = 1.0,
    real: bool = False,
    search: Search = Search(),  # noqa: B008
) -> Measured:
    """Assert ⟨y, A x⟩ = sign ⟨B y, x⟩ for complex x and y, with `A.inner` of A's values on the left, `B.inner` on the right.

    Tolerance: 8 u √m Σ w_i |y_i| |A_ij| |x_j|, with m rows and the weights w of the inner product.

    Args:
        A: an operator, a matrix, or a function of a domain that gives one, or gives the pair (A, B).
        B: another; A.adjoint() if absent.
        domain: a strategy or one domain, for a function of it; by default what its annotation names.
        sign: −1 for a gradient and its divergence.
        real: try real fields alone.
        search: how many examples, and where a counter-example is saved.

    Returns:
        The worst case; float() of it is the error in units of the tolerance.

    Raises:
        LawBrokenError: an AssertionError; the shrunk counter-example and its file are in the message.
    """
    __tracebackhide__ = True
    if is_builder(A):
        domain = default_domains(A) if domain is None else domain
        A = on_domains(A)
    first = _named(A, lambda made: made[0] if isinstance(made, tuple) else made)
    found = cases(first, domain, other=_other(A, B), sign=sign, real=real)
    return hold(first, ADJOINT_LAWS, found, search)


def adjoint_in_their_inner_products(case: Case) -> Measured:
    """⟨y, A x⟩ = sign ⟨B y, x⟩."""
    A, other = case.operator, case.options.get("other", lambda case: case.operator.adjoint())
    B, m, n = other(case), A.shape[0], A.shape[1]
    x = case.x[:, :1]
    y = torch.randint(-16, 17, (m, 2), generator=case.generator(), dtype=torch.float64) / 8
    if not case.options.get("real", False):
        x, y = torch.complex(x, case.y[:, :1]), torch.complex(y[:, :1], y[:, 1:])
        x, y = (part.to(torch.complex64 if roundoff(A.dtype) > 1e-10 else torch.complex128) for part in (x, y))
    else:
        x, y = case.cast(x), case.cast(y[:, :1])
    size = (case.weights[:, None] * y.abs() * case.rows(x)).sum() if n and m else torch.zeros(())
    difference = A.inner(y, A @ x) - case.options.get("sign", 1.0) * B.inner(B @ y, x)
    bound = 8 * roundoff(A.dtype) * math.sqrt(m + 1) * size
    return compared(words(adjoint_in_their_inner_products), difference, 0.0, bound, "8 u √m Σ w_i |y_i| |A_ij| |x_j|")


ADJOINT_LAWS = (adjoint_in_their_inner_products,)
"""The law of `assert_adjoint_pair`."""


def _named(A: Any, first: Callable[[Any], Any]) -> Any:
    """A, or a function with A's name and annotations that gives only the first of a pair."""
    if not is_builder(A):
        return A

    def build(domain: Any) -> Any:
        return first(A(domain))

    build.__name__ = getattr(A, "__name__", type(A).__name__)
    build.__wrapped__ = A  # type: ignore[attr-defined]
    return build


def _other(A: Any, B: Any) -> Callable[[Case], Any]:
    def other(case: Case) -> Any:
        if B is not None:
            return as_operator(B(case.domain) if is_builder(B) else B)
        if is_builder(A) and isinstance(made := A(case.domain), tuple):
            return as_operator(made[1])
        return case.operator.adjoint()

    return other
