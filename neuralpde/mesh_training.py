"""How a network learns one frame from five on several meshes, unrolled over the frames that follow."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.mesh_method import Fitted, Method, Told, autoregressive
from neuralpde.training import Training, train
from operators import Movable


class SceneModel(Movable):
    """A learned step from five frames to the next; `on` moves it to another scene, with the same parameters.

    Its children that have an `on` are given the scene; a model of operators of the mesh alone hands `scene.mesh` on instead.
    """

    def forward(self, frames: Tensor, context: Tensor | None) -> Tensor:
        """The next frame.

        Args:
            frames: (K, 5, n, 1), the last one newest.
            context: known fields (K, n, m), or None.

        Returns:
            (K, n, 1).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Network(Method):
    """A network trained on windows of the training trajectories, by the error of a few autoregressive steps.

    A window's loss is the mean over its steps of ‖y' − y‖² / ‖y − y₀‖², with y₀ the last given frame: persistence scores 1.
    Every step of training takes one mesh, in turn, and draws its windows from that mesh alone.

    Args:
        steps: of Adam, with a cosine schedule.
        learning_rate: at the start.
        windows: in a training step.
        unroll: the number of autoregressive steps of a window.
        noise: added to the given frames while training, in units of the root mean square of their differences, so that a rollout
            learns to live with its own errors (Sanchez-Gonzalez et al. 2020).
        paces: windows are also of every second, ..., `paces`-th frame, with a time step so much longer: one mesh then shows
            several rates.
    """

    steps: int = 300
    learning_rate: float = 1e-3
    windows: int = 2
    unroll: int = 3
    noise: float = 0.0
    paces: int = 1

    @abstractmethod
    def build(self, scene: Scene, context: int) -> SceneModel:
        """The model on a scene, with weights from torch's generator.

        Args:
            context: the number of known fields, 0 if there are none.
        """

    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> FittedNetwork:
        check_cases(cases, self.unroll)
        torch.manual_seed(seed)
        first = cases[0]
        paced = [slower(case, pace) for pace in range(1, self.paces + 1) for case in cases]
        cases = [case for case in paced if case.frames.shape[1] >= GIVEN_FRAMES + self.unroll]
        model = self.build(first.scene, 0 if first.context is None else first.context.shape[-1])
        views = [model.on(case.scene) for case in cases]

        def loss(step: int, random: torch.Generator) -> Tensor:
            k = step % len(cases)
            return window_loss(views[k], cases[k], self.windows, self.unroll, random, self.noise)

        def show(training: Training) -> None:
            told(training.step, self.steps, training.losses[-1])

        began = time.perf_counter()
        training = train(
            model,
            loss,
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            notes={"method": repr(self)},
            progress=show,
        )
        earlier = max(0.0, training.seconds - (time.perf_counter() - began))
        return FittedNetwork(model, training.losses, earlier)


class FittedNetwork(Fitted):
    """A trained network.

    Args:
        losses: of each training step.
        earlier: seconds of training before it was resumed.
    """

    def __init__(self, model: SceneModel, losses: Sequence[float], earlier: float = 0.0) -> None:
        self.model = model
        self.earlier = earlier
        self.losses = list(losses)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @torch.no_grad()
    def rollout(self, given: Given, steps: int) -> Tensor:
        view = self.model.on(given.scene)
        paths = []
        # One at a time: the fields of one trajectory stay in the cache of a core.
        for k in range(len(given.frames)):
            context = None if given.context is None else given.context[k : k + 1]
            paths.append(autoregressive(partial(view, context=context), given.frames[k : k + 1], steps))
        return torch.cat(paths)


def slower(case: Case, pace: int) -> Case:
    """The case with one frame in `pace`, and a time step so much longer."""
    if pace == 1:
        return case
    scene = replace(case.scene, dt=pace * case.scene.dt)
    return replace(case, scene=scene, frames=case.frames[:, ::pace], clean=case.clean[:, ::pace])


def check_cases(cases: Sequence[Case], unroll: int) -> None:
    """Raise RunFolderError where there is nothing to learn from."""
    if not cases:
        raise RunFolderError("there is no mesh to train on: give at least one training case")
    for case in cases:
        if case.frames.shape[1] < GIVEN_FRAMES + unroll:
            raise RunFolderError(
                f"{case.scene.name} has {case.frames.shape[1]} frames to train on, and a window takes {GIVEN_FRAMES} given and "
                f"{unroll} predicted ones: simulate longer, or unroll less"
            )


def window_loss(
    step: Callable[[Tensor, Tensor | None], Tensor],
    case: Case,
    windows: int,
    unroll: int,
    random: torch.Generator,
    noise: float = 0.0,
) -> Tensor:
    """The mean over windows and steps of ‖y' − y‖² / ‖y − y₀‖² along an autoregressive rollout; persistence scores 1."""
    trajectories, frames = case.frames.shape[:2]
    chosen = torch.randint(trajectories, (windows,), generator=random)
    start = torch.randint(frames - GIVEN_FRAMES - unroll + 1, (windows,), generator=random)
    times = start[:, None] + torch.arange(GIVEN_FRAMES + unroll)
    window = case.frames[chosen[:, None], times]
    given, after = window[:, :GIVEN_FRAMES], window[:, GIVEN_FRAMES:]
    context = None if case.context is None else case.context[chosen]
    size = given.diff(dim=1).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    heard = given + noise * size * torch.randn(given.shape, generator=random, dtype=given.dtype) if noise else given
    prediction = autoregressive(lambda seen: step(seen, context), heard, unroll)
    error = (prediction - after).square().sum(dim=(-2, -1))
    change = (after - given[:, -1:]).square().sum(dim=(-2, -1))
    # A field at rest has no change to measure by.
    floor = 1e-10 * window.square().sum(dim=(-2, -1)).mean(dim=1, keepdim=True) + torch.finfo(window.dtype).tiny
    return (error / (change + floor)).mean()
