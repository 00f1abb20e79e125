"""How `ours` at stations learns its equation and its correction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralpde.sensor_method import Told
from neuralpde.sensor_training import fit_network
from neuralpde.station_ours_analysis import Blocks, expected
from neuralpde.station_ours_examples import Examples, examples, fit_trust, hide
from neuralpde.station_ours_kernel import DriftingCovariance
from neuralpde.station_ours_lessons import Frames, Lessons
from neuralpde.station_ours_network import Committee
from neuralpde.training import generator, train

if TYPE_CHECKING:
    from neuralpde.station_ours import ChannelForecaster, StationOurs


def fit_kernel(settings: StationOurs, lessons: Lessons, checkpoint: Path, told: Told) -> DriftingCovariance:
    """Scales, winds and memories by Adam on the error of the expected frames."""
    distance = torch.pdist(lessons.frames[0].placement.plane)
    extent = float(distance[distance > 0].median()) if bool((distance > 0).any()) else 1.0
    kernel = DriftingCovariance(extent, tuple(p / lessons.step for p in lessons.climate.periods))
    anomalies = [lessons.anomalies(case) for case in range(len(lessons.frames))]
    weights, w, h = lessons.lead_weights(), lessons.given, lessons.horizon
    before, after = torch.arange(1 - w, 1, dtype=torch.float64), torch.arange(1, h + 1, dtype=torch.float64)
    lags = torch.arange(1 - w, w + h, dtype=torch.float64)
    doubts = torch.zeros(1 + len(lessons.climate.periods), 1, 1, dtype=torch.float64)

    def loss(step: int, random: torch.Generator) -> Tensor:
        case = int(torch.randint(len(anomalies), (), generator=random))
        plane, x, seen = lessons.frames[case].placement.plane, anomalies[case], lessons.frames[case].seen
        chosen = torch.randperm(len(plane), generator=random)[: settings.sensors].sort().values
        plane, x, seen = plane[chosen], x[:, :, chosen], seen[:, :, chosen]
        n = len(chosen)
        everyone = torch.arange(n)
        blocks = Blocks(kernel, plane, doubts.expand(-1, n, n), everyone, everyone, lags)
        mask = torch.ones(w, n, dtype=torch.bool)
        if float(torch.rand((), generator=random)) < settings.hiding:
            mask, _ = hide(mask, random)
        error = (expected(kernel, blocks, blocks, x[:, :w], mask, before, after) - x[:, w:]).abs() * seen[:, w:]
        return (error.sum((0, 2)) / seen[:, w:].sum((0, 2)).clamp(min=1) * weights).sum()

    notes = {"settings": repr(settings), "part": "kernel"}
    train(
        kernel,
        loss,
        steps=settings.kernel_steps,
        learning_rate=settings.kernel_rate,
        checkpoint=checkpoint,
        notes=notes,
        progress=lambda training: told(training.step, settings.kernel_steps, f"equation, error {training.losses[-1]:.3f}"),
    )
    return kernel.requires_grad_(False)


def fit_committee(
    settings: StationOurs,
    lessons: Lessons,
    model: ChannelForecaster,
    validation: Sequence[Frames],
    seed: int,
    checkpoint: Path,
    told: Told,
) -> Committee:
    """Perceptrons by Adam, kept where they were best on the validation windows."""
    random = generator(seed, 2**20)
    kernel, given, step = model.kernel, lessons.given, lessons.step

    def complete(f: Frames) -> Tensor:
        return torch.ones(given, f.placement.num_nodes, dtype=torch.bool)

    plain, hidden = [], []
    for (k, windows, climate), joint in zip(lessons.parts, lessons.joints, strict=True):
        f = lessons.frames[k]
        plain.append(examples(kernel, f, climate.at(f.placement), joint, windows, given, step, complete(f), lessons.stations))
        for _ in range(settings.copies):
            mask, new = hide(complete(f), random)
            if int((~new).sum()) < 3:
                new = torch.zeros_like(new)
            local = climate.without(_pooled(lessons, k, new)).at(f.placement)
            hidden.append(examples(kernel, f, local, joint, windows, given, step, mask, lessons.stations, new))
    looks = [
        examples(
            kernel,
            f,
            lessons.climate.at(f.placement),
            model.joint,
            torch.arange(len(f.times)),
            given,
            step,
            complete(f),
            lessons.stations,
        )
        for f in validation
    ]
    inputs = torch.cat([e.inputs.flatten(0, 1) for e in plain])
    deviation = inputs.std(0).clamp(min=1e-3)
    model.trust = fit_trust(plain)
    gaps = torch.cat([(e.truth - e.expected).flatten(0, 1) for e in plain])
    committee = Committee(
        inputs.mean(0), deviation, gaps.abs().mean(0).clamp(min=1e-6), settings.width, settings.members, settings.drop, random
    )
    weights = lessons.lead_weights().float()

    def error(e: Examples, correction: Tensor) -> Tensor:
        gap = (e.expected + model.trust * e.excess + correction - e.truth).abs() * e.seen
        return ((gap.sum((-3, -2)) / e.seen.sum((0, 1)).clamp(min=1)) * weights).sum(-1)

    def loss(number: int, source: torch.Generator) -> Tensor:
        several = plain if not hidden or float(torch.rand((), generator=source)) < 0.5 else hidden
        sizes = torch.tensor([float(len(e.inputs)) for e in several])
        e = several[int(torch.multinomial(sizes, 1, generator=source))]
        chosen = torch.randint(len(e.inputs), (16,), generator=source)
        e = e.some(chosen)
        return error(e, committee(e.inputs, source)).mean()

    # Without a validation window that was seen, every moment would look as good as the first, which corrects nothing.
    judges = [e for e in looks if bool(e.seen.any())] or plain

    def validate() -> float:
        return sum(float(error(e, committee(e.inputs).mean(0))) for e in judges) / len(judges)

    notes = {"settings": repr(settings), "part": "correction"}
    fit_network(
        committee,
        loss,
        validate,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        checkpoint=checkpoint,
        seed=seed,
        told=told,
        notes=notes,
        every=25,
    )
    return committee.requires_grad_(False)


def _pooled(lessons: Lessons, case: int, new: Tensor) -> Tensor:
    """The sensors of one case among all that the climate knows."""
    return torch.cat(
        [new if k == case else torch.zeros(f.placement.num_nodes, dtype=torch.bool) for k, f in enumerate(lessons.frames)]
    )
