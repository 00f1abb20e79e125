"""Learning the few coefficients of a form through its solver: Gauss and Newton's method on windows of the trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators import SolveError
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case, Given
from neuralpde.mesh_ours_form import Form
from neuralpde.training import generator
from operators.checks import ConvergenceError

FAILURES = (SolveError, ConvergenceError, ValueError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""What a form may raise with coefficients that make no sense."""
SMALL = 1e-9
"""Squared error from which on single precision is reached."""
AHEAD = (1, 6)
"""The frames of a window that are looked at, after the last given one."""
STRUGGLING = 8
"""Increases of the damping after which no step is to be had."""


@dataclass(frozen=True)
class Window:
    """Given frames, and the frames (K, len(frames), n, 1) that come so many steps later."""

    given: Given
    frames: tuple[int, ...]
    targets: Tensor

    def residual(self, form: Form) -> Tensor:
        """The errors, of which persistence has a mean square of one."""
        change = (self.targets - self.given.frames[:, -1:]).double().square().sum(dim=(-2, -1), keepdim=True)
        floor = 1e-12 * self.targets.double().square().sum(dim=(-2, -1), keepdim=True)
        size = (change + floor).clamp(min=1e-300).sqrt() * (change.shape[0] * change.shape[1]) ** 0.5
        errors: Tensor = (form.evolved(self.given, self.frames) - self.targets).double() / size
        return errors.flatten()


def windows(cases: Sequence[Case], seed: int, frames: tuple[int, ...] = AHEAD, count: int = 2) -> list[Window]:
    """Windows of every trajectory: at its beginning, where all scales are, and at random later."""
    made = []
    for k, case in enumerate(cases):
        last = case.frames.shape[1] - GIVEN_FRAMES - frames[-1]
        if last < 0:
            continue
        starts = torch.cat(
            [torch.zeros(1, dtype=torch.long), torch.randint(last + 1, (count - 1,), generator=generator(seed, k))]
        )
        given = torch.cat([case.frames[:, s : s + GIVEN_FRAMES] for s in starts])
        targets = torch.cat([case.frames[:, [s + GIVEN_FRAMES - 1 + f for f in frames]] for s in starts.tolist()])
        made.append(Window(Given(case.scene, given), frames, targets))
    return made


def learn(form: Form, seen: Sequence[Window], iterations: int, told: Callable[[int, float], None]) -> float:
    """θ ← θ − (JᵀJ + μ diag JᵀJ)⁻¹ Jᵀr, damped where a step goes too far (Marquardt 1963); → the mean squared error reached.

    J has one column for each of the few coefficients, by differentiating u ↦ Jᵀu through the solver.
    """
    learned = [p for p in form.parameters() if p.requires_grad]
    damping, error = 1e-4, loss(form, seen)
    for iteration in range(iterations):
        if error < SMALL:
            break
        try:
            gram, slope = _normal(form, seen, learned)
        except FAILURES:
            return error
        kept = torch.nn.utils.parameters_to_vector(learned).detach().clone()
        scale = gram.diagonal().clamp(min=1e-12 * max(float(gram.diagonal().max()), 1e-300))
        for _ in range(STRUGGLING):
            step = torch.linalg.solve(gram + damping * torch.diag(scale), slope)
            torch.nn.utils.vector_to_parameters((kept.double() - step).to(kept.dtype), learned)
            reached = loss(form, seen)
            if reached < error:
                break
            damping = max(8 * damping, 1e-8)
        else:
            torch.nn.utils.vector_to_parameters(kept, learned)
            return error
        before, error, damping = error, reached, damping / 8
        told(iteration, error)
        # Far from the minimum a step gains more.
        if error > before / 3:
            break
    return error


def loss(form: Form, seen: Sequence[Window]) -> float:
    """The mean squared error over the windows; infinite where the solver cannot go on."""
    with torch.no_grad():
        try:
            total = sum(float(window.residual(form).square().sum()) for window in seen) / max(len(seen), 1)
        except FAILURES:
            return float("inf")
    return total if total == total else float("inf")


def _normal(form: Form, seen: Sequence[Window], learned: list[torch.nn.Parameter]) -> tuple[Tensor, Tensor]:
    """JᵀJ and Jᵀr."""
    count = sum(p.numel() for p in learned)
    gram, slope = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for window in seen:
        with torch.enable_grad():
            residual = window.residual(form)
            u = torch.zeros_like(residual).requires_grad_()
            parts = torch.autograd.grad(residual, learned, u, create_graph=True, materialize_grads=True)
            pulled = torch.cat([part.reshape(-1) for part in parts])
            columns = [torch.autograd.grad(c, u, retain_graph=True, materialize_grads=True)[0] for c in pulled]
        J = torch.stack(columns, dim=1).detach()
        gram += J.T @ J
        slope += J.T @ residual.detach()
    return gram, slope
