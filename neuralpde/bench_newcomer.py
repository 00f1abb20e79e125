# A newcomer writes no types, and `solution.x` may be a tuple:
# mypy: disable-error-code="no-untyped-call, operator"
"""`neuralpde bench newcomer`: learn the diffusivity of heat in ten lines, on a surface, a plane, a graph and a point cloud."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import neuralpde as npde
from neuralpde.bench import Row, machine, write_rows
from neuralpde.files import RunFolderError

TRUE_DIFFUSIVITY = 0.3
TIMES = torch.linspace(0, 0.5, 6, dtype=torch.float64)
IMPORTS = 2
"""`import torch` and `import neuralpde as npde`, which the program of a newcomer needs besides the body of its function."""


@dataclass(frozen=True)
class NewcomerBench:
    """The settings of `neuralpde bench newcomer`."""

    json: Path | None = None
    """Also write the rows to this file."""
    nodes: int = 2500
    """About how many nodes each domain has; the graph has a fifth of them, whose exact solution is dense."""
    threads: int = 1
    """Torch threads."""

    def __post_init__(self) -> None:
        if self.nodes < 160:
            raise RunFolderError(f"--nodes must be at least 160, not {self.nodes}: coarser domains do not resolve the truth")


# The four programs. The data u (T, n, 1) at the times t is all they know.


def surface(mesh: npde.TriangleMesh, t: Tensor, u: Tensor) -> float:
    """Heat on a closed surface."""
    heat = npde.Heat(npde.robust_laplacian(mesh), 1.0, learn=True)
    optimizer = torch.optim.Rprop(heat.parameters(), lr=0.1)
    for _ in range(40):
        loss = ((npde.integrate(heat, u[0], t).x - u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heat.diffusivity.item()


def plane(mesh: npde.TriangleMesh, t: Tensor, u: Tensor) -> float:
    """Heat on a flat piece with a boundary that no heat crosses."""
    heat = npde.Heat(npde.cotangent_laplacian(mesh), 1.0, learn=True)
    optimizer = torch.optim.Rprop(heat.parameters(), lr=0.1)
    for _ in range(40):
        loss = ((npde.integrate(heat, u[0], t).x - u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heat.diffusivity.item()


def graph(network: npde.Graph, t: Tensor, u: Tensor) -> float:
    """Heat on a graph."""
    heat = npde.Heat(npde.combinatorial_laplacian(network), 1.0, learn=True)
    optimizer = torch.optim.Rprop(heat.parameters(), lr=0.1)
    for _ in range(40):
        loss = ((npde.integrate(heat, u[0], t).x - u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heat.diffusivity.item()


def points(cloud: npde.PointCloud, t: Tensor, u: Tensor) -> float:
    """Heat on a surface that is known by points alone."""
    heat = npde.Heat(npde.point_cloud_laplacian(cloud), 1.0, learn=True)
    optimizer = torch.optim.Rprop(heat.parameters(), lr=0.1)
    for _ in range(40):
        loss = ((npde.integrate(heat, u[0], t).x - u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heat.diffusivity.item()


# What the programs are given: exact solutions of the continuous equation, in closed form, and of the graph's, by SciPy.


def on_sphere(positions: Tensor) -> Tensor:
    """The mean and one spherical harmonic each of degree 1, 2 and 3, decaying at l(l + 1)."""
    x, y, z = (positions / positions.norm(dim=1, keepdim=True)).T
    modes = {0: torch.ones_like(x), 1: x + z / 2, 2: x * y + (3 * z**2 - 1) / 4, 3: z * (5 * z**2 - 3) / 2}
    return sum((_decay(degree * (degree + 1)) * mode for degree, mode in modes.items()), torch.zeros(()))[..., None]


def on_rectangle(positions: Tensor) -> Tensor:
    """cos(kπx) cos(lπy) for some k and l, on the unit square without flux."""
    x, y = positions[:, 0], positions[:, 1]
    waves = [(0, 0, 1.0), (1, 0, 1.0), (1, 1, 0.5), (0, 2, 0.7)]
    terms = [a * _decay((k**2 + j**2) * math.pi**2) * (k * math.pi * x).cos() * (j * math.pi * y).cos() for k, j, a in waves]
    return sum(terms, torch.zeros(()))[..., None]


def _decay(eigenvalue: float) -> Tensor:
    return torch.exp(-TRUE_DIFFUSIVITY * eigenvalue * TIMES)[:, None]


def random_network(nodes: int) -> tuple[npde.Graph, Tensor]:
    """Random places in a square joined to their neighbours, with random weights, and heat on it by SciPy's expm."""
    random = np.random.default_rng(0)
    cloud = npde.PointCloud(torch.from_numpy(random.random((nodes, 2))))
    bare = cloud.knn_graph(5)
    source, target = bare.edge_index
    both = torch.from_numpy(random.random((nodes, nodes)) + 0.5)
    network = npde.Graph(bare.edge_index, nodes, both[torch.minimum(source, target), torch.maximum(source, target)])
    weights = np.zeros((nodes, nodes))
    weights[target, source] = network.edge_weight.numpy()
    rates = np.diag(weights.sum(1)) - weights
    start = random.random((nodes, 1))
    step = scipy.linalg.expm(-TRUE_DIFFUSIVITY * float(TIMES[1] - TIMES[0]) * rates)
    path = [start]
    for _ in TIMES[1:]:
        path.append(step @ path[-1])
    return network, torch.from_numpy(np.stack(path))


def spread_points(count: int) -> npde.PointCloud:
    """A Fibonacci lattice on the unit sphere."""
    place = torch.arange(count, dtype=torch.float64) + 0.5
    height, turn = 1 - 2 * place / count, math.pi * (1 + math.sqrt(5)) * place
    radius = (1 - height**2).sqrt()
    return npde.PointCloud(torch.stack([radius * turn.cos(), radius * turn.sin(), height], dim=1))


def bench_newcomer(settings: NewcomerBench) -> list[Row]:
    """Run the four programs, print the table, write the JSON, and return the rows."""
    torch.set_num_threads(settings.threads)
    console = Console()
    table = Table(title="Heat on a domain: learn κ in 40 gradient steps", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("domain", "nodes", "error of κ", "CPU-seconds", "lines"):
        table.add_column(column, justify="left" if column == "domain" else "right", no_wrap=True)
    refinements = max(2, round(math.log(settings.nodes / 10, 4)))
    sphere, side = npde.icosphere(refinements), round(math.sqrt(settings.nodes))
    square, cloud = npde.grid(side, side), spread_points(settings.nodes)
    network, heat_on_network = random_network(settings.nodes // 5)
    rows: list[Row] = []

    def measure(program: Callable[..., float], domain: npde.Domain, u: Tensor) -> None:
        with console.status(program.__name__):
            start = time.process_time()
            found = program(domain, TIMES, u)
            seconds = time.process_time() - start
        name, error, lines = program.__name__, abs(found / TRUE_DIFFUSIVITY - 1), lines_of(program)
        table.add_row(name, f"{domain.num_nodes:,}", f"{100 * error:.3f} %", f"{seconds:.2f}", str(lines))
        rows.append(Row("newcomer", name, "kappa_error", error, "relative"))
        rows.append(Row("newcomer", name, "cpu_seconds", seconds, "s", note="40 gradient steps, with the Laplacian"))
        rows.append(Row("newcomer", name, "lines", float(lines), "lines", note="imports included, data given"))

    measure(surface, sphere, on_sphere(sphere.vertices))
    measure(plane, square, on_rectangle(square.vertices))
    measure(graph, network, heat_on_network)
    measure(points, cloud, on_sphere(cloud.points))
    console.print(table)
    console.print(f"κ = {TRUE_DIFFUSIVITY}, first guess 1; {machine()}")
    if settings.json is not None:
        write_rows(settings.json, rows)
    return rows


def lines_of(program: Callable[..., float]) -> int:
    """The lines of code of a program: the body of its function without the docstring, and the imports."""
    _, *body = inspect.getsource(program).splitlines()
    return IMPORTS + sum(bool(line.strip()) and not line.strip().startswith(('"""', "#")) for line in body)
