"""The spatial difference layer of PA-DGN, trained to give the Laplacian of many functions at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.laplacian_983 import Torus
from neuralpde.laplacian_983_method import Estimator, LaplacianMethod, Samples, Told
from neuralpde.sensor_training import fit_network
from operators import cotangent_laplacian
from operators.graph_network import GraphNetwork, NetworkShape
from operators.pattern import SparsityPattern

AT_ONCE = 500


class _Geometry:
    """What the network reads: positions, offsets and lengths in units of the mean spacing h, and base weights b_ij h²."""

    def __init__(self, torus: Torus, on_mesh: bool) -> None:
        source, target = torus.edges
        n = torus.num_nodes
        self.spacing = n**-0.5
        self.pattern = SparsityPattern(target, source, (n, n))
        offsets = torus.offsets[self.pattern.order] / self.spacing
        lengths = torch.linalg.vector_norm(offsets, dim=1, keepdim=True)
        self.base = _mesh_weights(torus)[self.pattern.order] * self.spacing**2 if on_mesh else torch.ones(len(lengths))
        self.nodes = (4 * torus.points - 2).float()
        self.links = torch.cat([offsets, lengths, self.base[:, None]], dim=1).float()


def _mesh_weights(torus: Torus) -> Tensor:
    """−C_ij / m_i of the cotangent Laplacian on the edges, (E,)."""
    laplacian = cotangent_laplacian(torus.mesh)
    stiffness, size = laplacian.stiffness, torus.padded.num_nodes
    key = stiffness.pattern.row * size + stiffness.pattern.col
    source, target = torus.pairs
    place = torch.searchsorted(key, target * size + source)
    return -stiffness.values[place] / laplacian.mass[target]


class _Layer(nn.Module):
    """(w∆f)_i = Σ_j b_ij w1_ij (f_i − w2_ij f_j), eq. 1, the weights 1 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = GraphNetwork(2, 4, 2, NetworkShape(width=width), dtype=torch.float32)
        nn.init.zeros_(self.network.output.weight)
        nn.init.ones_(self.network.output.bias)

    def forward(self, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        """The coefficients of −f_i and of f_j in h² ∂²f, each (E,), float64."""
        w = self.network(geometry.nodes, geometry.links, geometry.pattern).double()
        first = w[:, 0] * geometry.base
        return first, first * w[:, 1]


class _ExpectedError:
    """The relative squared error of any stencil on the neighbours, over all functions at all nodes, as a quadratic form.

    Σ_i E(Σ_j s_ij u_j − y_i)² / Σ_i E y_i² with u the values at i and its neighbours: the means E u uᵀ and E u y are taken
    once, so that a step of training costs the same for ten functions and for ten thousand.
    """

    def __init__(self, geometry: _Geometry, samples: Samples) -> None:
        pattern = geometry.pattern
        n, count = pattern.shape[0], len(samples.values)
        self.pattern, self.slot = pattern, torch.arange(pattern.nnz) - pattern.crow[:-1][pattern.row] + 1
        self.width = int(self.slot.max()) + 1
        nodes = torch.arange(n)[:, None].repeat(1, self.width)
        nodes[pattern.row, self.slot] = pattern.col
        used = torch.zeros(n, self.width, dtype=torch.float64)
        used[:, 0] = used[pattern.row, self.slot] = 1
        self.second = torch.zeros(n, self.width, self.width, dtype=torch.float64)
        self.mixed = torch.zeros(n, self.width, dtype=torch.float64)
        self.total = 0.0
        for values, laplacians in zip(
            *(torch.split(each, AT_ONCE) for each in (samples.values, samples.laplacians)), strict=True
        ):
            read = (values[:, nodes] * used).permute(1, 2, 0)
            target = laplacians.mT * geometry.spacing**2
            self.second += read @ read.mT / count
            self.mixed += (read @ target[..., None])[..., 0] / count
            self.total += float(target.square().sum()) / count

    def __call__(self, own: Tensor, other: Tensor) -> Tensor:
        stencil = self.mixed.new_zeros(self.mixed.shape).index_put((self.pattern.row, self.slot), other)
        centre = torch.zeros(len(stencil), dtype=torch.float64).index_add(0, self.pattern.row, own)
        stencil = torch.cat([stencil[:, :1] - centre[:, None], stencil[:, 1:]], dim=1)
        square = ((self.second @ stencil[..., None])[..., 0] * stencil).sum()
        return (square - 2 * (stencil * self.mixed).sum()) / self.total + 1


@dataclass(frozen=True)
class DifferenceLayer(LaplacianMethod):
    """The spatial difference layer on the triangulation, its base weights those of the cotangent Laplacian.

    A graph network of one hop gives w1 and w2 on each edge. It reads positions, offsets, lengths and base weights and not
    the values, since the operator sought is linear; it is trained on all functions at once.

    Args:
        steps: of Adam.
        learning_rate: at the start.
        width: of the network.
    """

    steps: int = 600
    learning_rate: float = 3e-3
    width: int = 64
    name: ClassVar[str] = "sdl"
    on_mesh: ClassVar[bool] = True

    def fit(self, torus: Torus, train: Samples, validation: Samples, seed: int, checkpoint: Path, told: Told) -> Estimator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = _Layer(self.width)
        geometry = _Geometry(torus, self.on_mesh)
        error, validated = _ExpectedError(geometry, train), _ExpectedError(geometry, validation)

        def validate() -> float:
            with torch.no_grad():
                return float(validated(*layer(geometry)))

        fit_network(
            layer,
            lambda step, random: error(*layer(geometry)),
            validate,
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
            every=max(1, self.steps // 20),
        )
        return _OfLayer(layer, self.on_mesh)


@dataclass(frozen=True)
class GraphDifferenceLayer(DifferenceLayer):
    """The same with base weights one, as on a graph without a mesh."""

    name: ClassVar[str] = "sdl-graph"
    on_mesh: ClassVar[bool] = False


class _OfLayer(Estimator):
    def __init__(self, layer: _Layer, on_mesh: bool) -> None:
        self.layer, self.on_mesh = layer, on_mesh

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.layer.parameters())

    def estimate(self, torus: Torus, values: Tensor) -> Tensor:
        geometry = _Geometry(torus, self.on_mesh)
        own, other = self.layer(geometry)
        row, column = geometry.pattern.row, geometry.pattern.col
        change = other * values[:, column] - own * values[:, row]
        result: Tensor = torch.zeros_like(values).index_add(1, row, change) / geometry.spacing**2
        return result
