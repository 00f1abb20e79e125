"""What a row of the table of Laplacians is, and the rows that follow from formulas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.laplacian_983 import Torus
from operators import cotangent_laplacian
from operators.consistent import ConsistentLaplacian
from operators.consistent_moments import Moments
from operators.operator import Operator

Told = Callable[[int, int, str], None]
RIDGES = 10.0 ** torch.arange(-14, -1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Samples:
    """Functions at the nodes with their Laplacians.

    Args:
        values, laplacians: f and ∂²f/∂x² + ∂²f/∂y², (functions, n), float64.
    """

    values: Tensor
    laplacians: Tensor


class Estimator(ABC):
    """A method that has learned."""

    @property
    def parameters(self) -> int:
        """The number of learned numbers."""
        return 0

    @abstractmethod
    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        """The Laplacians (functions, n) of functions from their values (functions, n) at the nodes."""


@dataclass(frozen=True)
class LaplacianMethod(ABC):
    """A row of the table. It is a value: equal settings are equal methods, and `repr` identifies what was trained.

    Every method knows that the functions are periodic: it sees the copies of the nodes beyond the sides of the square.
    """

    name: ClassVar[str]
    bound: ClassVar[bool] = False
    """Whether it belongs to the placement that it learned from."""

    @abstractmethod
    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        """Learn from the training functions; settings and the moment to stop may be chosen on the validation functions.

        Args:
            checkpoint: a file that training may write atomically and continue from.
            told: called with (step, steps, note) meanwhile.
        """


def applied(operator: Operator, torus: Torus, values: Tensor) -> Tensor:
    """−L f at the nodes, of a positive Laplacian (N, N) on the padded points; (functions, n) → (functions, n)."""
    result: Tensor = operator @ values[:, torus.copies].mT.contiguous()
    return -result[: torus.num_nodes].mT


@dataclass(frozen=True)
class StandardOperator(LaplacianMethod):
    """Σ_j (f_j − f_i) over the neighbours in the triangulation, times one factor fitted to the training functions."""

    name: ClassVar[str] = "standard-op"

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        plain = _neighbour_sum(torus, train.values)
        return _Scaled(float((plain * train.laplacians).sum() / plain.square().sum()))


class _Scaled(Estimator):
    def __init__(self, factor: float) -> None:
        self.factor = factor

    @property
    def parameters(self) -> int:
        return 1

    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        return self.factor * _neighbour_sum(torus, values)


def _neighbour_sum(torus: Torus, values: Tensor) -> Tensor:
    source, target = torus.edges
    return torch.zeros_like(values).index_add(1, target, values[:, source] - values[:, target])


@dataclass(frozen=True)
class MeshOperator(LaplacianMethod):
    """The cotangent Laplacian of the triangulation with lumped masses."""

    name: ClassVar[str] = "mesh-op"

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        return _OfMesh()


class _OfMesh(Estimator):
    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        return applied(cotangent_laplacian(torus.mesh), torus, values)


@dataclass(frozen=True)
class LeastSquares(LaplacianMethod):
    """The Laplacian of the polynomial that fits the nearest nodes best; nothing is learned.

    Args:
        order: of the polynomial.
        neighbours: nearest nodes in a stencil.
    """

    order: int = 2
    neighbours: int = 12
    name: ClassVar[str] = "least-squares"

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        return _OfPolynomials(self.order, self.neighbours)


@dataclass(frozen=True)
class QuarticLeastSquares(LeastSquares):
    """The same with polynomials of degree four: the strongest formula here that knows nothing of the functions."""

    order: int = 4
    neighbours: int = 20
    name: ClassVar[str] = "least-squares-4"


class _OfPolynomials(Estimator):
    def __init__(self, order: int, neighbours: int) -> None:
        self.order, self.neighbours = order, neighbours

    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        stencil = ConsistentLaplacian(Moments(torus.padded, self.neighbours, self.order))
        return applied(stencil.operator(), torus, values)


@dataclass(frozen=True)
class JointLinear(LaplacianMethod):
    """Ridge regression of all Laplacians on all values, the ridge chosen on the validation functions.

    Where the nodes outnumber the waves it solves the problem, for this placement alone.
    """

    name: ClassVar[str] = "joint-linear"
    bound: ClassVar[bool] = True

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        levels, basis = torch.linalg.eigh(train.values.mT @ train.values)
        target, seen = basis.mT @ (train.values.mT @ train.laplacians), validation.values @ basis

        def weights(ridge: Tensor) -> Tensor:
            shrunk: Tensor = target / (levels.clamp(min=0) + ridge * levels[-1])[:, None]
            return shrunk

        errors = torch.stack([(seen @ weights(ridge) - validation.laplacians).square().mean() for ridge in RIDGES])
        return _Joint(basis @ weights(RIDGES[int(errors.argmin())]))


class _Joint(Estimator):
    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def parameters(self) -> int:
        return self.matrix.numel()

    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        return values @ self.matrix
