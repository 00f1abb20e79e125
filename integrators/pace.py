"""The step control of many groups at once, each its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from integrators.adaptive import Adaptive
from integrators.controller import Controller
from integrators.method import Clock
from integrators.solution import SampleStatistics, Statistics


class Pace:
    """Where every group is, and how long a step each tries next: the control of `Adaptive`, one number a group.

    Attributes:
        time, h, proposal: of each group.
        stretch: how many jumps each has passed, and one more at the end of the solve.
        accepted, rejected: steps so far.
    """

    def __init__(self, method: Adaptive, clock: Clock, sizes: Tensor) -> None:
        self.method, self.sign = method, clock.sign
        start, end = clock.outputs[0], clock.outputs[-1]
        # On its own side of a jump, by the smallest distance: f is never asked there for what it is beyond.
        starts, stops = [start, *clock.jumps], [*clock.jumps, end]
        begins = [beside(s, self.sign) if s in clock.breaks else s for s in starts]
        ends = [beside(s, -self.sign) if s in clock.breaks else s for s in stops]
        self.begins, self.ends = (torch.tensor([*part, end], dtype=torch.float64) for part in (begins, ends))
        self.marks = torch.tensor([*clock.jumps, end, end], dtype=torch.float64)
        self.over = len(self.marks) - 1
        self.stretch = torch.where(sizes > 0, 0, self.over)
        self.time = self.begins[self.stretch]
        self.h = self.length = self.proposal = torch.zeros_like(self.time)
        self.last = torch.zeros_like(self.stretch, dtype=torch.bool)
        self.ratios = torch.full((2, len(sizes)), math.nan, dtype=torch.float64)
        self.accepted, self.rejected, self.troubles, self.tries = torch.zeros(4, len(sizes), dtype=torch.int64)

    @property
    def active(self) -> Tensor:
        """Which groups have not reached the end."""
        return self.stretch < self.over

    @property
    def slowest(self) -> int:
        """The group that is furthest behind."""
        return int(torch.where(self.active, self.sign * self.time, math.inf).argmin())

    def span(self) -> Tensor:
        """How far it is to the next jump, or to the end."""
        return (self.ends[self.stretch] - self.time).abs()

    def propose(self) -> Tensor:
        """The signed length that each group tries now; 0 for those that are done."""
        left, end = self.span(), self.ends[self.stretch]
        self.length = torch.where(self.active, fit(self.proposal, left, (end - self.begins[self.stretch]).abs()), 0.0)
        self.last = self.active & (self.length >= left)
        h = torch.where(self.last, end - self.time, self.sign * self.length)
        beyond = self.last & (self.sign * (self.time + h) > self.sign * end)
        self.h = torch.where(beyond, torch.nextafter(h, torch.zeros_like(h)), h)
        return self.h

    def judge(self, ratio: Tensor) -> Tensor:
        """Which groups accept their step; what the others try next."""
        good = self.active & (ratio <= 1)
        bad = self.active & ~good
        lost = bad & ~ratio.isfinite()
        self.growth = factors(self.method.controller, ratio, self.method.error_order, *self.ratios)
        shorter = torch.where(lost, 0.1 * self.length, self.length * self.growth)
        self.longer = torch.where(self.tries > 0, self.growth.clamp(max=1.0), self.growth) * self.length
        # A step that was cut short to meet an end says little about the next.
        self.longer = torch.where(self.length < 0.9 * self.proposal, torch.maximum(self.proposal, self.longer), self.longer)
        self.proposal = torch.where(bad, shorter, self.proposal)
        self.troubles = torch.where(lost, self.troubles + 1, torch.where(good, 0, self.troubles))
        self.tries = torch.where(bad, self.tries + 1, torch.where(good, 0, self.tries))
        self.rejected = self.rejected + bad
        return good

    def arrivals(self, good: Tensor) -> Tensor:
        """Where every group is after this round."""
        return torch.where(good, torch.where(self.last, self.marks[self.stretch], self.time + self.h), self.time)

    def move(self, good: Tensor, ratio: Tensor) -> Tensor:
        """Take the accepted steps; which groups have passed a jump with them."""
        arrived = self.arrivals(good)
        jumped = good & self.last & (self.stretch < self.over - 1)
        self.stretch = self.stretch + (good & self.last)
        self.time = torch.where(jumped, self.begins[self.stretch], arrived)
        self.proposal = torch.where(good, self.longer, self.proposal)
        self.proposal = torch.where(jumped, torch.minimum(self.proposal, self.span()), self.proposal)
        self.ratios = torch.where(good, torch.stack((ratio, self.ratios[0])), self.ratios)
        self.ratios = torch.where(jumped, math.nan, self.ratios)
        self.accepted = self.accepted + good
        return jumped

    def write(self, stats: Statistics) -> None:
        """What every group has done so far, and the sums."""
        if stats.samples is None:
            stats.samples = SampleStatistics(history=[[] for _ in self.time])
        stats.samples.t = torch.where(self.active, self.time, self.ends[-1]).tolist()
        stats.samples.accepted, stats.samples.rejected = self.accepted.tolist(), self.rejected.tolist()
        stats.accepted, stats.rejected = int(self.accepted.sum()), int(self.rejected.sum())


def fit(h: Tensor, left: Tensor, stretch: Tensor) -> Tensor:
    """`Adaptive.fit`, one length a group."""
    even = torch.where(2 * h > left, left / 2, h)
    return torch.where((h >= left) | (left - h <= 1e-12 * stretch), left, even)


def factors(controller: Controller, ratio: Tensor, order: int, before: Tensor, earlier: Tensor) -> Tensor:
    """`Controller.factor`, one a group; NaN where there was no step before."""
    if type(controller).factor is not Controller.factor:
        rows = [[None if math.isnan(r) else r for r in row] for row in torch.stack((before, earlier)).T.tolist()]
        found = [controller.factor(r, order, *row) for r, row in zip(ratio.tolist(), rows, strict=True)]
        return torch.tensor(found, dtype=torch.float64)
    # By exp and log: torch.pow may round differently at the end of a vector, and a permutation of the groups would show.
    c, goal = controller, order * math.log(controller.safety)
    now, one, two = ((r.clamp(min=1e-10).log() - goal) / order for r in (ratio, before, earlier))
    one, two = (torch.where(r.isnan(), 0.0, r) for r in (one, two))
    power = torch.exp(-c.integral * now + c.proportional * one - c.derivative * two).clamp(c.smallest, c.largest)
    return torch.where(ratio > 1, torch.exp(-now).clamp(max=1.0).clamp(min=c.smallest), power)


def beside(t: float, sign: float) -> float:
    """The number next to t, in the direction of the sign."""
    return math.nextafter(t, sign * math.inf)
