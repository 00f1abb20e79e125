"""The laws that all trajectories share, learned through the solver together with each trajectory's own unknowns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.hard_assimilation import CORRELATION, Belief, assimilate, noise_of
from neuralpde.hard_flow import Flow, Form, Place
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case

HORIZONS = (8, 8, 24, 24, 60, 150, 150)
DAMPING = 1e-2
SMOOTHNESS = 1.0
"""The prior's standard deviation of second differences of γ."""
LEVEL = 0.01
"""That of the mean of γ: A holds the size of the diffusivity, g its dependence on the material alone."""
NOTHING = Belief(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
GENEROUS = 4.0
"""How many times the training trajectories' variance is believed of new ones: they are few."""


@dataclass(frozen=True)
class Laws:
    """What was learned.

    Args:
        shared: the unknowns after the trajectory's own ones.
        belief: of the own ones of a trajectory never seen.
        misfit: the root mean square of the last residuals, in units of the noise; 1 where the equation is right.
    """

    shared: Tensor
    belief: Belief
    misfit: float


@dataclass
class _Trajectory:
    """A training trajectory with what is believed of it at the moment."""

    place: Place
    material: Tensor
    frames: Tensor
    h: float
    own: Tensor
    first: Tensor
    noise: float

    @property
    def weight(self) -> float:
        """Of a mean square over the surface, so that a residual of the noise's size counts as one a node."""
        return self.frames.shape[1] / self.noise**2


@dataclass(frozen=True)
class _System:
    """Gauss–Newton's equations of one trajectory: gram (q, q), moment (q,), and the sum of squares."""

    gram: Tensor
    moment: Tensor
    square: float


def learn(
    form: Form,
    own: int,
    cases: Sequence[Case],
    horizons: Sequence[int] = HORIZONS,
    told: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Laws:
    """Gauss–Newton's method, damped, over all training trajectories, on longer and longer horizons.

    The first frame of each is estimated anew from its first five, whenever the unknowns have changed.

    Args:
        own: how many unknowns, the first ones, every trajectory has for itself.
        horizons: the last frame of each iteration in turn; those beyond the cases' frames are cut to these.
        told: called with (iteration, iterations, misfit).

    Raises:
        RunFolderError: no cases.
    """
    if not cases:
        raise RunFolderError("there is no mesh to learn from: give at least one training case")
    length = min(case.frames.shape[1] for case in cases) - 1
    start = torch.zeros(sum(form.sizes), dtype=torch.float64)
    # As a first guess a feature spreads by its own length in the whole of a trajectory.
    start[0] = math.sqrt(3) * math.log(CORRELATION**2 / (length * cases[0].scene.dt))
    trajectories = [t for case in cases for t in _trajectories(case, start[:own])]
    shared, prior = start[own:], _prior(form, own)
    damping, misfit = DAMPING, math.inf
    held: tuple[int, float, list[_System], Tensor, list[Tensor]] | None = None
    for iteration, horizon in enumerate(min(h, length) for h in horizons):
        for trajectory in trajectories:
            known, seen = torch.cat([trajectory.own, shared]), trajectory.frames[:GIVEN_FRAMES]
            found = assimilate(trajectory.place, form, trajectory.material, seen, trajectory.h, NOTHING, known)
            trajectory.first = found.first
        systems = [_system(form, t, shared, horizon) for t in trajectories]
        square = sum(system.square for system in systems) + float(shared @ prior @ shared)
        values = [t.own for t in trajectories]
        if held is not None and held[0] == horizon and square > held[1]:
            # Too far: back to where it was, and from there a shorter step.
            _, square, systems, shared, values = held
            damping = 10 * damping
        else:
            damping = damping / 10
        held = horizon, square, systems, shared, values
        misfit = math.sqrt(square / sum(horizon * t.frames.shape[1] for t in trajectories))
        told(iteration + 1, len(horizons), misfit)
        changes, change = _solved(systems, own, prior, shared, damping)
        shared = shared + change if own else form.moved(shared, change)
        for trajectory, value, step in zip(trajectories, values, changes, strict=True):
            trajectory.own = form.moved(value, step)
    return Laws(shared, _belief(form, torch.stack([t.own for t in trajectories])), misfit)


def _trajectories(case: Case, own: Tensor) -> list[_Trajectory]:
    place = Place(case.scene.mesh)
    materials = case.frames.new_zeros(case.frames.shape[0], place.mesh.num_nodes, 1) if case.context is None else case.context
    made = []
    for frames, material in zip(case.frames.double(), materials.double(), strict=True):
        made.append(_Trajectory(place, material[:, 0], frames, case.scene.dt, own, frames[0], noise_of(frames)))
    return made


def _system(form: Form, trajectory: _Trajectory, shared: Tensor, horizon: int) -> _System:
    flow = Flow(trajectory.place, form, trajectory.material, torch.cat([trajectory.own, shared]), trajectory.h)
    u, tangents = trajectory.first, trajectory.first.new_zeros(len(trajectory.first), sum(form.sizes))
    total = torch.zeros(tangents.shape[1] + 1, tangents.shape[1] + 1, dtype=torch.float64)
    for frame in trajectory.frames[1 : horizon + 1]:
        step = flow.step(u, tangents)
        u, tangents = step.state, step.following
        both = torch.cat([tangents, frame - u], dim=1)
        total += trajectory.weight * trajectory.place.inner(both, both)
    return _System(total[:-1, :-1], total[:-1, -1], float(total[-1, -1]))


def _prior(form: Form, own: int) -> Tensor:
    """The precision of the shared unknowns: second differences of γ and their mean are believed small."""
    size = sum(form.sizes)
    precision = torch.zeros(size, size, dtype=torch.float64)
    count = form.material.size
    if count:
        rows = torch.zeros(count - 1, count, dtype=torch.float64)
        for k in range(count - 2):
            rows[k, k : k + 3] = torch.tensor([1.0, -2.0, 1.0]) / SMOOTHNESS
        rows[-1] = 1 / (count * LEVEL)
        precision[size - count :, size - count :] = rows.T @ rows
    return precision[own:, own:]


def _solved(systems: Sequence[_System], own: int, prior: Tensor, shared: Tensor, damping: float) -> tuple[list[Tensor], Tensor]:
    """The step: each trajectory's own unknowns are eliminated, the shared ones solved for."""
    gram, moment = prior.clone(), -prior @ shared
    eliminated = []
    for system in systems:
        G = system.gram + damping * torch.diag(system.gram.diagonal()) + 1e-9 * torch.eye(len(system.gram), dtype=torch.float64)
        inner = torch.linalg.solve(G[:own, :own], torch.cat([G[:own, own:], system.moment[:own, None]], dim=1))
        gram += G[own:, own:] - G[own:, :own] @ inner[:, :-1]
        moment += system.moment[own:] - G[own:, :own] @ inner[:, -1]
        eliminated.append(inner)
    change = torch.linalg.solve(gram, moment)
    changes = [inner[:, -1] - inner[:, :-1] @ change for inner in eliminated]
    return changes, change


def _belief(form: Form, every: Tensor) -> Belief:
    """Mean and variance of the own unknowns (K, p); of the directions of A nothing is believed but how far it is from round."""
    if not every.numel():
        return NOTHING
    mean, variance = every.mean(0), every.var(0, unbiased=len(every) > 1)
    turned = slice(1, min(form.sizes[0], every.shape[1]))
    variance[turned] = every[:, turned].square().mean()
    mean[turned] = 0.0
    return Belief(mean, GENEROUS * variance + 1e-4)
