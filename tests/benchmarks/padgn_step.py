"""Print what a training step of PA-DGN costs: python tests/benchmarks/padgn_step.py [--sensors 44] [--rounds 5] [--threads 2]

The published size: 340,001 parameters, width 64, 16 differences of each kind, 4 nearest neighbours, 8 windows of 12 + 12 frames;
forward, backward and Adam. `scatter` is what one writes with PyTorch Geometric: `MessagePassing` over one batched graph,
concatenated features of gathered nodes, `GRUCell`, `scatter`. Both start from the same weights, whose gradients are compared, and
take turns within one process; the medians and their ratio are printed, of the time that passed and of the processor's, which
other programs on the machine disturb less.
"""

import argparse
import json
import os
import statistics
import time
import warnings

import torch
from torch import nn

from neuralpde.pa_dgn import PADGN, SensorGraph
from operators import PointCloud, SparsityPattern

WINDOWS, FRAMES, WIDTH, DIFFERENCES, POSITIONS = 8, 12, 64, 16, 3

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import MessagePassing
    from torch_geometric.utils import scatter


class Cells(nn.Module):
    """Two GRU cells and a decoder."""

    def __init__(self, inputs, outputs, rectified):
        super().__init__()
        self.one, self.two = nn.GRUCell(inputs, WIDTH), nn.GRUCell(WIDTH, WIDTH)
        self.decoder, self.rectified = nn.Linear(WIDTH, outputs), rectified

    def forward(self, x, state):
        one = self.one(x, state[0])
        two = self.two(one, state[1])
        out = self.decoder(two)
        return out.relu() if self.rectified else out, (one, two)


class Block(MessagePassing):
    """An edge update and a node update."""

    def __init__(self, nodes, edges, outputs, rectified):
        super().__init__(aggr="add")
        self.edge = Cells(2 * nodes + edges, WIDTH, True)
        self.node = Cells(nodes + 2 * WIDTH, outputs, rectified)

    def forward(self, x, e, edge_index, state):
        e, at_edges = self.edge(self.edge_updater(edge_index, x=x, e=e), state[0])
        received = self.propagate(edge_index, e=e, size=(len(x), len(x)))
        sent = scatter(e, edge_index[0], dim=0, dim_size=len(x), reduce="sum")
        x, at_nodes = self.node(torch.cat([x, sent, received], dim=-1), state[1])
        return x, e, (at_edges, at_nodes)

    def edge_update(self, x_i, x_j, e):
        return torch.cat([e, x_j, x_i], dim=-1)

    def message(self, e):
        return e


class Coefficients(MessagePassing):
    """The weights of the differences: edges, nodes, edges."""

    def __init__(self, inputs):
        super().__init__(aggr="add")
        self.first, self.second = nn.Linear(2 * inputs, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.third, self.fourth = nn.Linear(inputs + 2 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fifth, self.sixth = nn.Linear(3 * WIDTH, WIDTH), nn.Linear(WIDTH, 3 * DIFFERENCES)

    def forward(self, x, edge_index):
        nothing = x.new_zeros(edge_index.shape[1], 0)
        e = self.second(self.first(self.edge_updater(edge_index, x=x, e=nothing)).relu()).relu()
        received = self.propagate(edge_index, e=e, size=(len(x), len(x)))
        sent = scatter(e, edge_index[0], dim=0, dim_size=len(x), reduce="sum")
        x = self.fourth(self.third(torch.cat([x, sent, received], dim=-1)).relu()).relu()
        out = self.sixth(self.fifth(self.edge_updater(edge_index, x=x, e=e)).relu())
        return out.view(-1, DIFFERENCES, 3)

    def edge_update(self, x_i, x_j, e):
        return torch.cat([e, x_j, x_i], dim=-1)

    def message(self, e):
        return e


class Scatter(nn.Module):
    """PA-DGN on a batched graph, frame by frame."""

    def __init__(self):
        super().__init__()
        self.gradient, self.laplacian = Coefficients(1 + POSITIONS), Coefficients(1 + POSITIONS)
        self.blocks = nn.ModuleList([Block(1 + DIFFERENCES, DIFFERENCES, WIDTH, True), Block(WIDTH, WIDTH, 1, False)])

    def step(self, x, positions, edge_index, state):
        sender, receiver = edge_index
        told = torch.cat([x, positions], dim=-1)
        a, b = self.gradient(told, edge_index), self.laplacian(told, edge_index)
        along = a[..., 0] * (x[receiver] - a[..., 1] * x[sender])
        around = b[..., 0] * (x[receiver] - b[..., 1] * x[sender])
        nodes = torch.cat([x, scatter(around, receiver, dim=0, dim_size=len(x), reduce="sum")], dim=-1)
        edges, after = along, []
        for block, before in zip(self.blocks, state, strict=True):
            nodes, edges, now = block(nodes, edges, edge_index, before)
            after.append(now)
        return x + nodes, after

    def forward(self, frames, steps, positions, edge_index):
        """frames (w, B n, 1) → (w − 1 + steps, B n, 1)."""

        def zero(count):
            return frames.new_zeros(count, WIDTH), frames.new_zeros(count, WIDTH)

        state = [(zero(edge_index.shape[1]), zero(frames.shape[1])) for _ in self.blocks]
        path = []
        for k in range(len(frames) - 1 + steps):
            x, state = self.step(frames[k] if k < len(frames) else path[-1], positions, edge_index, state)
            path.append(x)
        return torch.stack(path)


def pairs(plain, ours):
    """The parameters of both that mean the same."""
    for coefficients in ("gradient", "laplacian"):
        one, other = getattr(plain, coefficients), getattr(ours, coefficients)
        layers = [layer for part in (other.edge, other.node, other.out) for layer in (part.first, part.second)]
        for a, b in zip((one.first, one.second, one.third, one.fourth, one.fifth, one.sixth), layers, strict=True):
            yield from ((a.weight, b.weight), (a.bias, b.bias))
    for one, other in zip(plain.blocks, ours.network.blocks, strict=True):
        for a, b in ((one.edge, other.edge), (one.node, other.node)):
            for cell, unit in ((a.one, b.first), (a.two, b.second)):
                yield from ((cell.weight_ih, unit.weight), (cell.bias_ih, unit.bias))
                yield from ((cell.weight_hh, unit.recurrent_weight), (cell.bias_hh, unit.recurrent_bias))
            yield from ((a.decoder.weight, b.decoder.weight), (a.decoder.bias, b.decoder.bias))


def relative(gradients):
    """‖g − g'‖ / ‖g'‖ over all parameters."""
    difference = torch.cat([(a - b).flatten() for a, b in gradients])
    return float(difference.norm() / torch.cat([b.flatten() for _, b in gradients]).norm())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, default=44)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    n = options.sensors
    cloud = PointCloud(torch.rand(n, 2))
    sender, receiver = cloud.knn_graph(4).edge_index
    graph = SensorGraph(SparsityPattern(receiver, sender, (n, n)), torch.randn(n, POSITIONS))
    batched = torch.cat([torch.stack([sender, receiver]) + n * k for k in range(WINDOWS)], dim=1)
    frames = torch.randn(WINDOWS, 2 * FRAMES, n, 1)
    flat, positions = frames.transpose(0, 1).flatten(1, 2), graph.positions.repeat(WINDOWS, 1)

    plain, ours = Scatter(), PADGN(1, POSITIONS, DIFFERENCES, WIDTH)
    same = list(pairs(plain, ours))
    with torch.no_grad():
        for a, b in same:
            b.copy_(a)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain, ours)]

    def plain_loss():
        return (plain(flat[:FRAMES], FRAMES, positions, batched) - flat[1:]).square().mean()

    def our_loss():
        return (ours(frames[:, :FRAMES], FRAMES, graph) - frames[:, 1:]).square().mean()

    cases = {"scatter": (plain_loss, torch.optim.Adam(plain.parameters(), 1e-3))}
    cases["ours"] = (our_loss, torch.optim.Adam(ours.parameters(), 1e-3))
    seconds, processor = {name: [] for name in cases}, {name: [] for name in cases}
    error = None
    for k in range(options.rounds + 1):
        for name, (loss, adam) in cases.items():
            began = time.perf_counter(), time.process_time()
            adam.zero_grad()
            loss().backward()
            if k:
                adam.step()
                seconds[name].append(time.perf_counter() - began[0])
                processor[name].append(time.process_time() - began[1])
        if not k:
            error = relative([(b.grad, a.grad) for a, b in same])
    print(f"{n} sensors, {len(sender)} edges, {WINDOWS} windows of {FRAMES} + {FRAMES} frames, {options.threads} threads")
    print(f"parameters {sizes[0]} and {sizes[1]}; gradients differ by {error:.1e} (relative, float32)")
    ratios = {}
    for what, times in (("time", seconds), ("processor time", processor)):
        scatter_, ours_ = (statistics.median(times[name]) for name in cases)
        ratios[what] = scatter_ / ours_
        medians = f"scatter {scatter_:.3f} s, ours {ours_:.3f} s"
        print(f"{what}: {medians}: {ratios[what]:.2f} times as fast (medians)")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {"seconds": seconds, "processor": processor, "ratios": ratios, "gradients": error, "threads": options.threads},
                file,
            )


if __name__ == "__main__":
    main()
