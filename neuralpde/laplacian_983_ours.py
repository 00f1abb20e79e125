"""Ours: a Laplacian stencil that is exact on quadratic polynomials from the start, and learns how smooth the functions are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.laplacian_983 import Torus
from neuralpde.laplacian_983_method import Estimator, LaplacianMethod, Samples, Told, applied
from neuralpde.sensor_training import fit_network
from operators import PointCloud
from operators.consistent import ConsistentLaplacian
from operators.consistent_kernels import GaussianKernel
from operators.consistent_moments import Moments

TRAINED_NODES = 80
FUNCTIONS = 200
# Below this part of the mean square an error is rounding, and its logarithm would be noise.
ROUNDING = 1e-14


@dataclass(frozen=True)
class LearnedKernel(LaplacianMethod):
    """The Laplacian of the best linear estimate from the nearest nodes, under quadratic consistency.

    The weights minimise the expected error for functions with the covariance exp(−½ Σ_a (x_a/ℓ_a)²) and a relative noise,
    among those that are exact on polynomials of degree ≤ order. The lengths ℓ and the noise are learned: the logarithm of the
    mean squared error is minimised by Adam, at the nodes in the middle of the square, of functions drawn anew at each step
    from the training functions.

    The functions of this test are Gaussian with a Gaussian spectrum, and so have a covariance of this family: it is the prior
    they were drawn from, but for its lengths. Functions with another spectrum are fitted less closely.

    Args:
        neighbours: nearest nodes in a stencil.
        order: of the polynomials.
        steps: of Adam.
    """

    neighbours: int = 40
    order: int = 2
    steps: int = 30
    name: ClassVar[str] = "ours"

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        part, inside = self._middle(torus)
        spacing = torus.num_nodes**-0.5
        moments = Moments(PointCloud(torus.padded.points[part]), self.neighbours, self.order)
        kernel = GaussianKernel([3 * spacing] * 2, noise=1e-9)
        stencil = ConsistentLaplacian(moments, kernel=kernel)
        nodes = torus.copies[part]

        def error(samples: Samples, chosen: Tensor) -> Tensor:
            found = -stencil.vectors(samples.values[chosen][:, nodes].mT.contiguous())[inside, 0]
            truth = samples.laplacians[chosen][:, nodes[inside]].mT
            return (found - truth).square().sum() / truth.square().sum()

        def loss(step: int, random: torch.Generator) -> Tensor:
            chosen = torch.randint(len(train.values), (FUNCTIONS,), generator=random)
            return torch.log(error(train, chosen) + ROUNDING)

        def validate() -> float:
            with torch.no_grad():
                return float(error(validation, torch.arange(min(FUNCTIONS, len(validation.values)))))

        fit_network(
            stencil,
            loss,
            validate,
            steps=self.steps,
            learning_rate=0.15,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
        )
        return _OfKernel(stencil, self)

    def _middle(self, torus: Torus) -> tuple[Tensor, Tensor]:
        """Padded points in the middle of the square, and which of these have all their neighbours among them."""
        reach = 1.3 * math.sqrt(self.neighbours / (math.pi * torus.num_nodes))
        half = math.sqrt(TRAINED_NODES / torus.num_nodes) / 2
        away = (torus.padded.points - 0.5).abs().amax(1)
        part = (away < half + reach).nonzero()[:, 0]
        return part, (away[part] < half).nonzero()[:, 0]


class _OfKernel(Estimator):
    def __init__(self, stencil: ConsistentLaplacian, settings: LearnedKernel) -> None:
        self.stencil, self.settings = stencil, settings

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.stencil.parameters())

    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        moved = self.stencil.on(Moments(torus.padded, self.settings.neighbours, self.settings.order))
        return applied(moved.operator(), torus, values)
