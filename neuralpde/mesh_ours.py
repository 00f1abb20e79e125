"""MeshPDE's method `ours`: a structured equation whose form and few coefficients are found in the training cases alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case, Given
from neuralpde.mesh_method import Fitted, Method, Told
from neuralpde.mesh_ours_form import Form
from neuralpde.mesh_ours_linear import Dissipative, Oscillating
from neuralpde.mesh_ours_phase import Phase
from neuralpde.mesh_ours_search import AHEAD, FAILURES, SMALL, learn, loss, windows
from neuralpde.mesh_ours_transport import Transport
from neuralpde.metrics import nrmse

Candidate = Callable[[Sequence[Case]], Form]

CANDIDATES: tuple[Candidate, ...] = (
    partial(Dissipative.fitted, frame_by_frame=True),
    partial(Dissipative.fitted, frame_by_frame=False),
    partial(Oscillating.fitted, frame_by_frame=True),
    partial(Oscillating.fitted, frame_by_frame=False),
    partial(Phase.fitted, conserved=False, frame_by_frame=True),
    partial(Phase.fitted, conserved=False, frame_by_frame=False),
    partial(Phase.fitted, conserved=True, frame_by_frame=True),
    partial(Phase.fitted, conserved=True, frame_by_frame=False),
    partial(Transport.fitted, frame_by_frame=True),
    partial(Transport.fitted, frame_by_frame=False),
)
"""From simple to less simple; each is solved accurately, or by the one step a frame that a simulation may have taken."""

# A difference in NRMSE a frame below which the simpler form is taken: that of single precision, or a tenth.
DRIFT, TENTH = 1e-5, 1.1
HOPELESS = 100
"""A start whose squared error is so many times what another form has reached is not learned."""


@dataclass(frozen=True)
class Ours(Method):
    """One of four structured equations: the one, and its coefficients, that the training cases speak for.

    u_t = −R(L) u; u_tt = −Ω²(L) u − D(L) u_t; u_t = −K dE/du with a learned potential and K = I or L; u_t = −div(u b) − κ L u
    with b linear in the position. Each dissipates or keeps its energy whatever is learned, and takes mass, area and time step
    from the surface.

    1. The coefficients of each form by least squares over single steps.
    2. Those of the `finalists` nearest to the windows, through their solvers, by Gauss and Newton's method.
    3. The form whose rollouts of a trajectory that 1 and 2 did not see are nearest, over all training surfaces; of equals the
       simpler.

    Args:
        candidates: forms, from simple to less simple.
        finalists: how many of them are learned through their solvers.
        iterations: of that, at most.
    """

    name: ClassVar[str] = "ours"

    candidates: tuple[Candidate, ...] = CANDIDATES
    finalists: int = 2
    iterations: int = 4

    def __post_init__(self) -> None:
        if not self.candidates or self.finalists < 1 or self.iterations < 0:
            raise ValueError(
                f"there must be candidates, and finalists ({self.finalists}) of them; iterations {self.iterations} ≥ 0"
            )

    def __repr__(self) -> str:
        known = [_title(candidate) for candidate in self.candidates]
        return f"Ours({', '.join(known)}; finalists={self.finalists}, iterations={self.iterations})"

    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> FittedForm:
        """Learn from the training cases; in seconds, so that nothing is kept in `checkpoint`."""
        if not cases:
            raise RunFolderError("there is no mesh to learn from: give at least one training case")
        seen, unseen = zip(*map(_halves, cases), strict=True)
        few = windows(seen, seed)
        if not few:
            raise RunFolderError(
                f"{cases[0].scene.name} has {cases[0].frames.shape[1]} frames to learn from, and a window takes "
                f"{GIVEN_FRAMES} given and {AHEAD[-1]} predicted ones: simulate longer"
            )
        total = len(self.candidates) + self.finalists * self.iterations
        forms: list[tuple[float, int, Form]] = []
        for k, candidate in enumerate(self.candidates):
            made = _made(candidate, seen)
            if made is not None:
                # What is right to single precision is right.
                forms.append((max(loss(made, few), SMALL), k, made))
                told(k + 1, total, min(error for error, *_ in forms))
                if forms[-1][0] == SMALL:
                    break
        forms = [entry for entry in forms if entry[0] < float("inf")]
        if not forms:
            raise RunFolderError("no form of an equation fits the training cases: look for frames that are not finite")
        reached, learned = float("inf"), []
        for place, (error, k, form) in enumerate(sorted(forms, key=lambda entry: entry[:2])[: self.finalists]):
            if error > HOPELESS * reached or reached <= SMALL:
                break
            report = partial(_report, told, len(self.candidates) + place * self.iterations + 1, total)
            reached = min(reached, learn(form, few, self.iterations, report))
            learned.append((k, form))
        if len(learned) == 1:
            return FittedForm(learned[0][1])
        # Back in the order of the candidates.
        scored = [(_distance(form, unseen), form) for _, form in sorted(learned, key=lambda entry: entry[0])]
        best = min(score for score, _ in scored)
        return FittedForm(next(form for score, form in scored if score <= TENTH * best + DRIFT))


class FittedForm(Fitted):
    """A form with its coefficients."""

    def __init__(self, form: Form) -> None:
        self.form = form.requires_grad_(False)
        self.count = sum(p.numel() for p in form.parameters())

    @property
    def title(self) -> str:
        """Which form was found."""
        return self.form.title

    @property
    def parameters(self) -> int:
        return self.count

    @torch.no_grad()
    def rollout(self, given: Given, steps: int) -> Tensor:
        # As a simulation does: in single precision the mass would drift by its round-off in every step.
        scene = replace(given.scene, mesh=given.scene.mesh.to(torch.float64))
        wide = Given(scene, given.frames.double(), given.context)
        try:
            return self.form.evolved(wide, range(1, steps + 1)).to(given.frames.dtype)
        except FAILURES:
            count, _, *rest = given.frames.shape
            return given.frames.new_full((count, steps, *rest), torch.inf)


def _report(told: Told, done: int, total: int, iteration: int, error: float) -> None:
    told(done + iteration, total, error)


def _halves(case: Case) -> tuple[Case, Case]:
    """The trajectories to learn from, and the last one to choose by; one and the same where there is one."""
    last = max(1, len(case.frames) - 1)
    first = case.first(last, case.frames.shape[1])
    if len(case.frames) == 1:
        return first, first
    return first, Case(case.scene, case.frames[last:], case.clean[last:])


def _title(candidate: Candidate) -> str:
    """The name of a candidate and its settings, which tell it from others."""
    made, settings = (candidate.func, candidate.keywords) if isinstance(candidate, partial) else (candidate, {})
    name = getattr(made, "__qualname__", type(made).__qualname__)
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def _made(candidate: Candidate, cases: Sequence[Case]) -> Form | None:
    """A form, or None where it makes no sense on these surfaces."""
    try:
        return candidate(cases)
    except FAILURES:
        return None


@torch.no_grad()
def _distance(form: Form, cases: Sequence[Case]) -> float:
    """The mean NRMSE a frame of rollouts to the end of the cases."""
    errors = []
    for case in cases:
        steps = case.frames.shape[1] - case.given.frames.shape[1]
        try:
            rolled = form.evolved(case.given, range(1, steps + 1))
        except FAILURES:
            return float("inf")
        errors.append(float(nrmse(rolled, case.frames[:, -steps:]).nan_to_num(nan=float("inf")).mean()))
    return sum(errors) / len(errors)
