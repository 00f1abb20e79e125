"""Ours: a gradient stencil that is exact on quadratic polynomials from the start, and learns how smooth the field is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.directional import DirectionalTask, Split
from neuralpde.directional_method import DirectionalMethod, Estimator, Told, nearest_count, node_gradient
from neuralpde.sensor_training import fit_network
from operators import PointCloud
from operators.consistent import ConsistentGradient
from operators.consistent_kernels import GaussianKernel
from operators.consistent_moments import Moments
from operators.neighbours import nearest_distances

# Below this part of the slopes' mean square an error is rounding, and its logarithm would be noise.
ROUNDING = 1e-18


@dataclass(frozen=True)
class LearnedKernel(DirectionalMethod):
    """The gradient of the best linear estimate from the nearest neighbours, under quadratic consistency.

    The weights minimise the expected error for fields with the covariance exp(−½ Σ_a (x_a/ℓ_a)²) and a relative noise, among
    those that are exact on polynomials of degree ≤ order. The lengths ℓ and the noise are learned: the logarithm of the mean
    squared error on the training edges is minimised by Adam. Whatever they are, the stencil is consistent.

    Args:
        neighbours: nearest points in a stencil.
        order: of the polynomials.
        steps: of Adam.
    """

    neighbours: int = 30
    order: int = 2
    steps: int = 30
    name: ClassVar[str] = "ours"

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        moments = Moments(task.cloud, nearest_count(task.cloud, self.neighbours), self.order)
        spacing = float(torch.as_tensor(nearest_distances(task.cloud.array)).median())
        kernel = GaussianKernel([3 * spacing] * 2, noise=1e-9)
        stencil = ConsistentGradient(moments, kernel=kernel)
        scale = task.slopes[split.train].square().mean()

        def error(edges: Tensor) -> Tensor:
            misfit = task.along(node_gradient(stencil, task)) - task.slopes
            return misfit[edges].square().mean() / scale

        fit_network(
            stencil,
            lambda step, random: torch.log(error(split.train) + ROUNDING),
            lambda: float(error(split.validation).detach()),
            steps=self.steps,
            learning_rate=0.15,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
        )
        return _OfKernel(stencil, self)


class _OfKernel(Estimator):
    def __init__(self, stencil: ConsistentGradient, settings: LearnedKernel) -> None:
        self.stencil, self.settings = stencil, settings

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.stencil.parameters())

    def estimate(self, task: DirectionalTask) -> Tensor:
        return task.along(node_gradient(self._on(task.cloud), task))

    def _on(self, cloud: PointCloud) -> ConsistentGradient:
        if cloud is self.stencil.moments.cloud:
            return self.stencil
        return self.stencil.on(Moments(cloud, nearest_count(cloud, self.settings.neighbours), self.settings.order))
