"""Steps of its own for every sample of a batch, and for every graph of a ragged batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from integrators.checkpointed import Checkpointed
from integrators.explicit import ExplicitPair
from integrators.gradients import Dense, Direct
from integrators.integrator import Evaluate, Integrator
from integrators.norms import ErrorNorm, RMSNorm, RowNorm
from integrators.rounds import Groups, OwnSteps, Rounds
from integrators.solution import Solution, SolveError, State
from integrators.state import parts_of, state_map
from integrators.watch import Watch


@dataclass(frozen=True)
class PerSample(Integrator):
    """Every sample of a batch takes its own steps: its own time, step length, error norm, acceptance and rejection.

    The state is (B, ...); f is evaluated on the whole batch at once, with a tensor t of shape (B, 1, ..., 1) that broadcasts
    over it, and must treat the samples apart. A sample's solution is that of the sample alone, whatever the others do, and
    there are as many evaluations as the slowest sample needs, not as many as all need together. A sample that is done stays
    exactly as it is. `stats.samples` tells what each one cost, and the other statistics their sum, except that `max_steps`
    counts rounds, in each of which every unfinished sample tries one step.

    Args:
        pair: the method, with its tolerances, the norm that each sample is measured by, its gradient (`Direct()` or
            `Checkpointed()`) and its budget, as in PerSample(Dopri5(rtol=1e-6)).
    """

    pair: ExplicitPair

    def __post_init__(self) -> None:
        _check_pair(self.pair, "PerSample")

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        return _solve(self.pair, _Samples(x0), f, x0, t, watch)


@dataclass(frozen=True, eq=False)
class PerSegment(Integrator):
    """Every graph of a ragged batch takes its own steps, where the nodes of all graphs stand in one big graph.

    As `PerSample`, with the nodes grouped by an index: the state is (..., n, c), and f is given a t of shape (n, 1).

    Args:
        batch: (n,) integers, the graph that each node belongs to, as `Batch.batch` in PyG; in any order.
        pair: the method, as in PerSegment(data.batch, Tsit5(rtol=1e-6)); its norm is `RowNorm()` or `RMSNorm()`.
    """

    batch: Tensor = field(repr=False)
    pair: ExplicitPair

    def __post_init__(self) -> None:
        _check_pair(self.pair, "PerSegment")
        if not isinstance(self.pair.norm, (RowNorm, RMSNorm)):
            raise TypeError(f"PerSegment measures errors by RowNorm() or RMSNorm(), not {self.pair.norm!r}")
        batch = self.batch
        if not isinstance(batch, Tensor) or batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool:
            raise TypeError("batch must be a tensor of integers: the segment that each node belongs to")
        if batch.ndim != 1 or not len(batch):
            raise ValueError(f"batch must have the shape (n,), one segment for each node, not {tuple(batch.shape)}")
        least, most = int(batch.min()), int(batch.max())
        if least < 0 or most > 16 * len(batch) + 1024:
            raise ValueError(f"batch names segments {least} to {most} for {len(batch)} nodes: number the segments from 0 on")

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        return _solve(self.pair, _Segments(self.batch, x0), f, x0, t, watch)


class _Samples(Groups):
    """The entries of the leading axis, B of them; times have the shape (B, 1, ..., 1)."""

    name = "sample"

    def __init__(self, x0: State) -> None:
        parts = parts_of(x0)
        shapes = [tuple(part.shape) for part in parts]
        if any(len(s) == 0 for s in shapes) or len({(s[0], len(s)) for s in shapes}) > 1:
            raise ValueError(
                "PerSample needs a state (B, ...) whose first axis counts the samples, every part with as many samples and as "
                f"many axes as the others, not {', '.join(map(str, shapes))}: reshape x0"
            )
        self.shape = (-1, *[1] * (len(shapes[0]) - 1))
        self.device = parts[0].device
        self.sizes = torch.ones(shapes[0][0], dtype=torch.int64)

    def spread(self, values: Tensor) -> Tensor:
        return values.to(self.device).reshape(self.shape)

    def norms(self, norm: ErrorNorm, ratio: Tensor) -> Tensor:
        return torch.vmap(norm.of)(ratio)


class _Segments(Groups):
    """The nodes (the axis before the last) with the same number in an index; times have the shape (n, 1)."""

    name = "segment"

    def __init__(self, batch: Tensor, x0: State) -> None:
        parts = parts_of(x0)
        shapes = [tuple(part.shape) for part in parts]
        if any(len(s) < 2 or s[-2] != len(batch) for s in shapes):
            raise ValueError(
                f"PerSegment has a batch index of {len(batch)} nodes, so that every tensor of the state must be "
                f"(..., {len(batch)}, c), not {', '.join(map(str, shapes))}"
            )
        self.batch = batch.to(device=parts[0].device, dtype=torch.int64)
        self.sizes = torch.bincount(batch.cpu())

    def spread(self, values: Tensor) -> Tensor:
        return values.to(self.batch.device)[self.batch][:, None]

    def norms(self, norm: ErrorNorm, ratio: Tensor) -> Tensor:
        none = ratio.real.new_zeros(len(self.sizes))
        if isinstance(norm, RowNorm):
            rows = torch.linalg.vector_norm(ratio, dim=-1) / math.sqrt(ratio.shape[-1])
            return none.scatter_reduce(0, self.batch, rows.reshape(-1, len(self.batch)).amax(0), "amax")
        nodes = torch.linalg.vector_norm(ratio.movedim(-2, 0).flatten(1), dim=1).square()
        entries = self.sizes.to(nodes) * (ratio.numel() // len(self.batch))
        return (none.index_add(0, self.batch, nodes) / entries.clamp(min=1.0)).sqrt()


class _OwnTimes(torch.nn.Module):
    """f, always given a time for every row."""

    def __init__(self, f: Evaluate, shape: torch.Size) -> None:
        super().__init__()
        self.f = f
        self.shape = shape

    def forward(self, t: Tensor, x: State) -> State:
        try:
            return self.f(t if t.shape == self.shape else t.expand(self.shape), x)
        except RuntimeError as error:
            error.add_note(
                f"f was given a time for every row, t of shape {tuple(self.shape)}: it must broadcast t over x, as in "
                "torch.where(t < 5, a, b) * x, and not branch on it."
            )
            raise


def _solve(pair: ExplicitPair, groups: Groups, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
    rounds = Rounds(pair=pair, groups=groups, gradient=pair.gradient, max_nfe=pair.max_nfe)
    own = _OwnTimes(f, groups.spread(groups.sizes).shape)
    try:
        solution = rounds.solve(own, x0, t, watch)
    except SolveError as error:
        if error.solution is not None:
            _finish(error.solution, rounds)
        raise
    _finish(solution, rounds)
    return solution


def _finish(solution: Solution, rounds: Rounds) -> None:
    """Keep the output times that every group has reached, and let each be interpolated in its own steps."""
    if isinstance(solution.interpolant, Dense):
        solution.interpolant = OwnSteps(rounds, solution.interpolant)
    samples, times = solution.stats.samples, solution.t.tolist()
    if samples is not None and len(times) > 1:
        sign = math.copysign(1.0, times[-1] - times[0])
        slowest = min(sign * s for s in samples.t)
        n = max(1, sum(sign * s <= slowest for s in times))
        if n < len(times):
            solution.t, solution.x = solution.t[:n], state_map(lambda part: part[:n], solution.x)


def _check_pair(pair: object, user: str) -> None:
    if not isinstance(pair, ExplicitPair):
        raise TypeError(f"{user} needs an explicit pair such as Dopri5(rtol=1e-6), not {pair!r}")
    if not isinstance(pair.gradient, (Direct, Checkpointed)):
        raise TypeError(f"{user} takes its gradient step by step: use Checkpointed() or Direct(), not {pair.gradient!r}")
