"""Print what the gradient of a long solve costs, as Markdown: python tests/benchmarks/gradient_memory.py [--steps 1000]

RK4 and a two-layer network, forward and backward. Each way of taking the gradient runs in a process of its own: `saved` is the
peak of the bytes that autograd kept at once (distinct storages, without parameters and x0), `process` the growth of the peak
resident memory, `CPU` the best CPU time of three.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import torch

from integrators.adjoint import Adjoint
from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.interpolated import Interpolated
from integrators.rk4 import RK4

GRADIENTS = {
    "Direct()": Direct(),
    "Checkpointed()": Checkpointed(),
    "Checkpointed(snapshots=64)": Checkpointed(snapshots=64),
    "Checkpointed(snapshots=16)": Checkpointed(snapshots=16),
    "Checkpointed(snapshots=4)": Checkpointed(snapshots=4),
    "Adjoint()": Adjoint(),
    "Interpolated()": Interpolated(rtol=1e-4, atol=1e-5),
}
NODES, CHANNELS, HIDDEN = 1024, 16, 32


class Meter:
    """The bytes of the distinct storages that autograd holds, now and at most."""

    def __init__(self, leave_out):
        self.leave_out = {x.untyped_storage().data_ptr() for x in leave_out}
        self.held, self.now, self.peak = {}, 0, 0

    def pack(self, x):
        key, size = x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()
        box = _Box(x)
        if key not in self.leave_out:
            if not self.held.get(key):
                self.now += size
                self.peak = max(self.peak, self.now)
            self.held[key] = self.held.get(key, 0) + 1
            weakref.finalize(box, self._release, key, size)
        return box

    def _release(self, key, size):
        self.held[key] -= 1
        if not self.held[key]:
            self.now -= size


class _Box:
    def __init__(self, x):
        self.x = x


def problem():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(CHANNELS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CHANNELS))
    return net, torch.randn(NODES, CHANNELS)


def measure(name, steps):
    """One way of taking the gradient, in this process."""
    torch.set_num_threads(1)
    net, x0 = problem()
    solver = RK4(dt=1 / steps, gradient=GRADIENTS[name])

    def once():
        net.zero_grad()
        solution = integrate(lambda t, x: net(x), x0, [0.0, 1.0], solver)
        solution.x[-1].square().mean().backward()
        return solution

    integrate(lambda t, x: net(x), x0, [0.0, 1.0], replace(solver, dt=0.25)).x[-1].square().mean().backward()  # warm
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        start = time.process_time()
        solution = once()
        seconds.append(time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    meter = Meter([*net.parameters(), x0])
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda box: box.x):
        once()
    return {
        "nfe": solution.stats.nfe + solution.stats.nfe_backward,
        "saved": meter.peak / 2**20,
        "process": grown / 2**10,
        "seconds": min(seconds),
        "gradient": [float(p.grad.norm()) for p in net.parameters()],
    }


def table(rows):
    direct = rows["Direct()"]
    lines = ["| gradient | NFE | saved, MiB | of Direct | process, MiB | CPU, s | of Direct |", "|---|" + "--:|" * 6]
    for name, row in rows.items():
        lines.append(
            f"| `{name}` | {row['nfe']:,} | {row['saved']:.1f} | {row['saved'] / direct['saved']:.1%} | {row['process']:.0f} "
            f"| {row['seconds']:.2f} | {row['seconds'] / direct['seconds']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--one", choices=GRADIENTS, help="measure one way in this process, and print it as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.steps)))
        sys.exit()
    rows = {}
    for name in GRADIENTS:
        command = [sys.executable, __file__, "--steps", str(options.steps), "--one", name]
        rows[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(table(rows))
