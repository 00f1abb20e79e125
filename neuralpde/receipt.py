"""Gradient receipts: one call that holds the gradient of a loss, through the solver and all, against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from integrators import SolveError

Loss = Callable[[], Tensor]


class Verdict(Enum):
    """What a receipt says."""

    AGREES = "agrees"
    DISAGREES = "DISAGREES"
    UNDECIDED = "undecided: the loss is too rough to tell"


@dataclass(frozen=True)
class Direction:
    """One direction, or one parameter.

    Attributes:
        name: of the parameter, or "all, direction k".
        gradient: the derivative in this direction as autograd has it; None if autograd has no gradient there at all.
        difference: the same by central differences, at the step where they settle.
        step: that step, relative to the size of the parameters.
        floor: how far the differences can be trusted: how much they still change around that step, or their round-off.
        scale: the largest loss on the way.
        norm: of the gradient of this parameter; of a direction over all of them NaN.
        kink: how far the slopes on the two sides are apart: a gradient between them may be right.
    """

    name: str
    gradient: float | None
    difference: float
    step: float
    floor: float
    scale: float
    norm: float = math.nan
    kink: float = 0.0

    @property
    def disagreement(self) -> float:
        """|gradient − difference| relative to the larger of the two; 0 where both are zero to the floor."""
        gap, size = self._gap()
        return 0.0 if max(gap, size) <= self.floor else gap / max(size, 1e-300)

    def verdict(self, tolerance: float) -> Verdict:
        """Whether gradient and difference are one number."""
        if not math.isfinite(self.gradient or 0.0):
            return Verdict.DISAGREES
        if not math.isfinite(self.difference + self.floor):
            return Verdict.UNDECIDED
        gap, size = self._gap()
        if gap <= tolerance * size:
            return Verdict.AGREES
        # No floor excuses a gap that is larger than it; at a kink, as of relu at 0, no slope is the only one.
        if gap > 4 * self.floor:
            return Verdict.UNDECIDED if gap <= self.kink else Verdict.DISAGREES
        # Both are zero, as far as can be told, and that is far.
        return Verdict.AGREES if self.floor <= tolerance * self.scale and size <= 8 * self.floor else Verdict.UNDECIDED

    def _gap(self) -> tuple[float, float]:
        autograd = self.gradient or 0.0
        return abs(autograd - self.difference), max(abs(autograd), abs(self.difference))


@dataclass(frozen=True)
class Receipt:
    """What `receipt` found; prints as a table.

    Attributes:
        loss: its value.
        directions: over all parameters together. parameters: each by itself, in a direction of its own.
        tolerance: the relative disagreement that passes.
        evaluations: of the loss.
    """

    loss: float
    directions: list[Direction]
    parameters: list[Direction]
    tolerance: float
    evaluations: int

    @property
    def missing(self) -> list[str]:
        """The parameters that get no gradient at all."""
        return [p.name for p in self.parameters if p.gradient is None]

    @property
    def worst(self) -> float:
        """The largest relative disagreement."""
        return max(d.disagreement for d in (*self.directions, *self.parameters))

    @property
    def verdict(self) -> Verdict:
        """DISAGREES if anything does, else UNDECIDED if anything is."""
        found = {d.verdict(self.tolerance) for d in (*self.directions, *self.parameters)}
        return next(v for v in (Verdict.DISAGREES, Verdict.UNDECIDED, Verdict.AGREES) if v in found)

    @property
    def ok(self) -> bool:
        """Whether the gradient is right in every direction that was tried."""
        return self.verdict is Verdict.AGREES

    def require(self) -> None:
        """Raise ValueError with the whole report unless `ok`."""
        if not self.ok:
            raise ValueError(f"the gradient of this loss is not what finite differences say:\n{self}")

    def __rich__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(len(d.name) for d in (*self.directions, *self.parameters)) + 2
        head = f"{'':<{width}}{'autograd':>13}{'differences':>13}{'disagreement':>14}{'floor':>10}{'step':>9}{'norm':>11}"
        lines = [f"loss {self.loss:.6g}, {self.evaluations} evaluations, tolerance {self.tolerance:g}", head]
        for d in (*self.directions, *self.parameters):
            value = "none" if d.gradient is None else f"{d.gradient:.5g}"
            norm = "" if math.isnan(d.norm) else f"{d.norm:.3g}"
            verdict = d.verdict(self.tolerance)
            mark = "" if verdict is Verdict.AGREES else f"  {verdict.value}"
            if d.gradient is None and verdict is Verdict.AGREES:
                mark = "  unused"
            lines.append(
                f"{d.name:<{width}}{value:>13}{d.difference:>13.5g}{d.disagreement:>14.1e}{d.floor:>10.1e}{d.step:>9.0e}{norm:>11}{mark}"
            )
        lines.append(f"the gradient {self.verdict.value}" if self.ok else f"the gradient: {self.verdict.value}")
        if self.missing:
            lines.append(f"no gradient at all: {', '.join(self.missing)}")
        return "\n".join(lines)


def receipt(
    loss: Loss,
    parameters: nn.Module | Tensor | Iterable[Tensor],
    *,
    directions: int = 3,
    tolerance: float | None = None,
    steps: Iterable[float] | None = None,
    seed: int = 0,
) -> Receipt:
    """Hold the gradient of a loss against central finite differences, (φ(θ + hv) − φ(θ − hv)) / 2h.

    In some random directions v over all parameters, and in one for each parameter by itself, which names the culprit. For each,
    h runs over several powers of ten; where h is large the differences are off by their truncation, where it is small by
    round-off (and by whatever makes the loss rough, such as the steps that an adaptive solver chooses), and between them they
    settle: there they are compared, and how much they still change is the floor below which nothing is claimed.

    Nothing is left behind: parameters, buffers, `.grad` and the random generators are as before, and every evaluation sees the
    same random numbers. A loss that is discontinuous in θ (an adaptive solver at a loose tolerance) is found out, since its
    gradient is exact only for the steps that were taken; at a kink, as of relu at 0, nothing is claimed. A step to where the loss
    is not finite, or its solve fails, tells nothing, and shorter ones do.

    Args:
        loss: () ↦ scalar; run twice it must give the same value.
        parameters: a module, a tensor or tensors: what to differentiate in.
        directions: random directions over all of them.
        tolerance: relative disagreement to accept; 1e-5 in float64 and 2e-2 if anything is in float32, if absent.
        steps: h relative to the size of each parameter; 1e-1 … 1e-7 (1e-1 … 1e-3 in float32) if absent.
        seed: of the directions.

    Returns:
        Receipt: `print(receipt(...))`, `.ok`, `.require()`.

    Raises:
        ValueError: nothing requires a gradient, the loss is not one finite real number, or it depends on no parameter.
    """
    named = _named(parameters)
    tensors = [p for _, p in named]
    count = 0

    def evaluate() -> Tensor:
        nonlocal count
        count += 1
        with _same_dice():
            value = loss()
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            raise ValueError(f"the loss must be one finite real number, not {value!r}")
        return value.reshape(())

    modules = [parameters] if isinstance(parameters, nn.Module) else []
    with _restored(tensors, modules):
        with torch.enable_grad():
            value = evaluate()
            found = torch.autograd.grad(value, tensors, allow_unused=True) if value.requires_grad else (None,) * len(tensors)
        here = float(value.detach())
        if not math.isfinite(here):
            raise ValueError(f"the loss must be one finite real number, not {value!r}")
        eps = max(torch.finfo(p.dtype).eps for p in (value, *tensors))
        wide = eps < 1e-12
        tolerance = (1e-5 if wide else 2e-2) if tolerance is None else tolerance
        usual = [10.0**-k for k in range(1, 8)] if wide else [10 ** (-k / 2) for k in range(2, 7)]
        ladder = sorted(steps or usual, reverse=True)
        if len(ladder) < 2 or ladder[-1] <= 0 or directions < 1 or not tolerance > 0:
            raise ValueError("a receipt needs at least two positive steps, one direction and a positive tolerance")
        roughness = abs(_at(evaluate, tensors, None, 0.0) - here)
        generator = torch.Generator().manual_seed(seed)
        sizes = [_size(p) for p in tensors]
        rows: list[Direction] = []
        for k in range(directions):
            v = [s * _normal(p, generator) for p, s in zip(tensors, sizes, strict=True)]
            rows.append(_compare(f"all, direction {k + 1}", evaluate, tensors, found, v, ladder, here, roughness, eps))
        each: list[Direction] = []
        for i, (name, p) in enumerate(named):
            v = [sizes[i] * _normal(p, generator) if j == i else torch.zeros_like(q) for j, q in enumerate(tensors)]
            gradient = found[i]
            norm = 0.0 if gradient is None else float(gradient.norm())
            each.append(_compare(name, evaluate, tensors, found, v, ladder, here, roughness, eps, norm, absent=gradient is None))
    if all(g is None for g in found) and all(d.verdict(tolerance) is Verdict.AGREES for d in (*rows, *each)):
        raise ValueError("the loss depends on none of these parameters: was it computed before, or from a copy of the model?")
    return Receipt(here, rows, each, tolerance, count)


def _compare(
    name: str, evaluate: Loss, tensors: list[Tensor], found: tuple[Tensor | None, ...], v: list[Tensor], ladder: list[float],
    here: float, roughness: float, eps: float, norm: float = math.nan, *, absent: bool = False,
) -> Direction:  # fmt: skip
    """Autograd and differences in the direction v."""
    pairs = [(g, w) for g, w in zip(found, v, strict=True) if g is not None]
    gradient = sum(float((g.conj() * w).real.sum() if g.is_complex() else (g * w).sum()) for g, w in pairs)
    values = [(_at(evaluate, tensors, v, h), _at(evaluate, tensors, v, -h)) for h in ladder]
    quotients = [(ahead - behind) / (2 * h) for (ahead, behind), h in zip(values, ladder, strict=True)]
    noise = [(8 * eps * max(abs(a), abs(b)) + roughness) / h for (a, b), h in zip(values, ladder, strict=True)]
    # What a quotient is off by: its change to the next finer one, or its round-off, whichever is larger.
    floors = [max(abs(a - b), n) for a, b, n in zip(quotients, quotients[1:], noise[1:], strict=False)]
    best = min(range(len(floors)), key=lambda k: floors[k] if math.isfinite(floors[k]) else math.inf)
    scale = max(abs(here), *(abs(a) for pair in values for a in pair if math.isfinite(a)))
    bends = [abs(ahead - 2 * here + behind) / h for (ahead, behind), h in zip(values, ladder, strict=True)]
    kink = min((b for b in bends if math.isfinite(b)), default=0.0)
    value = None if absent else gradient
    return Direction(name, value, quotients[best + 1], ladder[best + 1], floors[best], scale, norm, kink)


def _at(evaluate: Loss, tensors: list[Tensor], v: list[Tensor] | None, h: float) -> float:
    """φ(θ + hv), NaN where the solve fails."""
    before = [p.detach().clone() for p in tensors]
    try:
        with torch.no_grad():
            for p, w in zip(tensors, v or [], strict=False):
                p.add_(w, alpha=h)
        with torch.enable_grad():  # A loss may take gradients of its own.
            return float(evaluate().detach())
    except SolveError:
        return math.nan
    finally:
        with torch.no_grad():
            for p, old in zip(tensors, before, strict=True):
                p.copy_(old)


def _named(parameters: nn.Module | Tensor | Iterable[Tensor]) -> list[tuple[str, Tensor]]:
    if isinstance(parameters, nn.Module):
        named: list[tuple[str, Tensor]] = list(parameters.named_parameters())
    else:
        items = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        named = [(f"tensor {k}" if len(items) > 1 else "tensor", p) for k, p in enumerate(items)]
    wanted = [(name, p) for name, p in named if p.requires_grad]
    if not wanted:
        raise ValueError("nothing here requires a gradient: pass a module, or tensors with requires_grad=True")
    for name, p in wanted:
        if not p.is_leaf:
            raise ValueError(f"{name} was computed from something else, so it cannot be moved: pass the leaf behind it")
    return wanted


def _size(p: Tensor) -> float:
    """A length that is natural to a parameter: its root mean square, or one where it is zero."""
    rms = float(p.detach().abs().square().mean().sqrt()) if p.numel() else 0.0
    return rms if rms > 0 else 1.0


def _normal(p: Tensor, generator: torch.Generator) -> Tensor:
    """A normal direction of root mean square one."""
    v = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    rms = float(v.abs().square().mean().sqrt()) if v.numel() else 1.0
    return (v / rms).to(p.device)


@contextmanager
def _same_dice() -> Iterator[None]:
    """The same random numbers in every evaluation, and the user's own untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()), device_type="cuda"):
        yield


@contextmanager
def _restored(tensors: list[Tensor], modules: list[nn.Module]) -> Iterator[None]:
    """Values, buffers and accumulated gradients as they were."""
    buffers = [(b, b.detach().clone()) for module in modules for b in module.buffers()]
    values = [(p, p.detach().clone(), p.grad) for p in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)
            for p, old, grad in values:
                p.copy_(old)
                p.grad = grad
