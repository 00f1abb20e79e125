"""The models that the main job compares, each a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from integrators import Direct, Dopri5, Euler, Exponential, Solution, TruncatedTaylor
from neuralpde.beltrami import BeltramiFlow
from neuralpde.difference import DifferenceFlow
from neuralpde.heat_data import Surface, Truth
from neuralpde.model import AttachPositions, KeepChannels, NeuralPDE, PadChannels
from neuralpde.unitary import UnitaryFlow
from operators import (
    Laplacian,
    Movable,
    ScaledDotProduct,
    SpatialDifference,
    TriangleMesh,
    adjacency_of,
    normalized_laplacian,
    robust_laplacian,
)

WIDTH = 8
T_MAX = 3
# Every learned rate starts a factor of ten away from the truth (1), so that finding it is learning.
STARTING_RATE = 0.1


@dataclass(frozen=True)
class Learned:
    """A model to train: its name in tables, how it is built on a surface, and its learning rate."""

    name: str
    title: str
    build: Callable[[TriangleMesh, Truth], Movable]
    learning_rate: float


def relaxed(mesh: TriangleMesh, truth: Truth) -> NeuralPDE:
    """The unitary flow with learned dissipation, on the surface's own operator, solved exactly."""
    flow = UnitaryFlow(truth.laplacian(mesh), WIDTH, dissipation=STARTING_RATE, scale=0.01)
    return NeuralPDE(flow, Exponential(gradient=Direct()), PadChannels(WIDTH), KeepChannels(1))


def unitary(mesh: TriangleMesh, truth: Truth) -> NeuralPDE:
    """The strict unitary flow on the same operator, solved exactly."""
    flow = UnitaryFlow(truth.laplacian(mesh), WIDTH)
    return NeuralPDE(flow, Exponential(gradient=Direct()), PadChannels(WIDTH), KeepChannels(1))


def truncated(mesh: TriangleMesh, truth: Truth) -> PerFrame:
    """As published: exp(Ã x W) on the robust weights without mass or time, cut off at T_max, one step a frame."""
    flow = UnitaryFlow(normalized_laplacian(robust_laplacian(mesh)), WIDTH, adjacency=True)
    return PerFrame(flow, TruncatedTaylor(dt=math.inf, order=T_MAX, gradient=Direct()), PadChannels(WIDTH), KeepChannels(1))


class PerFrame(NeuralPDE):
    """A model whose unit of time is the first interval asked for: it does not know how long a frame lasts."""

    def solve(self, y0: Tensor, t: Tensor | Sequence[float]) -> Solution:
        times = torch.as_tensor(t, dtype=torch.float64)
        return super().solve(y0, (times - times[0]) / (times[1] - times[0]))


def beltrami(mesh: TriangleMesh, truth: Truth) -> NeuralPDE:
    """The Beltrami flow of the field joined with the vertex positions."""
    diffusivity = ScaledDotProduct(robust_laplacian(mesh), channels=1 + mesh.vertices.shape[1])
    flow = BeltramiFlow(diffusivity, STARTING_RATE)
    return NeuralPDE(flow, Dopri5(rtol=1e-4, atol=1e-6, gradient=Direct()), AttachPositions(mesh), KeepChannels(1))


def difference(mesh: TriangleMesh, truth: Truth) -> NeuralPDE:
    """The learned difference flow, one Euler step a frame, as PA-DGN steps."""
    flow = DifferenceFlow(SpatialDifference(robust_laplacian(mesh)), STARTING_RATE)
    return NeuralPDE(flow, Euler(dt=math.inf, gradient=Direct()))


class GraphConvolutions(Movable):
    """y ← y + GCN(y, log mass, dt·rate), one step a frame (Kipf and Welling 2017).

    It sees what the flows see: the weights of the surface, its masses and the time step, never the rate.
    """

    def __init__(self, laplacian: Laplacian, width: int, layers: int = 3) -> None:
        super().__init__()
        self.surface = _ConvolutionGeometry(laplacian)
        sizes = [3, *[width] * (layers - 1), 1]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        # It starts as persistence, like a residual network; at random weights a rollout of 196 steps explodes.
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, y0: Tensor, t: Tensor) -> Tensor:
        """The observed field at every time; y0 (..., n, 1) → (T, ..., n, 1)."""
        y, path = y0, [y0]
        for dt in (t[1:] - t[:-1]).tolist():
            y = y + self.step(y, dt)
            path.append(y)
        return torch.stack(path)

    def step(self, y: Tensor, dt: float) -> Tensor:
        """The change of y over dt."""
        surface = self.surface
        told = torch.stack([surface.log_mass, dt * surface.rate], dim=1)
        x = torch.cat([y, told.expand(*y.shape[:-1], 2)], dim=-1)
        for k, layer in enumerate(self.layers):
            x = layer(surface.average(x))
            if k + 1 < len(self.layers):
                x = torch.relu(x)
        return x


class _ConvolutionGeometry(nn.Module):
    log_mass: Tensor
    rate: Tensor

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        edges = adjacency_of(laplacian)
        degree = edges.row_sums()
        # Ã = D^-½ (W + D̄ I) D^-½ as GCN has it, its self-loop as heavy as all the other edges of a node together.
        root = torch.where(degree > 0, 2 * degree, 1.0).rsqrt()
        self.adjacency = edges.scaled(root, root)
        self.register_buffer("log_mass", (laplacian.mass / laplacian.mass.mean()).log(), persistent=False)
        self.register_buffer("rate", degree / laplacian.mass, persistent=False)

    def average(self, x: Tensor) -> Tensor:
        mean: Tensor = self.adjacency(x) + x / 2
        return mean

    def on(self, domain: Any) -> _ConvolutionGeometry:
        return _ConvolutionGeometry(self.laplacian.on(domain))


def gcn(mesh: TriangleMesh, truth: Truth) -> GraphConvolutions:
    """A GCN with about as many parameters as the largest of the flows."""
    laplacian = robust_laplacian(mesh)
    size = parameters(difference(mesh, truth))
    return min(
        (GraphConvolutions(laplacian, width) for width in range(4, 64, 2)), key=lambda m: abs(parameters(m) - size)
    )


LEARNED = (
    Learned("gcn", "GCN of equal size", gcn, 1e-3),
    Learned("unitary", "unitary, strict", unitary, 3e-2),
    Learned("truncated", f"unitary, truncated at T = {T_MAX}", truncated, 3e-3),
    Learned("relaxed", "unitary, dissipative", relaxed, 3e-2),
    Learned("beltrami", "Beltrami flow", beltrami, 3e-2),
    Learned("difference", "learned differences", difference, 1e-2),
)
TITLES = {
    "zero": "zero",
    "persistence": "persistence",
    "stencil": "stencil, one fitted rate",
    **{model.name: model.title for model in LEARNED},
}


def parameters(model: nn.Module) -> int:
    """The number of learned numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def fit_stencil(surfaces: Iterable[tuple[Surface, Laplacian]], frames: int, conditions: int) -> float:
    """The rate a of y ← y − a dt L y that fits the training frames best in least squares, each surface weighted alike."""
    overlap = square = 0.0
    for surface, laplacian in surfaces:
        y = surface.frames[:conditions, :frames].double()
        slope = -surface.dt * laplacian.to(torch.float64)(y[:, :-1])
        change = y[:, 1:] - y[:, :-1]
        weight = 1 / float((change * change).sum())
        overlap += weight * float((slope * change).sum())
        square += weight * float((slope * slope).sum())
    return overlap / square


def stencil_rollout(laplacian: Laplacian, rate: float, y0: Tensor, t: Tensor) -> Tensor:
    """y ← y − a dt L y at every time of t; y0 (..., n, 1) → (T, ..., n, 1)."""
    path = [y0]
    for dt in (t[1:] - t[:-1]).tolist():
        path.append(path[-1] - rate * dt * laplacian(path[-1]))
    return torch.stack(path)
