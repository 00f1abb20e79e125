"""A mesh with its simulated trajectories, and what of it a method may see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from neuralpde.heat_data import GIVEN_FRAMES, Truth
from operators import Laplacian, TriangleMesh, robust_laplacian


@dataclass(frozen=True)
class Scene:
    """What every method is told of a mesh.

    Args:
        name: in tables.
        mesh: in float32.
        dt: the time between two frames, in the units of the equation.
        truth: which operator the simulation stood on.
    """

    name: str
    mesh: TriangleMesh
    dt: float
    truth: Truth

    @cached_property
    def laplacian(self) -> Laplacian:
        """The operator of the simulation, with mass, in 1/length²: S = M^-½ C M^-½ as published, M⁻¹ C of the surface."""
        return self.truth.laplacian(self.mesh)

    @cached_property
    def robust(self) -> Laplacian:
        """The robust Laplacian, whose weights are the graph of the graph networks."""
        return robust_laplacian(self.mesh)


@dataclass(frozen=True)
class Given:
    """What a method sees of some trajectories on one mesh.

    Args:
        frames: the first frames (K, 5, n, 1), as observed.
        context: known fields of each trajectory (K, n, m), for example the material; None where there are none.
    """

    scene: Scene
    frames: Tensor
    context: Tensor | None = None


@dataclass(frozen=True)
class Case:
    """Trajectories on one mesh, in float32.

    Args:
        frames: (K, T, n, 1), as observed.
        clean: the same without noise; `frames` itself where there is none.
        context: known fields of each trajectory (K, n, m).
    """

    scene: Scene
    frames: Tensor
    clean: Tensor
    context: Tensor | None = None

    @property
    def given(self) -> Given:
        """The first five frames."""
        return Given(self.scene, self.frames[:, :GIVEN_FRAMES], self.context)

    def first(self, trajectories: int, frames: int) -> Case:
        """The first trajectories and frames alone: what is trained on."""
        context = None if self.context is None else self.context[:trajectories]
        return replace(
            self, frames=self.frames[:trajectories, :frames], clean=self.clean[:trajectories, :frames], context=context
        )
