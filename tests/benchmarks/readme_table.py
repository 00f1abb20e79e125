"""Print the Markdown table of a run: python tests/benchmarks/readme_table.py runs/heat/table.json"""

import json
import sys
from pathlib import Path

COLUMNS = {"nrmse": "NRMSE", "rayleigh_error": "Rayleigh error", "parameters": "parameters", "nfe": "NFE", "seconds": "s"}


def markdown(record: dict) -> str:
    """The rows of table `heat` as Markdown, one line a method."""
    rows = [row for row in record["rows"] if row["table"] == "heat"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    value = {(row["method"], row["metric"]): row["value"] for row in rows}
    lines = ["| method | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for method in methods:
        errors = [value[method, metric] for metric in ("nrmse", "rayleigh_error")]
        cells = ["diverged" if error is None else f"{error:.2f}" for error in errors]
        cells += [f"{value[method, 'parameters']:,.0f}", f"{value[method, 'nfe']:,.0f}", f"{value[method, 'seconds']:.1f}"]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
