"""Random walks on a graph, all of them one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.checks import DomainError, as_index, is_integer
from operators.domains import Graph


class RandomWalks:
    """Walks that leave node i along the edge i → j with probability w_ij / Σ_k w_ik; a walker that cannot leave stays.

    Args:
        graph: directed or not; weights ≥ 0. Edges of weight zero are never taken.

    Raises:
        DomainError: negative weights.

    Good values: `RandomWalks(graph)(torch.arange(graph.nodes), 40, torch.Generator().manual_seed(0))` gives one walk of forty
    steps from every node; the places visited late are distributed as the degrees are.
    """

    def __init__(self, graph: Graph) -> None:
        weight = graph.edge_weight.detach().double()
        if bool((weight < 0).any()):
            raise DomainError(
                f"{int((weight < 0).sum())} edges have negative weight, which is no chance: drop them or take absolute values"
            )
        possible = weight > 0
        source, target = graph.edge_index[:, possible]
        order = torch.argsort(source * graph.nodes + target, stable=True)
        weight, source = weight[possible][order], source[order]
        self.nodes = graph.nodes
        self.target = target[order]
        self.count = torch.bincount(source, minlength=graph.nodes)
        self.first = self.count.cumsum(0) - self.count
        self.even = bool((weight == weight[:1]).all())
        if not self.even:
            # Shares of the row's largest weight, so that no sum overflows and none drowns in another row's.
            top = torch.zeros(graph.nodes, dtype=weight.dtype, device=weight.device)
            share = weight / top.scatter_reduce(0, source, weight, "amax")[source]
            total = torch.zeros_like(top).index_add(0, source, share)
            running = share.cumsum(0)
            before = (running - share)[self.first.clamp_max(len(share) - 1)]
            # The row number plus the running share within the row: one sorted array serves every row.
            self.ladder = source + ((running - before[source]) / total[source]).clamp(0, 1)

    @property
    def stuck(self) -> Tensor:
        """Whether a node has no way out, (n,)."""
        return self.count == 0

    def __call__(self, starts: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Where the walkers are: (len(starts), steps + 1) node numbers, the starts first.

        Raises:
            DomainError: starts that are no nodes, or steps that are no count.
        """
        if not is_integer(steps) or steps < 0:
            raise DomainError(f"steps must be an integer of at least 0, not {steps!r}")
        here = as_index(torch.as_tensor(starts)[None], "starts", 1, None, self.nodes)[0]
        walk = torch.empty(steps + 1, len(here), dtype=torch.int64, device=here.device)
        walk[0] = here
        for k in range(1, steps + 1):
            walk[k] = here = self._step(here, generator)
        return walk.T.contiguous()

    def _step(self, here: Tensor, generator: torch.Generator) -> Tensor:
        if not self.target.numel():
            return here
        # Drawn where the generator lives, so that a seed gives the same walks on every device.
        chance = torch.rand(len(here), dtype=torch.float64, generator=generator, device=generator.device).to(here.device)
        first, count = self.first[here], self.count[here]
        place = first + (chance * count).long() if self.even else torch.searchsorted(self.ladder, here + chance, right=True)
        place = torch.minimum(torch.maximum(place, first), (first + count - 1).clamp_min(0))
        return torch.where(count > 0, self.target[place], here)
