"""What one method did with one seed on the test meshes, and the rows of a table made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import torch

from neuralpde.mesh_case import Case
from neuralpde.run_folder import row

METRICS = ("nrmse", "rayleigh_error", "smape")
MEASURED = (*METRICS, "mass_error")
UNITS = {
    "nrmse": "root mean square error / root mean square, summed over the steps",
    "rayleigh_error": "|R(y') - R(y)|, summed over the steps",
    "smape": "mean of 2 |y' - y| / (|y'| + |y|), summed over the steps",
    "mass_error": "|sum m (y' - y)| / sum m |y|, the largest over the steps",
    "parameters": "learned numbers",
    "seconds": "wall clock of fitting and all rollouts",
}
# A picture of the path needs no more.
KEPT_FRAMES = 40

Numbers = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Result:
    """One method with one seed.

    Args:
        seconds: wall clock of fitting and rolling out.
        rollouts: for each test mesh and metric, its sum over the steps of each rollout (of `mass_error` the largest value);
            infinite or NaN where it diverged.
        curves: for each test mesh, each metric at every step (mean over rollouts) and `rayleigh`, the quotient of the first one.
        losses: of training, if there was any.
    """

    method: str
    seed: int
    parameters: int
    seconds: float
    rollouts: Numbers
    curves: Numbers
    losses: list[float]

    def values(self, metric: str, mesh: str | None = None) -> list[float]:
        """A metric of every rollout on one test mesh, or on all."""
        chosen = self.rollouts if mesh is None else {mesh: self.rollouts[mesh]}
        return [value for metrics in chosen.values() for value in metrics[metric]]

    def mean(self, metric: str, mesh: str | None = None) -> float:
        """The mean of a metric over rollouts; not finite if one of them is not."""
        values = self.values(metric, mesh)
        return sum(values) / len(values)

    @property
    def diverged(self) -> float:
        """The share of rollouts that are not finite."""
        values = self.values("nrmse")
        return sum(not math.isfinite(value) for value in values) / len(values)

    def taking(self, seconds: float) -> Result:
        """The same, having taken so long."""
        return replace(self, seconds=seconds)

    def record(self) -> dict[str, Any]:
        """As JSON, which knows neither infinity nor NaN: they become texts."""
        record: dict[str, Any] = _written(asdict(self))
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Result:
        """The inverse of `record`."""
        fields: dict[str, Any] = dict(record)
        return cls(**fields | {name: _read(fields[name]) for name in ("rollouts", "curves", "losses")})


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _read(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return float(value)


def rows_of(
    table: str, results: Mapping[str, Sequence[Result]], published: Mapping[tuple[str, str], float]
) -> list[dict[str, Any]]:
    """The table as data, one row a method and metric."""
    rows = []
    for method, of_seeds in results.items():
        diverged = sum(result.diverged for result in of_seeds) / len(of_seeds)
        for metric in MEASURED:
            values = [result.mean(metric) for result in of_seeds]
            meshes = {}
            for mesh in of_seeds[0].rollouts:
                mean = sum(result.mean(metric, mesh) for result in of_seeds) / len(of_seeds)
                meshes[mesh] = mean if math.isfinite(mean) else None
            more = {"meshes": meshes, "diverged": diverged, "published": published.get((method, metric))}
            if all(math.isfinite(value) for value in values):
                rows.append(row(table, method, metric, values, UNITS[metric], **more))
            else:
                blank = row(table, method, metric, [0.0] * len(values), UNITS[metric], **more)
                rows.append(blank | {"value": None, "std": None})
        for metric in ("parameters", "seconds"):
            rows.append(row(table, method, metric, [float(getattr(one, metric)) for one in of_seeds], UNITS[metric]))
    return rows


def fingerprint(cases: Sequence[Case]) -> str:
    """A digest of all that the cases hold."""
    digest = sha256()
    for case in cases:
        scene = case.scene
        digest.update(f"{scene.name} {scene.dt!r} {scene.truth} {tuple(case.frames.shape)}".encode())
        for tensor in (scene.mesh.vertices, scene.mesh.faces, case.frames, case.clean, case.context):
            digest.update(b"none" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept_frames(steps: int) -> list[int]:
    """The steps whose fields are kept for pictures: evenly spaced, the first and the last among them."""
    places: list[int] = torch.linspace(0, steps - 1, min(steps, KEPT_FRAMES)).round().long().tolist()
    return places
