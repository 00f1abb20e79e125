"""Print the Markdown tables of JSON files that commands wrote: python tests/benchmarks/readme_table.py runs/heat/table.json ...

Understands what `neuralpde run heat`, `neuralpde reproduce blend|meshpde|weather` and the tables of learned differences (several
files become one table), `neuralpde reproduce unigraph-heat` and `neuralpde bench newcomer|operators|scale|integrators` write with
--json.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

NODE_METHODS = ("ours", "blend", "blend-knn", "grand-l", "grand-nl", "gcn", "gat")
NODE_COSTS = {"parameters": ",.0f", "nfe": ",.0f", "seconds_per_epoch": ".3f", "peak_mb": ",.0f"}
FORECAST_VARIABLES = ("height", "geopotential 500 hPa", "temperature 850 hPa", "2m_temperature")
HEAT = {"nrmse": "NRMSE", "rayleigh_error": "Rayleigh error", "parameters": "parameters", "nfe": "NFE", "seconds": "s"}


def markdown(record: dict) -> str:
    """The rows as Markdown, one line a method, one table after the other."""
    tables = {}
    for row in record["rows"]:
        tables.setdefault(row["table"], []).append(row)
    drawn = {"heat": heat, "sparse-product": timings, "attention": timings, "scale": scale, "newcomer": newcomer}
    single = [drawn[name](rows) for name, rows in tables.items() if name in drawn]
    several = [races, overheads, nodes, toy_heat, meshpde, forecasts, derivatives, laplacian_983, sensors]
    return "\n\n".join([*single, *(drawn for draw in several for drawn in draw(tables))])


def nodes(tables: dict[str, list[dict]]) -> list[str]:
    """One line a graph and split: the paper's accuracy, each method's, and what ours costs."""
    found = {name: rows for name, rows in tables.items() if name.startswith("blend-")}
    columns = [m for m in NODE_METHODS if any(row["method"] == m for rows in found.values() for row in rows)]
    lines = []
    for name, rows in found.items():
        value = {(row["method"], row["metric"]): row for row in rows}
        accuracies = [value.get((method, "accuracy")) for method in columns]
        published = max((row["published"] or 0 for row in accuracies if row is not None), default=0)
        cells = ["–" if row is None else f"{row['value']:.2f} ± {row['std']:.2f}" for row in accuracies]
        cost = [f"{value['ours', metric]['value']:{form}}" for metric, form in NODE_COSTS.items()]
        dataset, split = name.removeprefix("blend-").rsplit("-", 1)
        lines.append([f"{dataset}, {split}", f"{published:.1f}", *cells, *cost])
    header = ["accuracy, %", "BLEND (paper)", *(f"`{m}`" for m in columns), "parameters", "NFE", "s/epoch", "MB"]
    return [table(header, lines)] if lines else []


def toy_heat(tables: dict[str, list[dict]]) -> list[str]:
    """One line a method: error and Rayleigh error in 1e-2, on graphs held out and on those trained on, the paper's beside."""
    found = {name: rows for name, rows in tables.items() if name.startswith("unigraph-heat")}
    value = {(name, row["method"], row["metric"]): row for name, rows in found.items() for row in rows}
    lines = []
    for method in dict.fromkeys(row["method"] for rows in found.values() for row in rows):
        cells = []
        for name in found:
            for metric in ("mse", "mre"):
                row = value.get((name, method, metric))
                cells.append("–" if row is None else f"{1e2 * row['value']:.2g}" + spread(1e2 * row["std"], row["n"], ".1g"))
        paper = [value.get(("unigraph-heat", method, metric), {}).get("published") for metric in ("mse", "mre")]
        cells.append("–" if paper[0] is None else " / ".join(f"{1e2 * each:.2f}" for each in paper))
        lines.append([f"`{method}`", *cells])
    where = {"unigraph-heat": "new graphs", "unigraph-heat-seen": "seen graphs"}
    header = ["1e-2", *(f"{metric}, {where[name]}" for name in found for metric in ("MSE", "MRE")), "paper"]
    return [table(header, lines)] if lines else []


def meshpde(tables: dict[str, list[dict]]) -> list[str]:
    """One line a method, one column a table: NRMSE and Rayleigh error."""
    found = {name: rows for name, rows in tables.items() if name.startswith("meshpde-")}
    value = {(name, row["method"], row["metric"]): row for name, rows in found.items() for row in rows}
    lines = []
    rows_of = dict.fromkeys(row["method"] for rows in found.values() for row in rows)
    for method in sorted(rows_of, key=lambda method: method == "ours"):
        cells = []
        for name in found:
            pair = [value.get((name, method, metric)) for metric in ("nrmse", "rayleigh_error")]
            cells.append("–" if pair[0] is None else " / ".join(dict.fromkeys(summed(row) for row in pair)))
        lines.append([f"`{method}`", *cells])
    return [table(["NRMSE / Rayleigh error", *(name.removeprefix("meshpde-") for name in found)], lines)] if lines else []


def summed(row: dict) -> str:
    """A sum over the steps, whose size spans many decades."""
    if row["value"] is None:
        return "diverged"
    size = ".0e" if not 0.05 <= abs(row["value"]) < 1e4 else ".2f" if row["value"] < 10 else ",.0f"
    return f"{row['value']:{size}}"


def forecasts(tables: dict[str, list[dict]]) -> list[str]:
    """One line a set, variable and method: RMSE (and correlation) at a few lead times."""
    rows = [row for name, rows in tables.items() if name.startswith("weather-") for row in rows if "lead_hours" in row]
    rows = [row for row in rows if row["variable"] in FORECAST_VARIABLES]
    leads = sorted({row["lead_hours"] for row in rows})
    shown = [lead for lead in leads if lead in (1, 6, 12, 24, 48, 72, 120, 240)]
    value = {(row["table"], row["variable"], row["method"], row["metric"], row["lead_hours"]): row["value"] for row in rows}
    lines = []
    for name, variable, method in dict.fromkeys((row["table"], row["variable"], row["method"]) for row in rows):
        cells = []
        for lead in shown:
            error, correlation = (value.get((name, variable, method, metric, lead)) for metric in ("rmse", "acc"))
            cells.append("" if error is None else f"{error:.3g} ({correlation or 0:.2f})")
        lines.append([f"{name.removeprefix('weather-')}, {variable}", f"`{method}`", *cells])
    return [table(["RMSE (ACC)", "", *(f"{lead:g} h" for lead in shown)], lines)] if lines else []


def derivatives(tables: dict[str, list[dict]]) -> list[str]:
    """One line a method: mean squared error in 1e-2 of each table, the paper's beside it."""
    found = {name: rows for name, rows in tables.items() if name.startswith("padgn-derivatives")}
    value = {(name, row["method"]): row for name, rows in found.items() for row in rows if row["metric"] == "mse"}
    lines = []
    for method in own_last(method for _, method in value):
        cells = []
        for name in found:
            row = value.get((name, method))
            cells.append("–" if row is None else measured(1e2 * row["value"], 1e2 * row["std"]))
            paper = None if row is None else row.get("published")
            cells.append("" if paper is None else f"{1e2 * paper:.2f}")
        lines.append([f"`{method}`", *cells])
    titles = [title for name in found for title in (name.removeprefix("padgn-derivatives-"), "paper")]
    return [table(["MSE, 1e-2", *titles], lines)] if lines else []


def laplacian_983(tables: dict[str, list[dict]]) -> list[str]:
    """One line a method: mean squared error and relative norm error, the published ones beside."""
    value = {(row["method"], row["metric"]): row for row in tables.get("laplacian-983", [])}
    lines = []
    for method in own_last(method for method, _ in value):
        pair = [value[method, metric] for metric in ("mse", "rne")]
        paper = " / ".join(f"{row['published']:g}" for row in pair if row.get("published") is not None)
        lines.append([f"`{method}`", *(measured(row["value"], row["std"]) for row in pair), paper])
    return [table(["laplacian-983", "MSE", "relative norm error", "published"], lines)] if lines else []


def sensors(tables: dict[str, list[dict]]) -> list[str]:
    """One line a method, one column a table: errors of forecasts at sensors, mean over the frames up to the horizons.

    Stations and sea: mean absolute error at all horizons. Convection: mean absolute error, the paper's in brackets. Nonlinear
    equations: mean squared error.
    """
    several, squared = ("padgn-stations", "padgn-sst"), ("padgn-burgers", "padgn-fitzhugh", "padgn-gray")
    drawn = []
    for kinds in (several, ("padgn-convection", *squared)):
        rows = [row for name in tables if name.startswith(kinds) for row in tables[name]]
        rows = [row for row in rows if row["metric"] == ("mse" if row["table"].startswith(squared) else "mae")]
        columns = list(dict.fromkeys(row["table"] for row in rows))
        last = {name: max(row["horizon"] for row in rows if row["table"] == name) for name in columns}
        lines = []
        for method in own_last(row["method"] for row in rows):
            cells = []
            for name in columns:
                found = [row for row in rows if (row["table"], row["method"]) == (name, method)]
                if not name.startswith(several):
                    found = [row for row in found if row["horizon"] == last[name]]
                cells.append(" / ".join(map(forecast_error, found)) or "–")
            lines.append([f"`{method}`", *cells])
        if lines:
            drawn.append(table(["", *(name.removeprefix("padgn-").removeprefix("stations-") for name in columns)], lines))
    return drawn


def forecast_error(row: dict) -> str:
    paper = "" if row.get("published") is None else f" ({row['published']:.3g})"
    return ("diverged" if row["value"] is None else small(row["value"])) + paper


def own_last(names: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(names), key=lambda name: name == "ours")


def measured(value: float, std: float) -> str:
    """Mean ± standard deviation; rounding errors only as such."""
    return "< 1e-9" if value < 1e-9 else f"{small(value)} ± {std:,.0f}" if value >= 1000 else f"{small(value)} ± {std:.2g}"


def small(value: float) -> str:
    """Three digits, or fewer with a power of ten where they say nothing."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def spread(std: float, n: int, size: str) -> str:
    return f" ± {std:{size}}" if n > 1 and std > 0 else ""


def races(tables: dict[str, list[dict]]) -> list[str]:
    """One line an integrator problem: the other libraries' CPU-seconds, ours, and the speed-up."""
    lines = []
    for name, rows in tables.items():
        best = next((row for row in rows if (row["method"], row["metric"]) == ("best", "speedup")), None)
        if best is None:
            continue
        value = {(row["method"], row["metric"]): row for row in rows}
        winner = best["note"].split(",")[0]
        theirs = value["torchdiffeq dopri5", "cpu_seconds"]
        rival = value.get(("torchode dopri5", "cpu_seconds"), {"value": None})["value"]
        mark = "*" if "extrapolated" in theirs.get("note", "") else ""
        cells = [f"{theirs['value']:,.3g}{mark}", "–" if rival is None else f"{rival:,.3g}{mark}", f"`{winner}`"]
        cells += [f"{value[winner, 'cpu_seconds']['value']:.3g}", f"{value[winner, 'error']['value']:.1e}"]
        lines.append([name, *cells, f"{best['value']:,.0f}"])
    header = ["CPU-seconds", "torchdiffeq dopri5", "torchode dopri5", "best of ours", "s", "its error", "torchdiffeq / ours"]
    return [table(header, lines)] if lines else []


def overheads(tables: dict[str, list[dict]]) -> list[str]:
    """The ratios of `overhead-…`, one line each."""
    lines = []
    for name, rows in tables.items():
        if name.startswith("overhead"):
            lines += [[name, row["metric"], row["baseline"], f"{row['value']:.2f}"] for row in rows if row["unit"] == "ratio"]
    return [table(["own `Dopri5`", "ratio", "against", ""], lines)] if lines else []


def heat(rows: list[dict]) -> str:
    value = {(row["method"], row["metric"]): row["value"] for row in rows}
    lines = []
    for method in methods(rows):
        errors = [value[method, metric] for metric in ("nrmse", "rayleigh_error")]
        cells = ["diverged" if error is None else f"{error:.2f}" for error in errors]
        cells += [f"{value[method, 'parameters']:,.0f}", f"{value[method, 'nfe']:,.0f}", f"{value[method, 'seconds']:.1f}"]
        lines.append([f"`{method}`", *cells])
    return table(["method", *HEAT.values()], lines)


def timings(rows: list[dict]) -> str:
    """Milliseconds by method and mode, and the ratios below."""
    timed = [row for row in rows if row["unit"] == "s"]
    modes = list(dict.fromkeys(row["metric"] for row in timed))
    value = {(row["method"], row["metric"]): row["value"] for row in timed}
    lines = []
    for method in methods(timed):
        found = [value.get((method, mode)) for mode in modes]
        lines.append([f"`{method}`", *("–" if each is None else f"{1e3 * each:.1f}" for each in found)])
    ratios = [f"{row['metric']} {row['value']:.2f}" for row in rows if row["unit"] == "ratio" and "," not in row["metric"]]
    return table([f"{rows[0]['table']}, ms", *modes], lines) + "\n\n" + "; ".join(ratios)


def scale(rows: list[dict]) -> str:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    unit = {row["metric"]: row["unit"] for row in rows}
    value = {(row["method"], row["metric"]): row["value"] for row in rows}
    lines = [[method, *(f"{value[method, metric]:.1f}" for metric in metrics)] for method in methods(rows)]
    return table(["", *(f"{metric}, {unit[metric]}" for metric in metrics)], lines)


def newcomer(rows: list[dict]) -> str:
    value = {(row["method"], row["metric"]): row["value"] for row in rows}
    lines = [
        [f"`{m}`", f"{100 * value[m, 'kappa_error']:.3f} %", f"{value[m, 'cpu_seconds']:.1f}", f"{value[m, 'lines']:.0f}"]
        for m in methods(rows)
    ]
    return table(["learn κ of heat", "error of κ", "CPU-seconds, 40 gradient steps", "lines"], lines)


def methods(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def table(header: list[str], lines: list[list[str]]) -> str:
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join(["| " + " | ".join(header) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


if __name__ == "__main__":
    records = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    print(markdown({"rows": [row for record in records for row in record["rows"]]}))
