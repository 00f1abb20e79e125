"""What is known of a field at sensors: windows of frames with gaps, and what followed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from neuralpde.sensor_placement import Placement
from operators import DomainError


@dataclass(frozen=True, eq=False)
class Given:
    """What a forecast is made from: K windows of w frames at n sensors.

    Args:
        placement: where the sensors stand.
        values: (K, w, n, c), normalised; zero where nothing was seen.
        seen: (K, w, n, c) bool.
        times: (K, w), increasing, float64: hours since 1970-01-01 UTC of real data, the equation's time of simulated ones. The
            steps may differ.
        wanted: (K, h) the times to forecast, after the last of `times`.
    """

    placement: Placement
    values: Tensor
    seen: Tensor
    times: Tensor
    wanted: Tensor

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool(self.seen.all())


@dataclass(frozen=True, eq=False)
class SensorCase:
    """Windows of T frames at one placement, the first `given` of which are inputs. In float32.

    Args:
        name: in tables, for example "test" or "unseen-1".
        placement: where the sensors stand.
        values, seen: (K, T, n, c), as `Given` has them.
        times: (K, T).
        given: w, the frames that a forecast is made from.
        scored: (n,) bool, the sensors whose forecasts count; all if absent. With held-out stations, only those.
        unit: of the metric, for example "z" for what was divided by the standard deviation of the training span.
    """

    name: str
    placement: Placement
    values: Tensor
    seen: Tensor
    times: Tensor
    given: int
    scored: Tensor | None = None
    unit: str = "z"

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[2] != self.placement.num_nodes:
            raise DomainError(
                f"{self.name}: values must have shape (K, T, {self.placement.num_nodes}, c), not {tuple(self.values.shape)}"
            )
        if self.seen.shape != self.values.shape or self.seen.dtype != torch.bool:
            raise DomainError(f"{self.name}: `seen` must be bool of shape {tuple(self.values.shape)}")
        if self.times.shape != self.values.shape[:2] or not bool((self.times.diff(dim=1) > 0).all()):
            raise DomainError(f"{self.name}: times must have shape {tuple(self.values.shape[:2])} and increase")
        if not 0 < self.given < self.values.shape[1]:
            raise DomainError(f"{self.name}: {self.given} of {self.values.shape[1]} frames are given, and some must be forecast")
        if not bool(torch.isfinite(self.values).all()):
            raise DomainError(f"{self.name}: values that were not seen must be zero, not infinite or NaN")
        if bool((self.values[~self.seen] != 0).any()):
            raise DomainError(f"{self.name}: a value that was not seen is not zero: what is hidden must not leak")

    @property
    def horizon(self) -> int:
        """h, the number of frames to forecast."""
        return self.values.shape[1] - self.given

    @property
    def inputs(self) -> Given:
        """What a method may see."""
        w = self.given
        return Given(self.placement, self.values[:, :w], self.seen[:, :w], self.times[:, :w], self.times[:, w:])

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        """Values (K, h, n, c) to be forecast, and which of them were seen."""
        return self.values[:, self.given :], self.seen[:, self.given :]

    def some(self, windows: Tensor | slice) -> SensorCase:
        """Some of the windows."""
        return replace(self, values=self.values[windows], seen=self.seen[windows], times=self.times[windows])

    def fingerprint(self) -> str:
        """What tells this case from others, values included."""
        digest = sha256()
        for tensor in (self.placement.points, self.values, self.seen, self.times, self.scored):
            digest.update(b"-" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes())
        return f"{self.name} {tuple(self.values.shape)} {self.given} {digest.hexdigest()[:16]}"


def fingerprint(cases: Sequence[SensorCase]) -> str:
    """What tells these cases from others."""
    return " ".join(case.fingerprint() for case in cases)
