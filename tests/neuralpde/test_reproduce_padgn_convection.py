import json
import math

import pytest
from rich.console import Console

from neuralpde.convection_data import sensors
from neuralpde.files import RunFolderError
from neuralpde.reproduce_padgn_convection import (
    ConvectionSettings,
    convection_cases,
    convection_methods,
    published,
    reproduce_convection,
)


def small(path, **other):
    methods = ("standard-op", "ours")
    return ConvectionSettings(
        nodes=(30,), seeds=1, methods=methods, steps=2, placements=2, unseen=1, sessions=14, out=path, **other
    )


def test_the_tables_are_written_and_resumed(tmp_path) -> None:
    console = Console(quiet=True)
    rows = reproduce_convection(small(tmp_path / "run"), console)
    tables = {row["table"] for row in rows}
    assert tables == {"padgn-convection-30", "padgn-convection-30-unseen"}
    methods = {row["method"] for row in rows if row["table"] == "padgn-convection-30"}
    assert methods == {"persistence", "standard-op", "ours"}
    elsewhere = {row["method"] for row in rows if row["table"] == "padgn-convection-30-unseen"}
    assert elsewhere == {"persistence", "ours"}
    errors = [row["value"] for row in rows if row["metric"] == "mae"]
    assert errors
    assert all(math.isfinite(value) and value > 0 for value in errors)
    assert json.loads((tmp_path / "run" / "table.json").read_text())
    again = reproduce_convection(small(tmp_path / "run", resume=True), console)
    assert [row["value"] for row in again if row["metric"] == "mae"] == errors


def test_test_sessions_are_not_trained_on_and_unseen_placements_are_others() -> None:
    settings = ConvectionSettings(sessions=14, placements=2, unseen=2)
    train, validation, tests = convection_cases(settings, 30)
    assert [len(case.values) for case in (train[0], validation[0], tests[""][0])] == [14, 3, 3]
    first = {round(float(case.values[k, 0, 0, 0]), 5) for case in train[:1] for k in range(14)}
    assert not first & {round(float(value), 5) for value in tests[""][0].values[:, 0, 0, 0]}
    assert train[0].placement.points.equal(sensors(30, 42).points)
    known = [case.placement.points for case in train]
    assert not any(case.placement.points.equal(points) for case in tests["unseen"] for points in known)


def test_the_rows_are_those_that_were_promised() -> None:
    names = [method.name for method in convection_methods()]
    promised = "persistence var joint-var mlp gru gn standard-op mesh-op least-squares rgn rgn-standard-op rgn-mesh-op sdl pa-dgn"
    assert set(promised.split()) < set(names)
    assert names[-1] == convection_methods(hard=True)[-1].name == "ours"
    for count in (250, 150, 100):
        assert {method for _, method, _, _ in published(count)} <= set(names)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"seeds": 0}, "--seeds"), ({"sessions": 3}, "--sessions"), ({"nodes": (20,)}, "--nodes"), ({"nodes": (50, 50)}, "--nodes")],
)
def test_wrong_settings_are_named(wrong, words) -> None:
    with pytest.raises(RunFolderError, match=words):
        ConvectionSettings(**wrong)
