"""How the gradient of a solve is taken: the contract, and the plainest way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.solution import Solution, SolveError, State, Statistics, Status
from integrators.state import number, parts_of, state_map
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.method import Carry, Method, Step, Trial


class GradientMode(ABC):
    """A way of taking the gradient of a solve."""

    @abstractmethod
    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        """Solve with `method` such that the solution carries this gradient."""


@dataclass(frozen=True)
class Direct(GradientMode):
    """The exact gradient of the discrete solution, by autograd through every step: of any order, in memory that grows with
    the number of steps."""

    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        return Run(method, f, x0, t, watch).solve()


class Run:
    """One solve: the march through the steps, with what is kept on the way."""

    def __init__(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> None:
        from integrators.method import Clock

        self.method, self.x0, self.t, self.watch = method, x0, t, watch
        self.stats = Statistics()
        self.clock = Clock(t, watch.jumps)
        self.counted = CountedRightHandSide(f, x0, self.stats, method.max_nfe, watch)
        self.f = method.prepare(self.counted, self.clock.outputs[0], x0)

    def solve(self, keep: Callable[[int, Step, Carry, Trial], None] | None = None) -> Solution:
        """March to the end; `keep(k, step, carry, trial)` sees each accepted step, the carry before it and what came of it.

        Raises:
            SolveError: with the states that were reached in `.solution`.
        """
        rows: list[State | None] = [None] * len(self.t)
        rows[0] = self.x0
        last: tuple[Step, Carry, Trial] | None = None
        dense: list[tuple[Step, Carry, Trial]] = []
        status, failure = Status.SUCCESS, None
        states = bytes_of(self.x0)
        try:
            for k, (step, carry, trial) in enumerate(self.method.steps(self.f, self.x0, self.clock, self.watch, self.stats)):
                if keep is not None:
                    keep(k, step, carry, trial)
                for j, x in self.method.outputs(self.f, step, carry, trial, self.clock):
                    known = rows[j]
                    rows[j] = x if known is None else state_map(torch.add, known, x)
                if self.watch.dense:
                    dense.append((step, carry, trial))
                if last is None:
                    self.stats.peak_memory = 2 * (bytes_of(carry) + bytes_of(trial.stages)) + states * len(self.t)
                last = (step, carry, trial)
        except SolveError as error:
            status, failure = error.status, error
        except KeyboardInterrupt as error:
            status = Status.INTERRUPTED
            failure = SolveError(f"interrupted after {self.stats.accepted} steps: `.solution` keeps them", status)
            failure.__cause__ = error
        if self.watch.dense:
            self.stats.peak_memory += sum(bytes_of(carry) + bytes_of(trial.stages) for _, carry, trial in dense)
        reached = next((j for j, row in enumerate(rows) if row is None), len(rows))
        states_reached = [row for row in rows[:reached] if row is not None]
        solution = Solution(self.t[:reached], stacked(states_reached), self.stats, status)
        if self.watch.dense and dense:
            solution.interpolant = Dense(self, dense)
        if failure is not None:
            failure.solution = solution
            raise failure
        return solution


class Dense:
    """x(s) at any time of a solve, by the continuous extension of its method."""

    def __init__(self, run: Run, steps: list[tuple[Step, Carry, Trial]]) -> None:
        self.run = run
        self.steps = steps
        self.ends = [step.t + step.h for step, _, _ in steps]
        self.order = [run.clock.sign * end for end in self.ends]

    def __call__(self, s: Tensor) -> State:
        now, sign = number(s), self.run.clock.sign
        first, last = self.steps[0][0].t, self.ends[-1]
        slack = 1e-12 * max(1.0, abs(first), abs(last))
        if not min(first, last) - slack <= now <= max(first, last) + slack:
            raise ValueError(f"t = {now:.6g} lies outside the solve, which covers {first:.6g} to {last:.6g}")
        k = min(bisect_left(self.order, sign * now), len(self.ends) - 1)
        step, carry, trial = self.steps[k]
        t, h = self.run.clock.of(step)
        theta = (s - t) / h
        return self.run.method.interpolate(self.run.f, t, h, carry, trial, theta)


class Recipe(ABC):
    """A gradient that autograd does not record but asks for: what was solved, what is kept of it, and how to pull back.

    What `kept` returns goes through autograd's own storage: it is freed after the backward pass unless retain_graph is
    asked, and saved-tensor hooks see it.
    """

    def __init__(self, x0: State, captured: list[Tensor]) -> None:
        self.is_tuple = isinstance(x0, tuple)
        self.count = len(parts_of(x0))
        self.captured = captured

    @abstractmethod
    def solve(self) -> Solution:
        """The solution, without gradients."""

    def kept(self, solution: Solution) -> list[Tensor]:
        """The tensors that `pull` will want."""
        return []

    @abstractmethod
    def pull(self, grads: list[Tensor | None], t: Tensor, x0: State, kept: list[Tensor]) -> list[Tensor | None]:
        """The gradients in t, in the parts of x0 and in the captured tensors, given those of the stacked outputs."""

    def pull_twice(self, grads: list[Tensor | None], saved: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """The same with a graph of its own, for second derivatives."""
        raise NotImplementedError(
            f"{type(self).__name__.strip('_')} has no second derivatives (create_graph=True): use gradient=Checkpointed() or "
            "Direct()"
        )

    def state(self, parts: Any) -> State:
        """A state made of its parts."""
        return tuple(parts) if self.is_tuple else parts[0]

    def attach(self, x0: State, t: Tensor) -> Solution:
        """Solve, and give the solution this gradient."""
        box: list[tuple[Solution, SolveError | None]] = []
        x = _Attached.apply(self, box, t, *parts_of(x0), *self.captured)  # type: ignore[no-untyped-call]
        solution, failure = box[0]
        solution.x = self.state(x)
        solution.t = t[: len(solution.t)]
        if failure is not None:
            failure.solution = solution
            raise failure
        return solution


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recipe: Recipe, box: list[Any], t: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        # What is reached from the solution must not be reached from ctx: it would never be freed.
        failure = None
        try:
            solution = recipe.solve()
        except SolveError as error:
            if error.solution is None:
                raise
            failure, solution = error, error.solution
        box.append((solution, failure))
        ctx.recipe = recipe
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(t, *tensors, *recipe.kept(solution))
        return parts_of(solution.x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        recipe: Recipe = ctx.recipe
        saved = ctx.saved_tensors  # Also notices a tensor that was changed in place since.
        if torch.is_grad_enabled():
            return (None, None, *recipe.pull_twice(list(grads), saved))
        t, x0, kept = saved[0], saved[1 : 1 + recipe.count], saved[1 + recipe.count + len(recipe.captured) :]
        return (None, None, *recipe.pull(list(grads), t, recipe.state(x0), list(kept)))


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which a backward of our own would hide from."""
    functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return functorch or torch.autograd.forward_ad._current_level >= 0


def stacked(states: list[State]) -> State:
    """The states along a new first axis."""
    if isinstance(states[0], tuple):
        return tuple(torch.stack(list(parts)) for parts in zip(*(parts_of(s) for s in states), strict=True))
    return torch.stack([s for s in states if isinstance(s, Tensor)])


def bytes_of(tree: Any) -> int:
    """The bytes of the tensors in nested tuples, lists and dictionaries."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(bytes_of(value) for value in tree.values())
    return sum(bytes_of(part) for part in tree) if isinstance(tree, (tuple, list)) else 0
