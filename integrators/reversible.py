"""The exact gradient of a reversible method in constant memory: undo each step, then repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from integrators.adjoint import refuse, require_deterministic
from integrators.captured import Known, leaves_of, quiet, reached_tensors
from integrators.checkpointed import _Backward, retains
from integrators.gradients import Direct, GradientMode, Recipe, Run
from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.solution import Solution, State
from integrators.state import largest, parts_of, state_map, subtract
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.method import Method, Step, Trial


@dataclass(frozen=True)
class Reversible(GradientMode):
    """The exact gradient of the discrete solution, in memory that does not grow with the number of steps.

    For methods that a step with −h undoes exactly (Störmer–Verlet, implicit midpoint, symmetric splittings and exponentials of
    skew generators): the backward pass undoes a step, repeats it with a record, and pulls the gradient through it; three
    evaluations where the forward pass made one. Only the outputs are kept; each one that the way back meets must be recovered up
    to √ε (the round-off of the dtype) of its size, and replaces what was recovered, so that round-off does not pile up between
    outputs. (Gholami, Keutzer and Biros 2019, IJCAI, on why this needs a reversible method; McLachlan and Quispel 2006.)

    Raises:
        TypeError: a method that is not reversible, or an f that declares itself `dissipative`.
        RuntimeError: in the backward pass, if an output is not recovered.
    """

    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        if not getattr(method, "reversible", False):
            raise TypeError(
                f"Reversible() undoes each step by one of −h, which {type(method).__name__} cannot: use a method with "
                "`reversible = True`, such as StoermerVerlet or ImplicitMidpoint, or gradient=Checkpointed()"
            )
        if getattr(f, "dissipative", False):
            raise TypeError(
                f"Reversible() cannot go back through {type(f).__name__}, which is dissipative and forgets where it came from: "
                "use gradient=Checkpointed()"
            )
        if not torch.is_grad_enabled():
            return Direct().run(method, f, x0, t, watch)
        refuse(self, watch)
        captured, around = reached_tensors(f, t[0], x0)
        require_deterministic(around, self)
        run = Run(method, f, x0, t, watch)
        run.stats.nfe += around.evaluations
        if not any(part.requires_grad for part in (*parts_of(x0), t, *captured)):
            with torch.no_grad():
                return run.solve()
        recipe = _Undo(x0, captured)
        recipe.run, recipe.around = run, around
        return recipe.attach(x0, t)


class _Undo(Recipe):
    run: Run
    around: Any

    def solve(self) -> Solution:
        self.steps: list[Step] = []
        self.last: State | None = None
        self.end = 0
        return self.run.solve(self._keep)

    def _keep(self, k: int, step: Step, carry: Any, trial: Trial) -> None:
        self.steps.append(step)
        if step.outputs or step.cut is None:  # A fixed step is known to be finite only where it meets an output.
            self.last, self.end = trial.carry[0], k + 1

    def kept(self, solution: Solution) -> list[Tensor]:
        last = [] if self.last is None else list(parts_of(self.last))
        self.last = None
        del self.steps[self.end :]
        return [*parts_of(solution.x), *last]

    def pull(self, grads: list[Tensor | None], t: Tensor, x0: State, kept: list[Tensor]) -> list[Tensor | None]:
        from integrators.method import Clock

        n, run = self.count, self.run
        keep = retains(run.method, self.around)
        rows = kept[:n]
        time = t.detach().requires_grad_(t.requires_grad)
        clock, still = Clock(time, run.watch.jumps), Clock(t.detach(), run.watch.jumps)
        targets = [*([time] if time.requires_grad else []), *self.captured]
        known = Known(targets)
        total: list[Tensor] = [torch.zeros_like(part) for part in targets]
        a = [torch.zeros_like(part[0]) for part in rows]
        with self.around.again(), quiet(self.captured):
            counted = CountedRightHandSide(run.counted.f, run.x0, _Backward(run.stats), 2**62)
            with torch.enable_grad():
                f = run.method.prepare(counted, run.clock.outputs[0], state_map(torch.Tensor.detach, run.x0))
            x = self.state(kept[n:]) if self.steps else run.x0
            for k in range(len(self.steps) - 1, -1, -1):
                step = self.steps[k]
                with torch.no_grad():
                    s, h = still.of(step)
                    end = run.method.start(f, s + h, x)
                    before = self._settled(run.method.advance(f, s + h, -h, end, 0.0).carry[0], k, rows)
                with torch.enable_grad():
                    start = leaves_of(before)
                    carry = run.method.start(f, clock.of(step)[0], start)
                    trial = run.method.repeat(f, step, carry, clock)
                    outputs = dict(run.method.outputs(f, step, carry, trial, clock))
                roots, weights = list(parts_of(trial.carry[0])), a
                for j, row in outputs.items():
                    for part, grad in zip(parts_of(row), grads, strict=True):
                        if grad is not None:
                            roots, weights = [*roots, part], [*weights, grad[j]]
                pairs = [(part, weight) for part, weight in zip(roots, weights, strict=True) if part.requires_grad]
                roots = [part for part, _ in pairs]
                starts = parts_of(start)
                known.require(roots, starts)
                found = torch.autograd.grad(
                    roots, [*starts, *targets], [weight for _, weight in pairs], retain_graph=keep, allow_unused=True
                )
                a = [torch.zeros_like(part) if g is None else g for part, g in zip(starts, found, strict=False)]
                total = [old if g is None else old + g for old, g in zip(total, found[n:], strict=True)]
                x = before
        a = [part if g is None else part + g[0] for part, g in zip(a, grads, strict=True)]
        return [total.pop(0) if time.requires_grad else None, *a, *total]

    def _settled(self, x: State, k: int, rows: list[Tensor]) -> State:
        """The state before step k, taken from the output that lies there if one does."""
        known = 0 if k == 0 else next((j for j, theta in self.steps[k - 1].outputs if theta == 1.0), None)
        if known is None:
            return x
        expected = self.state([part[known] for part in rows])
        off, size = largest(subtract(x, expected)), largest(expected)
        tolerance = torch.finfo(rows[0].dtype).eps ** 0.5
        if not off <= tolerance * max(size, 1e-30):
            name, t = type(self.run.method).__name__, self.run.clock.outputs[known]
            raise RuntimeError(
                f"undoing the steps of {name} gave a state at t = {t:.6g} that differs by {off:.3g} (of {size:.3g}) from the one "
                "of the forward pass, so the gradient would be wrong: f is dissipative or changed in between, or round-off grew. "
                "Use gradient=Checkpointed()"
            )
        return expected
