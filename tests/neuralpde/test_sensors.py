"""The public face of sensors: every name, each once, and documented; and what its first lines promise."""

import ast
from pathlib import Path

from neuralpde import sensors


def test_every_name_is_there_and_documented() -> None:
    assert sensors.__all__ == sorted(set(sensors.__all__))
    assert [name for name in sensors.__all__ if not (getattr(sensors, name).__doc__ or "").strip()] == []


def imported(module: str) -> set[str]:
    """What a module of ours imports when it is loaded, by the packages' first names; ours by their full ones."""
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    # Not what functions import, nor what is for type checkers alone.
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module if node.module.startswith("neuralpde.") else node.module.split(".")[0])
    return found


def test_importing_brings_no_heavy_packages() -> None:
    seen, waiting = set[str](), ["neuralpde.sensors"]
    while waiting:
        for name in imported(waiting.pop()) - seen:
            seen.add(name)
            if name.startswith("neuralpde."):
                waiting.append(name)
    assert "neuralpde.station_figures" in seen
    assert not seen & {"matplotlib", "pandas", "xarray", "pyarrow", "torch_geometric"}


def test_from_a_file_to_a_forecast(tmp_path: Path) -> None:
    record = sensors.SyntheticStations(stations=10, frames=240, missing=0.1).record()
    sensors.write_stations(record, tmp_path / "measured.npz")
    cases = sensors.to_cases(sensors.read_stations(tmp_path / "measured.npz"), sensors.StationSplit(6, 3))
    fitted = sensors.Var().fit([cases.train], [cases.validation], 0, tmp_path / "var.ckpt", lambda *told: None)
    assert cases.held_out is not None
    persisted = sensors.Persistence().fit([cases.train], [cases.validation], 0, tmp_path / "p.ckpt", lambda *told: None)
    for case in (cases.test, cases.held_out):
        assert 0 < sensors.mean_error(fitted, [case]) < sensors.mean_error(persisted, [case])
