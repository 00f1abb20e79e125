"""Print what an epoch of BLEND on Cora costs, as Markdown: python tests/benchmarks/blend_epoch.py [--data ROOT] [--rounds 5]

The authors' settings (64 + 16 channels, 8 heads of 16, squareplus over columns, source, frozen attention, T = 18.3, dopri5 with
atol 8.22e-5 and rtol 8.22e-7, direct gradients), forward and backward, one thread. `scatter` is what one writes with PyTorch and
torchdiffeq alone: gathered edges, `index_add`, dense features; ours keeps the words sparse, as they are. All take turns within
one process; memory is the peak of a process of its own, libraries included (Linux). The error is that of z(T) against the
exponential in float64, relative and root mean square; `products` are those with A in a forward pass. Our `Dopri5` bounds the
error of every node by default; torchdiffeq's bounds the mean over all. Without the data (ROOT/Cora in the layout of PyG's
Planetoid) a random graph of the same size stands in.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import scipy.sparse
import torch
import torch.nn.functional as F
from torch import nn

import neuralpde as npde
from operators.normalisation import Over, Squareplus

HORIZON, ATOL, RTOL = 18.294754260552843, 8.22e-5, 8.22e-7
FEATURES, POSITIONS, HEADS, WIDTH = 64, 16, 8, 16
AUTHORS_SECONDS, AUTHORS_MB = 1.5, 970


def data(root):
    """Features, positions (rows of personalised PageRank), edges, labels and the nodes to train on."""
    folder = Path(root) / "Cora" if root else None
    if folder is not None and folder.exists():
        from torch_geometric.datasets import Planetoid

        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder / "raw", Path(copy) / "Cora" / "raw")
            cora = Planetoid(copy, "Cora", transform=None)[0]
        x, edges, y, train = cora.x, cora.edge_index, cora.y, cora.train_mask.nonzero().squeeze(1)
    else:
        random = torch.Generator().manual_seed(0)
        half = torch.randint(2708, (2, 5278), generator=random)
        edges = torch.unique(torch.cat([half, half.flip(0)], dim=1), dim=1)
        x = (torch.rand(2708, 1433, generator=random) < 0.0127).float()
        y, train = torch.randint(7, (2708,), generator=random), torch.arange(140)
    n = len(y)
    loops = torch.cat([edges, torch.arange(n).expand(2, n)], dim=1)
    degree = torch.bincount(loops[0], minlength=n).float()
    T = torch.zeros(n, n)
    T[loops[0], loops[1]] = (degree[loops[0]] * degree[loops[1]]).rsqrt()
    return scipy.sparse.coo_array(x.numpy()), 0.05 * torch.linalg.inv(torch.eye(n) - 0.95 * T), edges, y, train


class Scatter(nn.Module):
    """dz/dt = σ(a) (A z − z) + β z(0) with frozen attention, written with gathers and `index_add`."""

    def __init__(self, edges, n):
        super().__init__()
        self.j, self.i = torch.cat([edges, torch.arange(n).expand(2, n)], dim=1)
        channels = FEATURES + POSITIONS
        self.key, self.query = nn.Linear(channels, HEADS * WIDTH, bias=False), nn.Linear(channels, HEADS * WIDTH, bias=False)
        self.a, self.beta = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def begin(self, z):
        key, query = (f(z).unflatten(-1, (HEADS, WIDTH)) for f in (self.key, self.query))
        s = (key[self.i] * query[self.j]).sum(-1) / WIDTH**0.5
        g = (s + (s.square() + 4).sqrt()) / 2
        total = torch.zeros(len(z), HEADS).index_add(0, self.j, g)
        self.share, self.start, self.evaluations = (g / total[self.j]).mean(-1, keepdim=True), z, 0

    def forward(self, t, z):
        self.evaluations += 1
        spread = torch.zeros_like(z).index_add(0, self.i, self.share * z[self.j])
        return self.a.sigmoid() * (spread - z) + self.beta * self.start


def scatter_solve(flow, z):
    from torchdiffeq import odeint

    flow.begin(z)
    return odeint(flow, z, torch.tensor([0.0, HORIZON]), rtol=RTOL, atol=ATOL, method="dopri5")[-1], flow.evaluations


def solved_by(solver):
    def solve(flow, z):
        solution = npde.integrate(flow, z, [0.0, HORIZON], solver)
        return solution.final, solution.stats.nfe

    return solve


DIRECT, TOLERANCE, RMS = npde.Direct(), {"rtol": RTOL, "atol": ATOL}, npde.RMSNorm()
SOLVERS = {
    "scatter, torchdiffeq dopri5": scatter_solve,
    "ours, Dopri5, torchdiffeq's norm": solved_by(npde.Dopri5(**TOLERANCE, norm=RMS, gradient=DIRECT)),
    "the same, Checkpointed": solved_by(npde.Dopri5(**TOLERANCE, norm=RMS, gradient=npde.Checkpointed())),
    "ours, Dopri5": solved_by(npde.Dopri5(**TOLERANCE, gradient=DIRECT)),
    "ours, Exponential": solved_by(npde.Exponential(tol=ATOL, gradient=DIRECT)),
}


class Model(nn.Module):
    """dropout → Linear (features, positions) → flow → relu → Linear, as the authors' model is."""

    def __init__(self, name, case):
        super().__init__()
        x, u, edges, y, _ = case
        torch.manual_seed(0)
        self.features, self.positions = nn.Linear(x.shape[1], FEATURES), nn.Linear(u.shape[1], POSITIONS)
        self.decode = nn.Linear(FEATURES + POSITIONS, int(y.max()) + 1)
        self.solve = SOLVERS[name]
        if name.startswith("scatter"):
            self.words, self.flow = torch.from_numpy(x.toarray()), Scatter(edges, len(u))
        else:
            attention = npde.ScaledDotProduct(
                npde.Graph(edges, len(u)), FEATURES + POSITIONS, WIDTH, HEADS, normalise=Squareplus(Over.COLUMNS), self_loops=1.0
            )
            self.flow = npde.BeltramiFlow(attention, 0.5, source=0.0, frozen=True)
        for weight in self.key_and_query():
            nn.init.normal_(weight, std=0.3)
            self.words = npde.SparseOperator.from_scipy(x)
        nn.init.constant_(self.flow.beta if name.startswith("scatter") else self.flow.source, 0.05)

    def key_and_query(self):
        owner = self.flow if hasattr(self.flow, "key") else self.flow.diffusivity
        torch.manual_seed(1)
        return owner.key.weight, owner.query.weight

    def encoded(self, case):
        u = case[1]
        if isinstance(self.words, npde.SparseOperator):
            # What is zero stays zero under dropout, so only the entries are drawn.
            kept = npde.SparseOperator(self.words.pattern, F.dropout(self.words.values, 0.5))
            features = kept @ self.features.weight.T + self.features.bias
        else:
            features = self.features(F.dropout(self.words, 0.5))
        return torch.cat([features, self.positions(F.dropout(u, 0.5))], dim=-1)

    def epoch(self, case):
        """One forward and backward pass; the number of evaluations."""
        *_, y, train = case
        z, nfe = self.solve(self.flow, self.encoded(case))
        loss = F.cross_entropy(self.decode(F.relu(z))[train], y[train])
        self.zero_grad()
        loss.backward()
        return nfe


class Counted(nn.Module):
    """An operator that counts its products."""

    def __init__(self, A):
        super().__init__()
        self.A, self.count, self.shape = A, 0, A.shape

    def __matmul__(self, x):
        self.count += 1
        return self.A @ x


def accuracy(case):
    """For each solver the error of z(T) and the products with A, from one encoded state and one A."""
    models = {name: Model(name, case) for name in SOLVERS}
    with torch.no_grad():
        torch.manual_seed(2)
        z = models["ours, Exponential"].encoded(case)
        flow = models["ours, Exponential"].flow
        exact = npde.integrate(flow.double(), z.double(), [0.0, HORIZON], npde.Exponential()).final
        flow.float()
        rows = {}
        for name, model in models.items():
            end, nfe = model.solve(model.flow, z)
            rows[name] = [float((end - exact).square().mean().sqrt() / exact.square().mean().sqrt()), nfe]
        begun = flow.starting_at(z).affine
        begun.average = Counted(begun.average)
        begun.exponential(HORIZON, z, ATOL)
        rows["ours, Exponential"][1] = begun.average.count
    return rows


def memory(name, case):
    """The peak of a process of its own that does nothing else, in MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.pt"
        torch.save(case, file)
        command = [sys.executable, __file__, "--only", name, "--case", str(file)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("NEURALPDE_DATA", "") and os.environ["NEURALPDE_DATA"] + "/graphs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if given.only:
        case = torch.load(given.case, weights_only=False)
        model = Model(given.only, case)
        for _ in range(3):
            model.epoch(case)
        # Not getrusage, whose peak is also that of the parent before the new program was loaded.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(json.dumps(int(peak.split()[1]) / 1024))
        return
    case = data(given.data)
    rows = accuracy(case)
    models = {name: Model(name, case) for name in SOLVERS}
    seconds = {name: [] for name in SOLVERS}
    for k in range(given.rounds + 1):
        for name, model in models.items():
            began = time.process_time()
            model.epoch(case)
            if k:
                seconds[name].append(time.process_time() - began)
    base = statistics.median(seconds["scatter, torchdiffeq dopri5"])
    print(f"python {Path(__file__).name}, {'Cora' if given.data else 'a random graph of its size'}, one thread")
    print()
    print("| epoch of BLEND | CPU-seconds | faster than scatter | than 1.5 s | peak MB | evaluations or products | error |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, (error, products) in rows.items():
        s = statistics.median(seconds[name])
        mb = memory(name, case)
        print(f"| {name} | {s:.3f} | {base / s:.2f} | {AUTHORS_SECONDS / s:.1f} | {mb:.0f} | {products} | {error:.1e} |")


if __name__ == "__main__":
    main()
