"""Learned diffusion in the spectrum of the surface, and pointwise networks (in the manner of DiffusionNet, Sharp et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import GraphNetwork, perceptron, starting_at_zero
from neuralpde.mesh_training import Network
from operators import Eigenpairs, TriangleMesh, eigenpairs, robust_laplacian


@lru_cache(maxsize=32)
def spectrum(mesh: TriangleMesh, modes: int) -> Eigenpairs:
    """The smoothest modes of the robust Laplacian; kept, since every seed asks for the same."""
    laplacian = robust_laplacian(mesh)
    return eigenpairs(laplacian, min(modes, laplacian.shape[0] - 1)).to(mesh.vertices.dtype)


class Spectrum(nn.Module):
    """λ_k A, dimensionless with the surface's area A, and the modes."""

    values: Tensor
    vectors: Tensor
    weighted: Tensor

    def __init__(self, scene: Scene, modes: int) -> None:
        super().__init__()
        self.modes = modes
        pairs = spectrum(scene.mesh, modes)
        self.register_buffer("values", pairs.values.clamp(min=0) * scene.robust.mass.sum(), persistent=False)
        self.register_buffer("vectors", pairs.vectors, persistent=False)
        self.register_buffer("weighted", pairs.weighted, persistent=False)

    def on(self, scene: Scene) -> Spectrum:
        """The spectrum of another scene."""
        return Spectrum(scene, self.modes)


class DiffusionBlock(nn.Module):
    """x ← x + ψ(x, V exp(−Λ t) Vᵀ M x), a learned time t ≥ 0 for every channel.

    The times start between 1e-4 and 1e-1 of the surface's area.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_time = nn.Parameter(torch.linspace(math.log(1e-4), math.log(1e-1), width))
        self.mix = perceptron(2 * width, width, width)

    def forward(self, x: Tensor, spectrum: Spectrum) -> Tensor:
        response = torch.exp(-spectrum.values[:, None] * self.log_time.exp())
        coefficients = (spectrum.weighted.T @ x.flatten(1)).reshape(-1, *x.shape[1:])
        smooth = (spectrum.vectors @ (coefficients * response[:, None]).flatten(1)).reshape(x.shape)
        mixed: Tensor = x + self.mix(torch.cat([x, smooth], dim=-1))
        return mixed


class Diffusions(GraphNetwork):
    """An encoder of the nodes, blocks of learned diffusion, and a decoder.

    Args:
        width: channels.
        blocks: of diffusion and mixing.
        modes: of the spectrum that diffusion acts on.
    """

    def __init__(self, scene: Scene, context: int, width: int, blocks: int, modes: int) -> None:
        super().__init__(scene, context)
        self.spectrum = Spectrum(scene, modes)
        self.encoder = nn.Linear(self.inputs, width)
        self.blocks = nn.ModuleList([DiffusionBlock(width) for _ in range(blocks)])
        self.decoder = starting_at_zero(nn.Linear(width, 1))

    def change(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x, self.spectrum)
        decoded: Tensor = self.decoder(x)
        return decoded


@dataclass(frozen=True)
class Spectral(Network):
    """A network of spectral diffusions, without gradient features."""

    name: ClassVar[str] = "spectral"
    steps: int = 160
    learning_rate: float = 2e-3
    noise: float = 0.2
    paces: int = 5
    width: int = 56
    blocks: int = 4
    modes: int = 96

    def build(self, scene: Scene, context: int) -> Diffusions:
        return Diffusions(scene, context, self.width, self.blocks, self.modes)
