"""The exact gradient of a solve in the memory of a few steps: keep some states, repeat the steps between them in backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from integrators.captured import Known, Surroundings, quiet, reached_tensors
from integrators.gradients import Direct, GradientMode, Recipe, Run, bytes_of, transformed
from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.schedule import Thinned, stretches
from integrators.solution import Solution, State, Statistics
from integrators.state import largest, parts_of, state_map, subtract
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.method import Carry, Clock, Method, Step, Trial


@dataclass(frozen=True)
class Checkpointed(GradientMode):
    """The exact gradient of the discrete solution, equal to that of `Direct`, without keeping the graph of every step.

    The forward pass records nothing: it keeps a state every now and then (fewer as the solve grows, so the number of steps need
    not be known). The backward pass repeats the steps from one kept state to the next, recording a short stretch at a time.
    With n steps the default keeps about √(8n) states and records √(n/8) steps at once: one repeated forward pass, and memory
    that grows as √n. With a fixed number of `snapshots` the stretches between them are divided again by the binomial
    schedule (Griewank and Walther 2000, ACM TOMS 26, Algorithm 799), with at most its number of repetitions: memory stays as
    given, and the work grows slowly.

    Gradients flow to x0, t, parameters and every tensor that f merely holds; f is evaluated once or twice more to find them.
    A tensor that f reaches only later, in a branch, and that is no parameter of it, raises a RuntimeError in the backward pass,
    and so does an f that does not repeat itself. Random numbers and autocast are repeated as they were. What f does on the
    side (the running averages of BatchNorm, counters) it does once more in every repetition.

    Second derivatives are those of `Direct`, at its memory. Inside torch.func transforms, with `dense=True`, and where an
    adaptive method meets a random f, it is `Direct`.

    Args:
        snapshots: how many states to keep at most; None for the square-root rule.
        offload: keep them in the host's memory, for solves on a GPU.
    """

    snapshots: int | None = None
    offload: bool = False

    def __post_init__(self) -> None:
        n = self.snapshots
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ValueError(f"snapshots must be a positive integer or None, not {n!r}")

    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        if not torch.is_grad_enabled() or watch.dense or transformed():
            return Direct().run(method, f, x0, t, watch)
        x0 = state_map(lambda part: part.clone() if part.is_inference() else part, x0)
        captured, around = reached_tensors(f, t[0], x0)
        run = Run(method, f, x0, t, watch)
        run.stats.nfe += around.evaluations
        if around.random and hasattr(method, "rtol"):
            # The random numbers of rejected steps are not drawn again in a repetition.
            return run.solve()
        if not any(part.requires_grad for part in (*parts_of(x0), t, *captured)):
            with torch.no_grad():
                return run.solve()
        return _Replay(self, run, captured, around).attach(x0, t)


class _Snapshot(NamedTuple):
    carry: Carry
    dice: tuple[Tensor, ...] = ()


class _Replay(Recipe):
    """The steps of one solve, the states kept of it, and their repetition."""

    def __init__(self, settings: Checkpointed, run: Run, captured: list[Tensor], around: Surroundings) -> None:
        super().__init__(run.x0, captured)
        self.settings, self.run, self.around = settings, run, around
        self.retains = retains(run.method, around)
        self.steps: list[Step] = []
        self.snapshots: Thinned[_Snapshot] = Thinned(settings.snapshots)
        self.dice: tuple[Tensor, ...] = ()
        self.shape: list[tuple[int, Any]] = []

    # -- Forward

    def solve(self) -> Solution:
        self._last: State | None = None
        self._end = 0
        self.dice = self.around.dice() if self.around.random else ()
        return self.run.solve(self._keep)

    def _keep(self, k: int, step: Step, carry: Carry, trial: Trial) -> None:
        self.steps.append(step)
        if step.outputs or step.cut is None:  # A fixed step is known to be finite only where it meets an output.
            self._last, self._end = trial.carry[0], k + 1
        before, self.dice = self.dice, (self.around.dice() if self.around.random else ())
        if self.snapshots.wants(k):
            self.snapshots.keep(k, _Snapshot(self._stored(carry), before))

    def kept(self, solution: Solution) -> list[Tensor]:
        self.run.stats.peak_memory += sum(bytes_of(snapshot.carry) for snapshot in self.snapshots.kept.values())
        del self.steps[self._end :]
        flat: list[Tensor] = []
        for k, snapshot in sorted(self.snapshots.kept.items()):
            if k >= self._end:
                break
            self.shape.append((k, _map(tuple(snapshot), lambda part: None)))
            flat += _leaves(tuple(snapshot))
        flat += parts_of(self._last) if self._last is not None else ()
        self.snapshots.kept = {}
        del self._last
        return flat

    def _stored(self, carry: Carry) -> Carry:
        return _map(carry, lambda part: part.to("cpu")) if self.settings.offload else carry

    def _loaded(self, carry: Carry) -> Carry:
        return _map(carry, lambda part: part.to(self.run.counted.device)) if self.settings.offload else carry

    # -- Repetition

    def fresh(self, t: Tensor) -> tuple[Any, Clock]:
        """f and clock for a repetition whose evaluations count as backward ones."""
        from integrators.method import Clock

        run = self.run
        counted = CountedRightHandSide(run.counted.f, run.x0, _Backward(run.stats), 2**62)
        with torch.enable_grad():  # What is prepared may depend on parameters.
            f = run.method.prepare(counted, run.clock.outputs[0], state_map(torch.Tensor.detach, run.x0))
        return f, Clock(t, run.watch.jumps)

    def _begin(self, step: Step, carry: Carry, f: Any, clock: Clock) -> Carry:
        return self.run.method.start(f, clock.of(step)[0], carry[0]) if step.before == 0.0 else carry

    def march(self, first: int, end: int, carry: Carry, f: Any, clock: Clock) -> tuple[Carry, dict[int, State]]:
        """The steps first, ..., end − 1 from their carry: the carry after them, and the states at the outputs in them."""
        rows: dict[int, State] = {}
        method = self.run.method
        for step in self.steps[first:end]:
            carry = self._begin(step, carry, f, clock)
            trial = method.repeat(f, step, carry, clock)
            for j, x in method.outputs(f, step, carry, trial, clock):
                rows[j] = state_map(torch.add, rows[j], x) if j in rows else x
            carry = trial.carry
        return carry, rows

    def advance(self, first: int, end: int, snapshot: _Snapshot, f: Any, clock: Clock) -> _Snapshot:
        """The snapshot before step `end`, from the one before step `first`."""
        carry = self._loaded(snapshot.carry)
        if snapshot.dice:
            self.around.throw(snapshot.dice)
        with torch.no_grad():
            for step in self.steps[first:end]:
                carry = self.run.method.repeat(f, step, self._begin(step, carry, f, clock), clock).carry
        return _Snapshot(self._stored(carry), self.around.dice() if snapshot.dice else ())

    # -- Backward

    def pull(self, grads: list[Tensor | None], t: Tensor, x0: State, kept: list[Tensor]) -> list[Tensor | None]:
        pending = iter(kept)
        snapshots = [(k, _Snapshot(*_map_none(shape, pending))) for k, shape in self.shape]
        reached: State | None = self.state(list(pending)) if self.steps else None
        time = t.detach().requires_grad_(t.requires_grad)
        targets = [*([time] if time.requires_grad else []), *self.captured]
        known = Known(targets)
        total: list[Tensor | None] = [None] * len(targets)
        after: list[Tensor | None] = []
        with self.around.again(), quiet(self.captured):
            f, clock = self.fresh(time)
            def advance(first: int, end: int, snapshot: _Snapshot) -> _Snapshot:
                return self.advance(first, end, snapshot, f, clock)

            limit, tape = self.settings.snapshots or len(snapshots), self.snapshots.tape
            for first, end, snapshot in stretches(snapshots, len(self.steps), tape, limit, advance):
                after, found, reached = self._stretch(first, end, snapshot, reached, grads, after, targets, known, f, clock)
                total = [_sum(a, b) for a, b in zip(total, found, strict=True)]
        start_grads = (after or [None] * self.count)[: self.count]
        for k, grad in enumerate(grads):  # The first output is x0 itself.
            if grad is not None:
                start_grads[k] = _sum(start_grads[k], grad[0])
        return [total.pop(0) if time.requires_grad else None, *start_grads, *total]

    def _stretch(
        self, first: int, end: int, snapshot: _Snapshot, reached: State | None, grads: list[Tensor | None],
        after: list[Tensor | None], targets: list[Tensor], known: Known, f: Any, clock: Clock,
    ) -> tuple[list[Tensor | None], list[Tensor | None], State]:  # fmt: skip
        """Gradients in the carry before a stretch and in the targets, and the state before it."""
        if snapshot.dice:
            self.around.throw(snapshot.dice)
        with torch.enable_grad():
            start = _map(self._loaded(snapshot.carry), lambda part: part.detach().requires_grad_())
            last, rows = self.march(first, end, start, f, clock)
        self._require_same(last[0], reached)
        roots, weights = [], []
        for j, x in rows.items():
            for part, grad in zip(parts_of(x), grads, strict=True):
                if grad is not None and part.requires_grad:
                    roots.append(part)
                    weights.append(grad[j])
        for part, weight in zip(_leaves(last), after, strict=False):
            if weight is not None and part.requires_grad:
                roots.append(part)
                weights.append(weight)
        starts = _leaves(start)
        known.require(roots, starts)
        inputs = [*starts, *targets]
        found: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if roots:
            found = torch.autograd.grad(roots, inputs, weights, retain_graph=self.retains, allow_unused=True)
        return list(found[: len(starts)]), list(found[len(starts) :]), state_map(torch.Tensor.detach, start[0])

    def _require_same(self, x: State, reached: State | None) -> None:
        if reached is None:
            return
        reached = _map(reached, lambda part: part.to(self.run.counted.device))
        tolerance = torch.finfo(parts_of(x)[0].dtype).eps ** 0.5
        difference, size = largest(subtract(x, reached)), largest(reached)
        if not difference <= tolerance * max(size, 1e-30):
            raise RuntimeError(
                f"repeating the steps of the solve gave a state that differs by {difference:.3g} (of {size:.3g}) from the one of "
                "the forward pass, so the gradient would be wrong: the right-hand side changed in between (an updated buffer, a "
                "counter, train() or eval()) or is random by a generator of its own. Mend that, or use gradient=Direct()"
            )

    def pull_twice(self, grads: list[Tensor | None], saved: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        n = 1 + self.count + len(self.captured)
        known = [torch.zeros(()) if grad is None else grad for grad in grads]
        absent = [grad is None for grad in grads]
        return _SecondOrder.apply(self, list(saved[n:]), absent, *known, *saved[:n])  # type: ignore[no-untyped-call,no-any-return]


class _SecondOrder(torch.autograd.Function):
    """The gradient as a function that has a gradient: backward records the whole solve, as `Direct` would."""

    @staticmethod
    def forward(ctx: Any, replay: _Replay, kept: list[Tensor], absent: list[bool], *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.replay, ctx.absent = replay, absent
        ctx.save_for_backward(*tensors)
        n = replay.count
        grads = [None if a else g for a, g in zip(absent, tensors[:n], strict=True)]
        return tuple(replay.pull(grads, tensors[n], replay.state(tensors[n + 1 : 2 * n + 1]), kept))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *seconds: Tensor | None) -> tuple[Tensor | None, ...]:
        replay: _Replay = ctx.replay
        n = replay.count
        with torch.enable_grad(), replay.around.again(), quiet(replay.captured):
            if replay.around.random:
                raise NotImplementedError("a random right-hand side has second derivatives only with gradient=Direct()")
            saved = [part.detach().requires_grad_(part.requires_grad) for part in ctx.saved_tensors]
            grads, t, starts = saved[:n], saved[n], saved[n + 1 : 2 * n + 1]
            x0 = replay.state(starts)
            f, clock = replay.fresh(t)
            _, rows = replay.march(0, len(replay.steps), (x0,), f, clock)
            rows[0] = x0
            outputs, weights = [], []
            for j, x in rows.items():
                for k, part in enumerate(parts_of(x)):
                    if not ctx.absent[k] and part.requires_grad:
                        outputs.append(part)
                        weights.append(grads[k][j])
            inputs = [t, *starts, *replay.captured]
            wanted = [i for i, part in enumerate(inputs) if part.requires_grad]
            firsts = torch.autograd.grad(
                outputs, [inputs[i] for i in wanted], weights, create_graph=True, allow_unused=True
            )
            pairs = [
                (first, second)
                for i, first in zip(wanted, firsts, strict=True)
                if first is not None and first.requires_grad and (second := seconds[i]) is not None
            ]
            sources = [*grads, *inputs]
            asked = [i for i, part in enumerate(sources) if part.requires_grad]
            found: tuple[Tensor | None, ...] = (None,) * len(asked)
            if pairs:
                found = torch.autograd.grad(
                    [a for a, _ in pairs], [sources[i] for i in asked], [b for _, b in pairs],
                    retain_graph=True, allow_unused=True,
                )  # fmt: skip
        result: list[Tensor | None] = [None] * len(sources)
        for i, value in zip(asked, found, strict=True):
            result[i] = value
        return (None, None, None, *result)


class _Backward(Statistics):
    """Counts what a repetition costs among the backward evaluations of a solve."""

    def __init__(self, forward: Statistics) -> None:
        super().__init__()
        self.forward = forward

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "nfe" and "forward" in self.__dict__:
            self.forward.nfe_backward += value - self.nfe
        super().__setattr__(name, value)


def retains(method: Method, around: Surroundings) -> bool:
    """Whether what one pull through a step leaves behind is wanted by the next: outer history, or what the method prepared."""
    from integrators.method import Method as Own

    return around.shared or type(method).prepare is not Own.prepare


def _map(tree: Any, g: Any) -> Any:
    return tuple(_map(part, g) for part in tree) if isinstance(tree, tuple) else g(tree)


def _map_none(tree: Any, values: Iterator[Tensor]) -> Any:
    """The tree with its leaves replaced by the next values."""
    return _map(tree, lambda leaf: next(values))


def _leaves(tree: Any) -> list[Tensor]:
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, tuple) else [tree]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
