"""`neuralpde bench operators`: our sparse product and attention beside everything else that does the same."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from neuralpde.bench import Row, interleaved, machine, write_rows
from neuralpde.files import RunFolderError
from operators import SparseOperator, cotangent_laplacian, sampled_product, torus
from operators.normalisation import row_softmax

# Reverse mode through torch's CSR and COO products makes a dense (n, n) gradient of the values.
_DENSE = "its backward in the values fills a dense {n} × {n} matrix, {size:.0f} GB"
Run = Callable[[], object]


@dataclass(frozen=True)
class OperatorBench:
    """The settings of `neuralpde bench operators`."""

    json: Path | None = None
    """Also write the rows to this file."""
    around: int = 250
    """Vertices around the torus that is measured on."""
    across: int = 200
    """Vertices around its tube; 250 × 200 is 50,000."""
    channels: int = 64
    """Width of the field."""
    repeats: int = 11
    """Timed turns; the median counts."""
    threads: int = 1
    """Torch threads."""
    compiled: bool = False
    """Also measure the edge-list form under torch.compile (needs a C++ compiler, and a minute)."""

    def __post_init__(self) -> None:
        for name in ("channels", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")


def bench_operators(settings: OperatorBench) -> list[Row]:
    """Measure, print both tables, write the JSON, and return the rows."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    rows = [*_product_rows(settings), *_attention_rows(settings)]
    console = Console()
    console.print(f"{settings.around * settings.across:,} vertices, {settings.channels} channels, float32; {machine()}")
    for name in ("sparse-product", "attention"):
        console.print(_table(name, [row for row in rows if row.table == name]))
    if settings.json is not None:
        write_rows(settings.json, rows)
    return rows


@dataclass
class _Data:
    """One operator and field in every library's own form."""

    operator: SparseOperator
    x: Tensor
    g: Tensor

    def __post_init__(self) -> None:
        pattern = self.operator.pattern
        self.values = self.operator.values.clone().requires_grad_()
        self.learned = SparseOperator(pattern, self.values)
        self.free = self.x.clone().requires_grad_()
        self.source, self.target = pattern.col, pattern.row
        self.n = pattern.shape[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "CSR tensors are in beta"
            self.csr = torch.sparse_csr_tensor(pattern.crow, pattern.col, self.operator.values, pattern.shape)
            self.coo = self.csr.to_sparse(layout=torch.sparse_coo).coalesce()
        self.scipy = self.operator.to_scipy().astype(np.float32)
        self.numpy_x, self.numpy_g = self.x.numpy(), self.g.numpy()

    def backward(self, forward: Callable[[Tensor, Tensor], Tensor], values: bool) -> Run:
        """Forward and backward in x, and in the values too if asked."""
        inputs = (self.free, self.values) if values else (self.free,)
        fixed = self.operator.values

        def run() -> object:
            return torch.autograd.grad(forward(self.free, self.values if values else fixed), inputs, self.g)

        return run


def _message_passing() -> Any:
    from torch_geometric.nn import MessagePassing

    class Weighted(MessagePassing):  # type: ignore[misc]
        """y_i = Σ_j w_ij x_j as a PyG layer."""

        def __init__(self) -> None:
            super().__init__(aggr="add")

        def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Any:
            return self.propagate(edge_index, x=x, weight=weight)

        def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
            return weight[:, None] * x_j

    return Weighted()


def _product_rows(settings: OperatorBench) -> list[Row]:
    from torch_geometric.utils import scatter

    operator = cotangent_laplacian(torus(settings.around, settings.across, dtype=torch.float32)).stiffness
    n, c = operator.shape[0], settings.channels
    data = _Data(operator, torch.randn(n, c), torch.randn(n, c))
    layer, edges = _message_passing(), torch.stack([data.source, data.target])

    def ours(x: Tensor, values: Tensor) -> Tensor:
        result: Tensor = data.learned(x) if values is data.values else operator(x)
        return result

    def passing(x: Tensor, values: Tensor) -> Tensor:
        result: Tensor = layer(x, edges, values)
        return result

    def scattered(x: Tensor, values: Tensor) -> Tensor:
        result: Tensor = scatter(values[:, None] * x[data.source], data.target, dim=0, dim_size=n, reduce="sum")
        return result

    def added(x: Tensor, values: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, data.target, values[:, None] * x.index_select(0, data.source))

    def by_hand(values: bool) -> object:
        y = data.scipy @ data.numpy_x, data.scipy.T @ data.numpy_g
        if not values:
            return y
        left, right = data.numpy_g[data.target.numpy()], data.numpy_x[data.source.numpy()]
        return y, np.einsum("ec,ec->e", left, right)

    out = torch.empty(n, c)
    modes: dict[str, dict[str, Run]] = {
        "forward": {
            "ours": lambda: ours(data.x, operator.values),
            "torch-csr": lambda: data.csr @ data.x,
            "torch-coo": lambda: torch.sparse.mm(data.coo, data.x),
            "pyg-message-passing": lambda: passing(data.x, operator.values),
            "pyg-scatter": lambda: scattered(data.x, operator.values),
            "scipy": lambda: data.scipy @ data.numpy_x,
            "copy": lambda: out.copy_(data.x),
        },
        "forward+backward x": {
            "ours": data.backward(ours, values=False),
            "torch-csr": data.backward(lambda x, _: data.csr @ x, values=False),
            "torch-coo": data.backward(lambda x, _: torch.sparse.mm(data.coo, x), values=False),
            "pyg-message-passing": data.backward(passing, values=False),
            "pyg-scatter": data.backward(scattered, values=False),
            "scipy": lambda: by_hand(values=False),
        },
        "forward+backward x and values": {
            "ours": data.backward(ours, values=True),
            "pyg-message-passing": data.backward(passing, values=True),
            "pyg-scatter": data.backward(scattered, values=True),
            "scipy": lambda: by_hand(values=True),
        },
    }
    if settings.compiled:
        listed = torch.compile(added)
        modes["forward"]["compiled-edge-list"] = lambda: listed(data.x, operator.values)
        modes["forward+backward x and values"]["compiled-edge-list"] = data.backward(listed, values=True)
        modes["forward"]["compiled-ours"] = torch.compile(lambda: operator(data.x))
        modes["forward+backward x and values"]["compiled-ours"] = data.backward(torch.compile(ours), values=True)
    rows, worst, least = [], 0.0, math.inf
    for mode, candidates in modes.items():
        seconds = interleaved(candidates, settings.repeats, f"sparse product, {mode}")
        copy = seconds.pop("copy", None)
        rows += _timings("sparse-product", mode, seconds, settings.repeats)
        others = {name: value for name, value in seconds.items() if "ours" not in name}
        best = min(others, key=others.__getitem__)
        ratio, gain = seconds["ours"] / others[best], others["pyg-scatter"] / seconds["ours"]
        worst, least = max(worst, ratio), min(least, gain)
        rows.append(Row("sparse-product", "ours", f"ratio_to_best, {mode}", ratio, "ratio", best, settings.repeats))
        rows.append(Row("sparse-product", "ours", f"speedup_over_pyg_scatter, {mode}", gain, "ratio", "pyg-scatter"))
        if copy is not None:
            moved = 2 * out.nbytes + operator.values.nbytes + operator.pattern.col.nbytes + operator.pattern.crow.nbytes
            share = moved / seconds["ours"] / (2 * out.nbytes / copy)
            note = f"{moved / seconds['ours'] / 1e9:.1f} of {2 * out.nbytes / copy / 1e9:.1f} GB/s"
            rows.append(Row("sparse-product", "ours", "fraction_of_copy_bandwidth", share, "ratio", "copy", note=note))
    for method in ("torch-csr", "torch-coo"):
        note = _DENSE.format(n=n, size=4e-9 * n * n)
        rows.append(Row("sparse-product", method, "forward+backward x and values", None, "s", note=note))
    note = "the worst over the three modes"
    rows.append(Row("sparse-product", "ours", "ratio_to_best", worst, "ratio", "best", settings.repeats, note))
    rows.append(Row("sparse-product", "ours", "speedup_over_pyg_scatter", least, "ratio", "pyg-scatter", settings.repeats, note))
    return rows


def _attention_rows(settings: OperatorBench) -> list[Row]:
    from torch_geometric.utils import scatter, softmax

    pattern = torus(settings.around, settings.across, dtype=torch.float32).graph()
    edges = SparseOperator.from_entries(pattern.edge_index[1], pattern.edge_index[0], pattern.edge_weight, (pattern.nodes,) * 2)
    at, n, c = edges.pattern, pattern.nodes, settings.channels
    q, k, v = (torch.randn(n, c, requires_grad=True) for _ in range(3))
    g = torch.randn(n, c)
    root = math.sqrt(c)

    def ours() -> Tensor:
        result: Tensor = SparseOperator(at, row_softmax(sampled_product(q / root, k, at), at))(v)
        return result

    def pyg() -> Tensor:
        score = (q[at.row] * k[at.col]).sum(-1) / root
        share = softmax(score, at.row, num_nodes=n)
        result: Tensor = scatter(share[:, None] * v[at.col], at.row, dim=0, dim_size=n, reduce="sum")
        return result

    def plain() -> Tensor:
        score = (q.index_select(0, at.row) * k.index_select(0, at.col)).sum(-1) / root
        peak = torch.full((n,), -math.inf).scatter_reduce(0, at.row, score.detach(), "amax")
        weight = (score - peak[at.row]).exp()
        share = weight / torch.zeros(n).index_add(0, at.row, weight)[at.row]
        return torch.zeros(n, c).index_add(0, at.row, share[:, None] * v.index_select(0, at.col))

    compositions = {"ours": ours, "pyg": pyg, "torch-index-add": plain}
    if settings.compiled:
        compositions |= {"compiled-torch-index-add": torch.compile(plain), "compiled-ours": torch.compile(ours)}
    rows, gains = [], []
    for mode, gradient in (("forward", False), ("forward+backward", True)):
        candidates: dict[str, Run] = {name: _step(f, (q, k, v), g, gradient) for name, f in compositions.items()}
        seconds = interleaved(candidates, settings.repeats, f"attention, {mode}")
        rows += _timings("attention", mode, seconds, settings.repeats)
        gains.append(seconds["pyg"] / seconds["ours"])
        rows.append(Row("attention", "ours", f"speedup_over_pyg, {mode}", gains[-1], "ratio", "pyg", settings.repeats))
    note = "the worse of both modes"
    rows.append(Row("attention", "ours", "speedup_over_pyg", min(gains), "ratio", "pyg", settings.repeats, note))
    return rows


def _step(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...], g: Tensor, gradient: bool) -> Run:
    def run() -> object:
        with torch.set_grad_enabled(gradient):
            y = forward()
            return torch.autograd.grad(y, inputs, g) if gradient else y

    return run


def _timings(table: str, mode: str, seconds: dict[str, float], repeats: int) -> list[Row]:
    return [Row(table, name, mode, value, "s", n=repeats) for name, value in seconds.items()]


def _table(name: str, rows: list[Row]) -> Table:
    """Methods down, modes across, in milliseconds; then what follows from them."""
    timed = [row for row in rows if row.unit == "s"]
    modes = list(dict.fromkeys(row.metric for row in timed))
    table = Table(title=f"{name}, ms (median)", box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("method")
    for mode in modes:
        table.add_column(mode, justify="right")
    for method in dict.fromkeys(row.method for row in timed):
        cells = {row.metric: row for row in timed if row.method == method}
        table.add_row(method, *(_milliseconds(cells.get(mode)) for mode in modes))
    ratios = [row for row in rows if row.unit == "ratio" and row.value is not None]
    lines = [f"{row.metric}: {row.value:.2f} (against {row.baseline}{', ' + row.note if row.note else ''})" for row in ratios]
    lines += [f"{row.method}, {row.metric}: {row.note}" for row in timed if row.value is None]
    table.caption = "\n".join(lines)
    return table


def _milliseconds(row: Row | None) -> str:
    return "–" if row is None or row.value is None else f"{1e3 * row.value:.2f}"
