"""The unitary methods of MeshPDE's tables: strictly unitary, and relaxed as R-UniMesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import root_mean_square
from neuralpde.mesh_pde import Pde
from neuralpde.mesh_training import Network, SceneModel
from neuralpde.uni_graph import MLPDecoder, RUniGraph
from neuralpde.uni_mesh import RUniMesh, moved_to
from operators import Operator, normalized_adjacency


class UnitaryStep(SceneModel):
    """y' = the first channel of exp(Ã · W_k) … exp(Ã · W_1) [y₅, y₄, …, y₁, 0, …, 0].

    The encoder keeps the norm and the Rayleigh quotient of the five frames together; to smooth, it can but move energy into the
    channels that are not read. It starts near persistence.
    """

    def __init__(self, scene: Scene, width: int, layers: int, scale: float) -> None:
        super().__init__()
        self.net = RUniGraph(_adjacency(scene), width, layers, order=None, scale=scale)

    def forward(self, frames: Tensor, context: Tensor | None) -> Tensor:
        return self.net.encoded(frames.flip(1).squeeze(-1).transpose(1, 2))[..., :1]

    def on(self, scene: Scene) -> UnitaryStep:
        """The same step on another scene."""
        return moved_to(self, _adjacency(scene))


class RUniMeshStep(SceneModel):
    """y' = y₅ + d g(y₅/s, (y₅ − y₄)/d, …, (y₂ − y₁)/d), g an `RUniMesh` and s, d the sizes of frames and differences.

    The paper's model returns y' itself from the frames as they are. Here its input and output are of size one on every mesh and
    at every time, as for the other networks of the table; of area, mass and time step it is told nothing.
    """

    def __init__(self, scene: Scene, width: int, layers: int, order: int, hidden: Sequence[int]) -> None:
        super().__init__()

        def decoder(operator: Operator, width: int, outputs: int) -> MLPDecoder:
            made = MLPDecoder((width, *hidden, outputs), dtype=operator.dtype)
            # It starts as persistence: a rollout of 196 steps with random weights would explode.
            for parameter in made[-1].parameters():
                nn.init.zeros_(parameter)
            return made

        self.net = RUniMesh(_adjacency(scene), width, layers, order=order, decoder=decoder)

    def forward(self, frames: Tensor, context: Tensor | None) -> Tensor:
        differences = frames.diff(dim=1)
        size, step = root_mean_square(frames), root_mean_square(differences)
        seen = torch.cat([frames[:, -1:] / size, differences.flip(1) / step], dim=1)
        change = self.net(seen.squeeze(-1).transpose(1, 2))
        following: Tensor = frames[:, -1] + step[:, 0] * change
        return following

    def on(self, scene: Scene) -> RUniMeshStep:
        """The same step on another scene."""
        return moved_to(self, _adjacency(scene))


def _adjacency(scene: Scene) -> Operator:
    return normalized_adjacency(scene.robust)


@dataclass(frozen=True)
class Unitary(Network):
    """Strictly unitary: exact Lie layers between padding and reading one channel, the identity for activation.

    Args:
        width: of the layers.
        layers: their number.
        scale: of W at the start.
    """

    name: ClassVar[str] = "unitary"
    steps: int = 300
    learning_rate: float = 1e-2
    windows: int = 1
    width: int = 16
    layers: int = 2
    scale: float = 0.1

    def build(self, scene: Scene, context: int) -> UnitaryStep:
        return UnitaryStep(scene, self.width, self.layers, self.scale)


@dataclass(frozen=True)
class RUniMeshMethod(Network):
    """R-UniMesh: padding, Lie layers cut off at T_max with GroupSort between them, and a perceptron.

    The paper trains 216,000 steps of one window, 9 or 10 layers and raw frames. Here fewer layers leave numbers to the decoder,
    frames are scaled (`RUniMeshStep`), and windows of several paces show on one mesh what otherwise takes several.

    Args:
        width: of the layers.
        layers: k.
        order: T_max.
        hidden: the widths inside the decoder.
    """

    name: ClassVar[str] = "r-unimesh"
    steps: int = 600
    learning_rate: float = 3e-3
    windows: int = 1
    paces: int = 5
    width: int = 64
    layers: int = 3
    order: int = 3
    hidden: tuple[int, ...] = (128, 128)

    def build(self, scene: Scene, context: int) -> RUniMeshStep:
        return RUniMeshStep(scene, self.width, self.layers, self.order, self.hidden)


def unitary_methods(pde: Pde) -> list[Network]:
    """The strict and the relaxed method with their settings for an equation: T_max is 3 for heat and 10 elsewhere, as published.

    Noise in training keeps rollouts of waves and of phases from running away; heat, which forgives errors, needs none. Phases
    move at one pace on all meshes, so that other paces would only take their windows.
    """
    relaxed = {Pde.HEAT: RUniMeshMethod(), Pde.CAHN_HILLIARD: RUniMeshMethod(steps=500, order=10, noise=0.2, paces=1)}
    return [Unitary(), relaxed.get(pde, RUniMeshMethod(steps=200, order=10, noise=0.2))]
