"""Problems with known solutions, and linear equations given by a matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """dx/dt = f(t, x), x(0) = x0, and its solution."""

    f: Callable[[Tensor, Any], Any]
    x0: Any
    exact: Callable[[Tensor], Any]

    def error(self, t: Tensor, x: Any) -> float:
        """The largest distance from the solution, over all times, nodes and parts."""
        rows = [self.exact(s) for s in t]
        if isinstance(x, tuple):
            return max(float((part - torch.stack([r[k] for r in rows])).abs().max()) for k, part in enumerate(x))
        return float((x - torch.stack(rows)).abs().max())


def complex_start() -> Tensor:
    return torch.complex(X0, 1 - X0)


PROBLEMS = {
    "decay": Problem(lambda t, x: -x, X0, lambda t: X0 * (-t).exp()),
    "non-autonomous": Problem(lambda t, x: -3 * t**2 * x, X0, lambda t: X0 * (-(t**3)).exp()),
    "quadrature": Problem(lambda t, x: torch.cos(3 * t) + 0 * x, X0, lambda t: X0 + torch.sin(3 * t) / 3),
    "nonlinear": Problem(lambda t, x: 2 * x * (1 - x), X0, lambda t: X0 / (X0 + (1 - X0) * (-2 * t).exp())),
    "complex": Problem(
        lambda t, x: (2j - 0.5) * x,
        complex_start(),
        lambda t: complex_start() * ((2j - 0.5) * t.to(torch.complex128)).exp(),
    ),
    "tuple": Problem(
        lambda t, x: (2 * x[1], -2 * x[0]),
        (X0, torch.zeros_like(X0)),
        lambda t: (X0 * torch.cos(2 * t), -X0 * torch.sin(2 * t)),
    ),
    "tuple of real and complex": Problem(
        lambda t, x: (-x[0], 1j * x[1]),
        (X0, complex_start()),
        lambda t: (X0 * (-t).exp(), complex_start() * (1j * t.to(torch.complex128)).exp()),
    ),
}


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS.keys())
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param


class Linear(torch.nn.Module):
    """dx/dt = G x, which is also its own linear part; counts its evaluations and its solves."""

    def __init__(self, G: Tensor) -> None:
        super().__init__()
        self.G = G
        self.calls = self.solves = 0

    @property
    def linear(self) -> "Linear":
        return self

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self @ x

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.G @ x

    def norm_bound(self) -> float:
        return float(torch.linalg.matrix_norm(self.G.detach(), ord=2))

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        self.solves += 1
        dtype = torch.promote_types(self.G.dtype, b.dtype)
        if shift.is_complex():
            dtype = torch.promote_types(dtype, torch.complex64)
        matrix = torch.eye(len(self.G), dtype=dtype) - shift.to(dtype) * self.G.to(dtype)
        return torch.linalg.solve(matrix, b.to(dtype))


@pytest.fixture(scope="session")
def linear() -> type[Linear]:
    """The class of linear equations: linear(G) is dx/dt = G x."""
    return Linear


def rate(errors: list[float]) -> float:
    """log₂ of the last fall of the error, for steps halved from one entry to the next."""
    return float(torch.tensor(errors[-2] / errors[-1]).log2())


@pytest.fixture(scope="session")
def observed_order() -> Callable[[list[float]], float]:
    return rate
