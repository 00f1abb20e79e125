"""Linear forecasts from fixed differences: each sensor weighs its own gradient and Laplacian (PA-DGN's StandardOP and MeshOP)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.difference_regression_learned import LearnedDifferenceRegression
from neuralpde.difference_regression_operators import (
    edge_features,
    least_squares_features,
    mesh_features,
    ring_features,
    standard_features,
)
from neuralpde.files import RunFolderError
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import Stepping, time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import drawn, fit_network, spread_out, training_frames
from operators.difference_graph import DelaunayEdges, KNearest


class DifferenceRegression(nn.Module):
    """u_i(t + 1) = u_i(t) + Σ_p w_ip (F_p u(t))_i with fixed linear features F_p and learned weights for each sensor.

    Features are divided by their root mean square over the training frames: the weights then are of one size.

    Args:
        features: (p, n, n).
        frames: (K, T, n, c), from which those are measured.
    """

    features: Tensor

    def __init__(self, features: Tensor, frames: Tensor) -> None:
        super().__init__()
        values = torch.einsum("pij,ktjc->pktic", features.to(frames), frames[:: max(1, len(frames) // 64)])
        size = values.square().mean((1, 2, 4)).sqrt()
        # A feature that is next to nothing, such as a difference of coincident sensors, is not blown up.
        size = torch.maximum(size, size.median(dim=1, keepdim=True).values / 100)
        self.register_buffer("features", features.to(frames) / torch.where(size > 0, size, 1.0)[..., None], persistent=False)
        self.weights = nn.Parameter(torch.zeros(frames.shape[-1], *features.shape[:2]))

    @property
    def step(self) -> Tensor:
        """u(t) ↦ u(t + 1) for each channel, (c, n, n)."""
        return torch.eye(self.features.shape[1]).to(self.features) + torch.einsum("cpi,pij->cij", self.weights, self.features)

    def forward(self, now: Tensor, steps: int) -> Tensor:
        """A frame (K, n, c) → the next (K, steps, n, c)."""
        step, path = self.step.mT, []
        state = now.permute(2, 0, 1)
        for _ in range(steps):
            state = state @ step
            path.append(state)
        return torch.stack(path).permute(2, 0, 3, 1)


@dataclass(frozen=True)
class FixedDifferences(SensorMethod):
    """`DifferenceRegression`, trained on whole forecasts. Its weights belong to the sensors, so it is bound to them.

    Args:
        steps: of Adam.
        learning_rate: at the start.
        batch: windows in each.
    """

    random: ClassVar[bool] = False
    bound: ClassVar[bool] = True
    through_time: ClassVar[bool] = True
    """Whether the gradient goes through the frames that were forecast before."""

    steps: int = 400
    learning_rate: float = 0.01
    batch: int = 32

    @abstractmethod
    def features(self, placement: Placement) -> Tensor:
        """(p, n, n)."""

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        if len(train) != 1:
            raise RunFolderError(f"{self.name} learns one placement, not {len(train)}: fit it to each by itself")
        step, given = time_step(train), train[0].given
        frames = training_frames(train, step)
        model = DifferenceRegression(self.features(train[0].placement), frames[0])
        forecaster = LinearForecaster(step, model)
        cases = spread_out(validation, 48)

        def loss(number: int, random: torch.Generator) -> Tensor:
            _, windows = drawn(frames, self.batch, random)
            targets = windows[:, given:]
            if self.through_time:
                error: Tensor = model(windows[:, given - 1], targets.shape[1]) - targets
                return error.square().mean()
            with torch.no_grad():
                path = model(windows[:, given - 1], targets.shape[1] - 1)
            before = torch.cat([windows[:, :given], path], dim=1)
            error = model(before.flatten(0, 1), 1)[:, 0] - windows[:, 1:].flatten(0, 1)
            return error.square().mean()

        fit_network(
            model,
            loss,
            lambda: mean_error(forecaster, cases),
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
            every=25,
        )
        return forecaster


class LinearForecaster(Stepping):
    """A trained regression."""

    def __init__(self, step: float, model: DifferenceRegression) -> None:
        super().__init__(step, lags=1)
        self.model = model

    @property
    def parameters(self) -> int:
        return self.model.weights.numel()

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        path: Tensor = self.model(frames[:, -1], steps)
        return path


@dataclass(frozen=True)
class StandardRegression(FixedDifferences):
    """StandardOP on the graph of nearest neighbours: Σ_j e_ij (u_i − u_j) and Σ_j (u_i − u_j).

    Args:
        neighbours: k.

    Source: Seo, Meng and Liu 2020, §2.1 and §3.2.
    """

    name: ClassVar[str] = "standard-op"

    neighbours: int = 4

    def features(self, placement: Placement) -> Tensor:
        return standard_features(placement, KNearest(self.neighbours))


@dataclass(frozen=True)
class StandardDelaunayRegression(FixedDifferences):
    """StandardOP on the Delaunay graph (their Table 5, TriMesh)."""

    name: ClassVar[str] = "standard-op-delaunay"

    def features(self, placement: Placement) -> Tensor:
        return standard_features(placement, DelaunayEdges())


@dataclass(frozen=True)
class RingRegression(FixedDifferences):
    """MeshOP as published: on the ring of triangles that the nearest neighbours of each sensor make around it.

    With absolute cotangents, and without the gradient through time, as the authors have it.

    Args:
        neighbours: k.

    Source: Seo, Meng and Liu 2020, §2.2 and §3.2.
    """

    name: ClassVar[str] = "mesh-op"
    through_time: ClassVar[bool] = False

    neighbours: int = 4

    def features(self, placement: Placement) -> Tensor:
        return ring_features(placement, self.neighbours)


@dataclass(frozen=True)
class MeshRegression(FixedDifferences):
    """MeshOP on a proper Delaunay triangulation, obtuse cotangents negative."""

    name: ClassVar[str] = "mesh-op-delaunay"

    def features(self, placement: Placement) -> Tensor:
        return mesh_features(placement)


@dataclass(frozen=True)
class LeastSquaresRegression(FixedDifferences):
    """The gradient and the Laplacian of local quadratic fits, which are consistent and untrained."""

    name: ClassVar[str] = "least-squares"

    def features(self, placement: Placement) -> Tensor:
        return least_squares_features(placement)


@dataclass(frozen=True)
class FreeStencil(FixedDifferences):
    """A free weight for every edge of the graph of nearest neighbours, and for every sensor: any linear 1-hop model.

    Args:
        neighbours: k.
    """

    name: ClassVar[str] = "free-stencil"

    neighbours: int = 4

    def features(self, placement: Placement) -> Tensor:
        return edge_features(placement, self.neighbours)


def difference_methods() -> tuple[SensorMethod, ...]:
    """The rows of linear forecasts from differences that every table has: fixed ones, least squares and learned ones."""
    return StandardRegression(), RingRegression(), LeastSquaresRegression(), LearnedDifferenceRegression()
