"""Graph networks that forecast the next frame's change, trained over a few steps of their own: GCN and R-UniMesh."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neuralpde.climatology import Climatology
from neuralpde.forecast_case import ForecastCase
from neuralpde.forecast_method import ForecastMethod, Learned, Told
from neuralpde.training import Training, train
from neuralpde.uni_graph import GCNDecoder, RUniGraph
from neuralpde.weather_forecasts import Forecast
from neuralpde.weather_record import Times
from neuralpde.weather_scaling import Scaling
from operators import TriangleMesh, normalized_adjacency, normalized_laplacian, robust_laplacian
from operators.group_sort import GroupSort
from operators.operator import Operator


class Stepper(nn.Module):
    """A network from the last frames to the change of the next, rolled out.

    It sees the frames given, the climatology of the time that it forecasts and the static fields, all normalised; its output,
    times the spread of increments over one step, is added to the last frame.

    Args:
        network: (..., n, features) → (..., n, c).
        scaling: of the training span.
        static: (n, m).
    """

    def __init__(self, network: nn.Module, scaling: Scaling, static: Tensor) -> None:
        super().__init__()
        self.network, self.scaling, self.static = network, scaling, static

    def forward(self, inputs: Tensor, climatology: Tensor) -> Tensor:
        """inputs (B, given, n, c) and climatology (B, L, n, c) → (B, L, n, c)."""
        window, path = inputs, []
        for lead in range(climatology.shape[1]):
            seen = self.scaling.normalise(torch.cat([window, climatology[:, lead : lead + 1]], dim=1))
            static = self.static.expand(len(seen), *self.static.shape)
            features = torch.cat([seen.transpose(1, 2).flatten(2), static], dim=-1)
            path.append(window[:, -1] + self.network(features) * self.scaling.increment_std)
            window = torch.cat([window[:, 1:], path[-1][:, None]], dim=1)
        return torch.stack(path, dim=1)


class NetworkForecast(Forecast):
    """A trained `Stepper`."""

    def __init__(self, stepper: Stepper, climatology: Climatology) -> None:
        self.stepper, self.climatology = stepper, climatology

    @torch.no_grad()
    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        forecast: Tensor = self.stepper(inputs, self.climatology.at(times))
        return forecast


@dataclass(frozen=True)
class NetworkMethod(ForecastMethod):
    """A graph network; its loss is the error over increments' spread, weighted by area, over `unroll` steps.

    Args:
        steps: of Adam, with a cosine schedule.
        learning_rate: at the start.
        windows: in a training step.
        unroll: the steps that are forecast in training, fewer where the training span is short.
        width: of the layers.
        layers: their number.
    """

    random: ClassVar[bool] = True

    steps: int = 250
    learning_rate: float = 2e-3
    windows: int = 4
    unroll: int = 3
    width: int = 48
    layers: int = 4

    @abstractmethod
    def network(self, case: ForecastCase, inputs: int, outputs: int) -> nn.Module:
        """The network on the case's mesh, (..., n, inputs) → (..., n, outputs), with weights from torch's generator."""

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        torch.manual_seed(seed)
        channels = len(case.train.variables)
        inputs = channels * (case.inputs + 1) + case.static.shape[1]
        scaling = Scaling.of(case.train)
        stepper = Stepper(self.network(case, inputs, channels), scaling, case.static)
        windows, weights = case.training_windows(self.unroll), case.weights

        def loss(step: int, random: torch.Generator) -> Tensor:
            batch = windows.sample(self.windows, random)
            error = (stepper(batch.inputs, case.climatology.at(batch.times)) - batch.targets) / scaling.increment_std
            value: Tensor = (weights * error.square()).sum(-2).mean()
            return value

        def show(training: Training) -> None:
            told(training.step, self.steps, f"loss {np.mean(training.losses[-20:]):.3g}")

        notes = {"method": repr(self), "case": case.name}
        train(
            stepper,
            loss,
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            notes=notes,
            progress=show,
        )
        return Learned(NetworkForecast(stepper, case.climatology), sum(p.numel() for p in stepper.parameters()))


@dataclass(frozen=True)
class GCNMethod(NetworkMethod):
    """Graph convolutions on the robust Laplacian's weights with ReLU between them (Kipf and Welling 2017)."""

    name: ClassVar[str] = "gcn"

    def network(self, case: ForecastCase, inputs: int, outputs: int) -> nn.Module:
        return _from_zero(GCNDecoder(_with_loops(case), (inputs, *[self.width] * self.layers, outputs)))


@dataclass(frozen=True)
class RUniMeshMethod(NetworkMethod):
    """Zero-padding, unitary layers with GroupSort, a GCN as decoder: R-UniMesh as published, smaller.

    The published one has nine layers of width 256 (590,081 parameters).

    Args:
        order: of the series of each unitary layer, the published T_max = 10.
    """

    name: ClassVar[str] = "r-unimesh"

    order: int = 10

    def network(self, case: ForecastCase, inputs: int, outputs: int) -> nn.Module:
        similarity = normalized_laplacian(robust_laplacian(_mesh(case))).complement()
        width = max(self.width, inputs + inputs % 2)
        decoder = _from_zero(GCNDecoder(_with_loops(case), (width, width, outputs)))
        return RUniGraph(similarity, width, self.layers, order=self.order, activation=GroupSort, decoder=decoder)


def _mesh(case: ForecastCase) -> TriangleMesh:
    mesh = case.train.place.mesh
    return TriangleMesh(mesh.vertices.float(), mesh.faces)


def _with_loops(case: ForecastCase) -> Operator:
    return normalized_adjacency(robust_laplacian(_mesh(case)))


def _from_zero(decoder: GCNDecoder) -> GCNDecoder:
    """It starts as persistence, like a residual network: at random weights long rollouts explode."""
    for parameter in decoder.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return decoder
