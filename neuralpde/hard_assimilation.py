"""The unknown numbers and the true first frame of one trajectory, from a few noisy frames, through the solver."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.hard_flow import Flow, Form, Place, Step

CORRELATION = 0.1
"""The length of the Matérn field that the first frame is believed to be, in square roots of the surface's area."""
ITERATIONS = 12
DAMPING = 0.01
TOLERANCE = 1e-4
"""It ends when a step lowers the objective by less than this fraction."""
PRODUCTS = 12
"""Of conjugate gradients, at most: on any mesh the preconditioned matrix has about the number of frames as its condition."""


@dataclass(frozen=True)
class Belief:
    """What is believed of a trajectory's own unknowns before it is seen: normal, independent.

    Args:
        mean, variance: (p,), p = 0 where all is known; a variance is positive.
    """

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Assimilated:
    """What was found.

    Args:
        own: the trajectory's own unknowns (p,).
        first: the first frame without noise (n, 1).
        noise: the standard deviation of the noise.
    """

    own: Tensor
    first: Tensor
    noise: float


def noise_of(frames: Tensor) -> float:
    """The standard deviation of white noise, from third differences in time; (T ≥ 4, n, 1)."""
    third = frames[3:] - 3 * frames[2:-1] + 3 * frames[1:-2] - frames[:-3]
    return math.sqrt(float(third.square().mean()) / 20) + 1e-7 * float(frames.abs().max()) + 1e-12


def assimilate(
    place: Place, form: Form, material: Tensor, frames: Tensor, h: float, belief: Belief, shared: Tensor
) -> Assimilated:
    """The most probable own unknowns and first frame, given frames at 0, h, 2h, ... and their white noise.

    Gauss–Newton's method in all unknowns at once. The first frame is eliminated by conjugate gradients with the tangent of
    the solver and its adjoint, so nothing noisy is ever differenced.

    Args:
        material: m (n,).
        frames: (T, n, 1), in float64.
        belief: of the first unknowns of the form.
        shared: the others, which are known.
    """
    noise = noise_of(frames)
    n, precision, count = frames.shape[1], 1 / belief.variance, len(belief.mean)
    # ℓ⁴ ⟨Lu, Lu⟩ beside the frames' squares: the inverse covariance of the Matérn field at short lengths over the noise's.
    variance = float((frames[0] - frames[0].mean()).square().mean()) + noise**2
    roughness = _Roughness(place, CORRELATION**2 * noise**2 / (4 * math.pi * n * variance), len(frames))
    weight = n / noise**2
    own, first = belief.mean, roughness.precondition(frames.sum(0))
    best, damping = _Linear(math.inf, own, first, own, own, own), DAMPING
    for _ in range(ITERATIONS):
        path = _Path(Flow(place, form, material, torch.cat([own, shared]), h), first, len(frames), count)
        residuals = [y - u for y, u in zip(frames, path.states, strict=True)]
        objective = weight * (sum(float(place.inner(r, r)) for r in residuals) + float(place.inner(first, roughness(first))))
        objective += float((precision * (own - belief.mean).square()).sum())
        if not objective <= best.objective:
            # Too far: from where it was, a shorter step.
            damping = 10 * max(damping, 0.01)
        else:
            gained, damping = best.objective - objective, damping / 10
            # Columns: the residual, then the sensitivities.
            both = [torch.cat([r, S], dim=1) for r, S in zip(residuals, path.tangents, strict=True)]
            right = path.adjoint(both)
            right[:, :1] -= roughness(first)
            solution = _conjugate_gradients(path, roughness, right)
            squares = torch.stack([place.inner(S, b) for S, b in zip(path.tangents, both, strict=True)]).sum(0)
            reduced = weight * (squares - place.inner(right[:, 1:], solution))
            matrix = reduced[:, 1:] + torch.diag(precision)
            best = _Linear(objective, own, first, solution, matrix, reduced[:, 0] - precision * (own - belief.mean))
            if gained < TOLERANCE * objective:
                break
        own, first = best.step(form, damping)
    return Assimilated(best.own, best.first, noise)


@dataclass(frozen=True)
class _Linear:
    """Gauss–Newton's equations at a point: the first frame's answer to its residual and to the unknowns, and what is left."""

    objective: float
    own: Tensor
    first: Tensor
    solution: Tensor
    matrix: Tensor
    moment: Tensor

    def step(self, form: Form, damping: float) -> tuple[Tensor, Tensor]:
        """The next point."""
        change = torch.linalg.solve(self.matrix + damping * torch.diag(self.matrix.diagonal()), self.moment)
        own = form.moved(self.own, change)
        return own, self.first + self.solution[:, :1] - self.solution[:, 1:] @ (own - self.own)[:, None]


class _Path:
    """The trajectory from a first frame, with the tangents of its unknowns."""

    def __init__(self, flow: Flow, first: Tensor, frames: int, count: int) -> None:
        self.states, self.tangents = [first], [first.new_zeros(len(first), count)]
        self.steps: list[Step] = []
        for _ in range(frames - 1):
            step = flow.step(self.states[-1], self.tangents[-1])
            self.steps.append(step)
            self.states.append(step.state)
            self.tangents.append(step.following)

    def adjoint(self, values: list[Tensor]) -> Tensor:
        """Σ_k E_k* x_k, E_k the derivative of frame k in the first one."""
        total = values[-1]
        for step, value in zip(reversed(self.steps), reversed(values[:-1]), strict=True):
            total = step.backward(total) + value
        return total

    def gram(self, x: Tensor) -> Tensor:
        """Σ_k E_k* E_k x."""
        values = [x]
        for step in self.steps:
            values.append(step.forward(values[-1]))
        return self.adjoint(values)


class _Roughness:
    """ℓ⁴ L², and the solution of (frames + ℓ⁴ L²) x = b."""

    def __init__(self, place: Place, fourth: float, frames: int) -> None:
        self.laplacian, self.fourth, self.frames = place.laplacian, fourth, frames

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = self.fourth * (self.laplacian @ (self.laplacian @ x))
        return product

    def precondition(self, b: Tensor) -> Tensor:
        # 1 / (T + ℓ⁴λ²) = Re 1 / (1 + iℓ²λ/√T) / T, so one complex solve does it.
        return self.laplacian.solve(1j * math.sqrt(self.fourth / self.frames), b).real / self.frames


def _conjugate_gradients(path: _Path, roughness: _Roughness, b: Tensor) -> Tensor:
    """x with (Σ E* E + ℓ⁴L²) x = b, for every column."""
    share = path.steps[0].flow.place.share
    x, r = torch.zeros_like(b), b.clone()
    z = roughness.precondition(r)
    p, rz = z, (share * r * z).sum(0)
    start = rz.clone()
    for _ in range(PRODUCTS):
        q = path.gram(p) + roughness(p)
        step = torch.where(rz > 0, rz / (share * p * q).sum(0).clamp(min=1e-300), 0.0)
        x, r = x + step * p, r - step * q
        z = roughness.precondition(r)
        new = (share * r * z).sum(0)
        if bool((new <= 1e-8 * start).all()):
            break
        p, rz = z + torch.where(rz > 0, new / rz.clamp(min=1e-300), 0.0) * p, new
    return x
