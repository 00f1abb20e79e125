"""A diffusivity that changes with time, as the layers of a network have parameters of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from operators.checks import DomainError
from operators.diffusivity import Diffusivity, EdgePrior, Joint
from operators.operator import Movable
from operators.sparse import SparseOperator


class Stages(Diffusivity):
    """A(t, z) = A_k(z) for t_k ≤ t < t_{k+1}: piecewise constant in time (Chamberlain et al. 2021, "Time-dependent diffusivity").

    Each stage has parameters of its own, and may have edges of its own on the same nodes. A flow reads `jumps`, the times of
    change; `integrate` ends a step at each, and asks on either side for the stage of that side.

    Args:
        stages: A_0, A_1, ..., on as many nodes, normalised over the same, at the same rate.
        times: t_1 < t_2 < ..., one fewer than the stages: when each of the later ones begins.

    Good values: `Stages([ScaledDotProduct(graph, 64) for _ in range(4)], [1.0, 2.0, 3.0])` until t = 4: with Euler steps of one,
    four layers of a graph attention network, each with attention of its own.

    Raises:
        DomainError: stages that do not fit together; times that are not finite, not rising, too many or too few.
    """

    def __init__(self, stages: Sequence[Diffusivity], times: Sequence[float]) -> None:
        Movable.__init__(self)
        self.times = tuple(float(time) for time in times)
        if len(self.times) != len(stages) - 1:
            raise DomainError(f"{len(stages)} stages need {len(stages) - 1} times between them, not {len(self.times)}")
        if not all(map(math.isfinite, self.times)) or any(early >= late for early, late in pairwise(self.times)):
            raise DomainError(f"the times of change must be finite and rise, not {list(self.times)}")
        for k, stage in enumerate(stages):
            if not isinstance(stage, Diffusivity):
                raise DomainError(f"stage {k} must be a diffusivity such as ScaledDotProduct, not a {type(stage).__name__}")
            if stage.over is not stages[0].over or stage.rate.shape != stages[0].rate.shape:
                raise DomainError(f"stage {k} has other nodes, or is normalised over something else, than stage 0")
            if not torch.allclose(stage.rate, stages[0].rate):
                raise DomainError(f"stage {k} has another rate than stage 0: build all on one Laplacian, or on graphs")
        self.stages = nn.ModuleList(stages)
        self.heads, self.normalise = stages[0].heads, stages[0].normalise

    @property
    def edges(self) -> EdgePrior:  # type: ignore[override]
        """Those of the first stage."""
        return self._stage(0).edges

    @property
    def jumps(self) -> tuple[float, ...]:
        within = (time for k in range(len(self.stages)) for time in self._stage(k).jumps)
        return tuple(sorted({*self.times, *within}))

    def at(self, t: Tensor) -> Diffusivity:
        return self._stage(sum(bool(t >= time) for time in self.times)).at(t)

    def forward(self, z: Joint) -> SparseOperator:
        raise DomainError("a diffusivity in stages has no value without a time: call stages.at(t)(z), as BeltramiFlow does")

    def score(self, z: Joint) -> Tensor:
        raise DomainError("a diffusivity in stages has no scores without a time: call stages.at(t).score(z)")

    def _stage(self, k: int) -> Diffusivity:
        stage: Diffusivity = self.stages[k]  # type: ignore[assignment]
        return stage
