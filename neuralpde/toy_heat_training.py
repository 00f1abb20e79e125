"""How the networks of the toy experiment learn: by Adam on batches, or by L-BFGS where they are a few numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuralpde.toy_heat import TRAINED_STEPS, GridHeat, first, pairs
from neuralpde.toy_heat_methods import Learned, Schedule, Told, ToyMethod
from neuralpde.training import Training, train
from operators import Graph, Movable

PUBLISHED_RATE = 1e-4


@dataclass(frozen=True)
class Network(ToyMethod):
    """A model that is built on one graph and moves to others with its parameters."""

    random: ClassVar[bool] = True

    @abstractmethod
    def build(self, graph: Graph) -> Movable:
        """The model on a graph."""

    @abstractmethod
    def learn(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Movable:
        """The model after training on the graphs of the items."""

    def fit(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Learned:
        model = self.learn(items, schedule, seed, checkpoint, told)
        views: dict[int, Any] = {}

        def predict(item: GridHeat, x: Tensor) -> Tensor:
            if item.side not in views:
                views[item.side] = model.on(item.graph)
            y: Tensor = views[item.side](x)
            return y

        return Learned(predict, sum(p.numel() * (1 + p.is_complex()) for p in model.parameters()))

    def drawn(self, items: Sequence[GridHeat], key: int) -> Movable:
        """The model with weights drawn by the key alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            return self.build(items[0].graph)


@dataclass(frozen=True)
class Trained(Network):
    """A network that Adam trains on the mean squared error of Re z.

    Args:
        learning_rate: at the start of a cosine schedule.
        batch: fields in a step.
        lengths: so many times the steps of the schedule.
        starts: so many first draws of the weights train for a tenth of the steps, and the one of least training loss goes on.
    """

    learning_rate: float = 3e-2
    batch: int = 64
    lengths: int = 1
    starts: int = 1

    def learn(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Movable:
        rate, steps = self.learning_rate, schedule.steps * self.lengths
        if schedule.published:
            rate, steps = PUBLISHED_RATE, schedule.steps
        begun: list[tuple[float, Movable]] = []
        for k in range(self.starts if self.starts > 1 else 0):
            model = self.drawn(items, seed * self.starts + k)
            path = checkpoint.with_name(f"{checkpoint.stem}-start-{k}{checkpoint.suffix}")
            losses = self._train(model, items, max(1, steps // 10), rate, seed, path, told).losses
            last = losses[-max(1, len(losses) // 3) :]
            begun.append((sum(last) / len(last), model))
        best = min(begun, key=lambda pair: pair[0])[1] if begun else self.drawn(items, seed)
        self._train(best, items, steps, rate, seed, checkpoint, told)
        return best

    def _train(
        self, model: Movable, items: Sequence[GridHeat], steps: int, rate: float, seed: int, checkpoint: Path, told: Told
    ) -> Training:
        views: list[Any] = [model.on(item.graph) for item in items]
        fields = [pairs(item, range(TRAINED_STEPS)) for item in items]
        # Grids of one side are one graph, so a batch is of one side, drawn as often as it has fields.
        share = torch.tensor([float(len(x)) for x, _ in fields])

        def loss(step: int, generator: torch.Generator) -> Tensor:
            k = int(torch.multinomial(share, 1, generator=generator))
            x, y = fields[k]
            chosen = torch.randint(len(x), (self.batch,), generator=generator)
            z = views[k](x[chosen])
            error: Tensor = (z.real if z.is_complex() else z) - y[chosen]
            return error.square().mean()

        def progress(training: Training) -> None:
            told(training.step, steps, training.losses[-1])

        notes = {"method": repr(self)}
        return train(
            model, loss, steps=steps, learning_rate=rate, checkpoint=checkpoint, seed=seed, notes=notes, progress=progress
        )


@dataclass(frozen=True)
class Fitted(Network):
    """A model of a few numbers, which L-BFGS fits to all training steps at once.

    Args:
        fields: so many of each training graph at most.
        iterations: at most.
    """

    fields: int = 64
    iterations: int = 80

    def learn(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Movable:
        model = self.drawn(items, seed)
        known = [(model.on(item.graph), *pairs(item, range(TRAINED_STEPS))) for item in first(items, self.fields)]
        nodes = sum(y.numel() for _, _, y in known)
        optimizer = torch.optim.LBFGS(
            model.parameters(),
            max_iter=self.iterations,
            tolerance_grad=0.0,
            tolerance_change=1e-16,
            line_search_fn="strong_wolfe",
        )
        losses: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = torch.stack([(view(x) - y).square().sum() for view, x, y in known]).sum() / nodes
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            told(min(len(losses), self.iterations), self.iterations, losses[-1])
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return model
