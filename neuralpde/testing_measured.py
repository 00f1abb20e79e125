"""What a law's check gives: the measured error beside its tolerance, or an AssertionError that names the counter-example."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """The entry of a law's check that comes nearest to its tolerance, or goes furthest beyond it.

    float(measured) is error / tolerance, dimensionless: 0 is perfect, up to 1 the law holds. `error` and `tolerance` are in
    the units of what was compared.
    """

    law: str
    error: float
    tolerance: float
    rule: str
    where: str = ""

    @property
    def ratio(self) -> float:
        """error / tolerance; 0 where both are 0, infinite where only the tolerance is, or the error is NaN."""
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance > 0 and math.isfinite(self.error) else math.inf

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.ratio <= 1

    def __float__(self) -> float:
        return self.ratio

    def __str__(self) -> str:
        return f"{self.law}: error {self.error:.2e}, tolerance {self.tolerance:.2e}{self.where and f' {self.where}'}"


class LawBrokenError(AssertionError):
    """A law that does not hold.

    Attributes:
        measured: the law, its error and tolerance.
        subject: the name of what was tested.
        example: the counter-example in words.
        replay: the file that holds it, or "".
    """

    def __init__(self, measured: Measured, subject: str, example: str = "", replay: str = "") -> None:
        self.measured, self.subject, self.example, self.replay = measured, subject, example, replay
        lines = [
            f"{subject} breaks a law: {measured.law}",
            f"  error     {measured.error:.3e} {measured.where}".rstrip(),
            f"  tolerance {measured.tolerance:.3e} = {measured.rule}",
        ]
        if example:
            lines += ["  counter-example", *(f"    {line}" for line in example.splitlines())]
        if replay:
            lines.append(f"  replay    {replay}")
        super().__init__("\n".join(lines))


def compared(law: str, actual: Tensor, expected: Tensor | float, bound: Tensor | float, rule: str) -> Measured:
    """|actual − expected| against a bound, entry by entry; a NaN counts as an infinite error."""
    error = (actual.detach() - (expected.detach() if isinstance(expected, Tensor) else expected)).abs().to(torch.float64)
    limit = torch.as_tensor(bound, dtype=torch.float64).detach().to(error.device).expand_as(error)
    if error.numel() == 0:
        return Measured(law, 0.0, 0.0, rule)
    error = error.nan_to_num(math.inf, math.inf)
    # 0 / 0 is a law that holds.
    worst = int((error / limit.clamp(min=1e-300)).argmax())
    index = torch.unravel_index(torch.tensor(worst), error.shape)
    place = ", ".join(str(int(i)) for i in index)
    return Measured(law, float(error.ravel()[worst]), float(limit.ravel()[worst]), rule, f"at index ({place})" if place else "")


def fact(law: str, holds: bool, otherwise: str) -> Measured:
    """A law that holds or does not, with nothing to measure: its error is 0 or 1."""
    return Measured(law, 0.0 if holds else 1.0, 0.0, "none: it holds or it does not", "" if holds else f"({otherwise})")


def worst_of(measured: Iterable[Measured | None]) -> Measured | None:
    """The one nearest to its tolerance, or furthest beyond it; None if no law applied."""
    return max((m for m in measured if m is not None), key=float, default=None)


def require(measured: Measured, subject: str, example: str = "") -> Measured:
    """The measurement itself, if the law holds. Raises LawBrokenError."""
    if not measured.holds:
        raise LawBrokenError(measured, subject, example)
    return measured
