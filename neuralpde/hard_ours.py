"""Methods that learn shared laws through the solver, and every trajectory's own numbers from its five noisy frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.hard_assimilation import Belief, assimilate
from neuralpde.hard_flow import Flow, Form, Place
from neuralpde.hard_law import MaterialLaw, SourceLaw
from neuralpde.hard_learning import HORIZONS, Laws, learn
from neuralpde.mesh_case import Case, Given
from neuralpde.mesh_method import Fitted, Method, Told

MARGIN = 0.15
"""Beyond the values seen in training, in their range, a source is still its polynomial."""


@dataclass(frozen=True)
class ThroughSolver(Method):
    """∂u/∂t = div (g(m) A ∇u) + f(u), its laws learned through the solver, a trajectory's own unknowns by assimilation.

    Args:
        isotropic: A is one rate, else any positive tensor.
        degree: of the polynomial f; −1 for none.
        intervals: of the splines of log g; 0 for g = 1.
        own_tensor: whether every trajectory has an A of its own, found in its five frames, or all share one.
        own_source: whether it has an f of its own, too.
        horizons: the last frame of each iteration of learning.
    """

    random: ClassVar[bool] = False
    isotropic: bool = False
    degree: int = 5
    intervals: int = 6
    own_tensor: bool = True
    own_source: bool = False
    horizons: tuple[int, ...] = HORIZONS

    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> FittedLaws:
        seen = [(float(case.frames.min()), float(case.frames.max())) for case in cases]
        low, high = min((s[0] for s in seen), default=0.0), max((s[1] for s in seen), default=1.0)
        margin = MARGIN * (high - low)
        form = Form(self.isotropic, SourceLaw(self.degree, low - margin, high + margin), MaterialLaw(self.intervals))
        laws = _read(checkpoint, repr(self))
        if laws is None:
            own = (form.sizes[0] + (form.sizes[1] if self.own_source else 0)) if self.own_tensor else 0
            laws = learn(form, own, cases, self.horizons, told)
            _write(checkpoint, laws, repr(self))
        return FittedLaws(form, laws)


class FittedLaws(Fitted):
    """Laws that were learned. A rollout assimilates the given frames, then solves on from there."""

    def __init__(self, form: Form, laws: Laws) -> None:
        self.form, self.laws = form, laws

    @property
    def parameters(self) -> int:
        """The shared unknowns, and what is believed of the others."""
        return self.laws.shared.numel() + 2 * self.laws.belief.mean.numel()

    @torch.no_grad()
    def rollout(self, given: Given, steps: int) -> Tensor:
        place = Place(given.scene.mesh)
        n, h = place.mesh.num_nodes, given.scene.dt
        material = torch.zeros(len(given.frames), n, 1) if given.context is None else given.context
        rollouts = []
        for frames, m in zip(given.frames.double(), material[..., 0].double(), strict=True):
            found = assimilate(place, self.form, m, frames, h, self.laws.belief, self.laws.shared)
            flow = Flow(place, self.form, m, torch.cat([found.own, self.laws.shared]), h)
            u, path = found.first, []
            for _ in range(len(frames) - 1 + steps):
                u = flow.step(u).state
                path.append(u)
            rollouts.append(torch.stack(path[len(frames) - 1 :]))
        return torch.stack(rollouts).to(given.frames.dtype)


@dataclass(frozen=True)
class HardOurs(ThroughSolver):
    """Ours: any tensor of the trajectory's own, a spline of the material and a polynomial of degree 5 shared by all."""

    name: ClassVar[str] = "ours"


@dataclass(frozen=True)
class SolverRate(ThroughSolver):
    """∂u/∂t = −κ L u with the one rate that fits the training rollouts best."""

    name: ClassVar[str] = "solver-rate"
    isotropic: bool = True
    degree: int = -1
    intervals: int = 0
    own_tensor: bool = False


@dataclass(frozen=True)
class SolverOwnRate(SolverRate):
    """The same with a rate for each trajectory, assimilated from its five frames."""

    name: ClassVar[str] = "solver-rate-own"
    own_tensor: bool = True


@dataclass(frozen=True)
class SolverTwo(SolverRate):
    """∂u/∂t = −κ L u + a + b u with shared numbers."""

    name: ClassVar[str] = "solver-two"
    degree: int = 1


@dataclass(frozen=True)
class SolverOwnTwo(SolverTwo):
    """The same with κ, a and b for each trajectory, assimilated from its five frames."""

    name: ClassVar[str] = "solver-two-own"
    own_tensor: bool = True
    own_source: bool = True


@dataclass(frozen=True)
class SolverCubic(SolverRate):
    """∂u/∂t = −κ L u + a + b u + c u² + d u³ with shared numbers."""

    name: ClassVar[str] = "solver-cubic"
    degree: int = 3


@dataclass(frozen=True)
class SolverOwnCubic(SolverCubic):
    """The same with a rate for each trajectory, assimilated from its five frames."""

    name: ClassVar[str] = "solver-cubic-own"
    own_tensor: bool = True


@dataclass(frozen=True)
class Isotropic(HardOurs):
    """Ours without anisotropy."""

    name: ClassVar[str] = "ours-isotropic"
    isotropic: bool = True


@dataclass(frozen=True)
class Uniform(HardOurs):
    """Ours that is blind to the material."""

    name: ClassVar[str] = "ours-uniform"
    intervals: int = 0


def _read(path: Path, identity: str) -> Laws | None:
    """The laws that were kept there, if they are of this method."""
    if not path.exists():
        return None
    try:
        tensors, notes = read_tensors(path)
        if notes.get("method") == identity:
            return Laws(tensors["shared"], Belief(tensors["mean"], tensors["variance"]), float(notes["misfit"]))
    except (RunFolderError, KeyError):
        path.unlink()
    return None


def _write(path: Path, laws: Laws, identity: str) -> None:
    tensors = {"shared": laws.shared, "mean": laws.belief.mean, "variance": laws.belief.variance}
    write_tensors(path, tensors, {"method": identity, "misfit": laws.misfit})
