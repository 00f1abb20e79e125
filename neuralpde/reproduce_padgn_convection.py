"""`neuralpde reproduce padgn-convection`: PA-DGN's convection–diffusion at sensors, and at sensors that nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from neuralpde.convection_data import Convection, sensors
from neuralpde.convection_ours import LatentConvection
from neuralpde.difference_regression import (
    FreeStencil,
    LeastSquaresRegression,
    MeshRegression,
    RingRegression,
    StandardDelaunayRegression,
    StandardRegression,
)
from neuralpde.difference_regression_learned import PlainStartDelaunayRegression, PlainStartRegression
from neuralpde.files import RunFolderError
from neuralpde.pa_dgn_methods import (
    MeshRecurrentGraphMethod,
    PADGNMethod,
    RecurrentGraphMethod,
    StandardRecurrentGraphMethod,
)
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_baselines import JointVar, Persistence, Var
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_method import SensorMethod
from neuralpde.sensor_networks import Gru, Mlp
from neuralpde.sensor_networks_graph import Gn
from neuralpde.sensor_rows import chosen
from neuralpde.sensor_table import run_sensor_table

NOTE = (
    "MAE over the 15 frames after 5, of values divided by 20. Several placements of sensors to learn from, others to test on. "
    "Networks are trained briefly (--steps trains longer); the published numbers are of 2,000 epochs on one placement, "
    "and of an sdl that starts at random, here at plain differences, from where brief training gets further. "
    "standard-op, mesh-op, least-squares, free-stencil and joint-var have weights for each sensor, so they have no number "
    "elsewhere. ours is told that the equation is linear and of second order, its coefficients smooth, the field continued at "
    "the edge, and a number of waves that suffices; the other rows are told none of this."
)
PUBLISHED = {
    250: {"var": 0.1684, "mlp": 0.1575, "standard-op": 0.1199, "mesh-op": 0.1282, "sdl": 0.1087},
    150: {"var": 0.1868, "mlp": 0.1729, "standard-op": 0.1495, "mesh-op": 0.1576, "sdl": 0.1482},
    100: {"var": 0.1723, "mlp": 0.1589, "standard-op": 0.1629, "mesh-op": 0.1696, "sdl": 0.1465},
}
"""Mean absolute errors: Tables 2 (250) and 8."""
TRIANGULATED = {"standard-op-delaunay": 0.1229, "mesh-op-delaunay": 0.1282, "sdl-delaunay": 0.1240}
"""Table 5, TriMesh, 250 sensors."""
FEW = ("var", "joint-var", "mlp", "standard-op", "mesh-op", "least-squares", "sdl", "ours")
"""The rows of the tables with fewer sensors: those of Table 8, and ours."""


@dataclass(frozen=True)
class ConvectionSettings:
    """The settings of `neuralpde reproduce padgn-convection`; the text under each is its help."""

    nodes: tuple[int, ...] = (250, 150, 100)
    """How many sensors, one table each; several after one flag. Those below 250 have the rows of the paper's Table 8 beside ours,
    persistence, joint-var and least-squares, unless --methods names others."""
    hard: bool = False
    """Fields with up to 9 waves an axis (361 modes), which the sensors cannot resolve, in tables padgn-convection-hard-NODES."""
    seeds: int = 3
    """Train the networks with so many seeds."""
    methods: tuple[str, ...] = ()
    """Methods to run beside persistence, several after one flag; all if absent."""
    steps: int | None = None
    """Training steps of the networks and regressions, instead of their own."""
    placements: int = 3
    """Placements of sensors to train on, with seeds from 42 as in the paper."""
    unseen: int = 3
    """Placements that nobody trains on, with the seeds after those."""
    sessions: int = 700
    """Simulated to train on; 3/14 as many each for validation and test."""
    data_seed: int = 0
    """Of the initial fields."""
    out: Path = Path("runs/padgn-convection")
    """The run folder. Every finished method and seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "placements", "unseen", "threads", *(["steps"] if self.steps is not None else [])):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.sessions < 14:
            raise RunFolderError(f"--sessions must be at least 14, so that some are left to test on, not {self.sessions}")
        if not self.nodes or min(self.nodes) < 30 or len(set(self.nodes)) < len(self.nodes):
            raise RunFolderError(
                f"--nodes must be different numbers of at least 30 (quadratic fits need as many), not {self.nodes}"
            )

    @property
    def equation(self) -> Convection:
        """What is simulated."""
        waves = (3, 4, 5, 6, 7, 8, 9) if self.hard else (3, 4, 5)
        held = self.sessions * 3 // 14
        return Convection(self.sessions, held, held, wave_numbers=waves, seed=self.data_seed)


def convection_methods(hard: bool = False) -> tuple[SensorMethod, ...]:
    """All rows, ours last."""
    return (
        Persistence(),
        Var(),
        JointVar(),
        Mlp(),
        Gru(),
        Gn(steps=60),
        StandardRegression(),
        StandardDelaunayRegression(),
        RingRegression(),
        MeshRegression(),
        LeastSquaresRegression(),
        FreeStencil(),
        RecurrentGraphMethod(),
        StandardRecurrentGraphMethod(),
        MeshRecurrentGraphMethod(),
        PlainStartRegression(),
        PlainStartDelaunayRegression(),
        PADGNMethod(),
        LatentConvection(waves=12, count=40) if hard else LatentConvection(),
    )


def reproduce_convection(settings: ConvectionSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Simulate, learn from three placements, forecast at these and at others: tables, rows, a report for each number of sensors.

    Args:
        console: where the tables go; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError: with the cause and the cure.
    """
    folder = RunFolder(settings.out, settings.resume, settings.json, settings.threads)
    folder.check()
    everything = convection_methods(settings.hard)
    rows: list[dict[str, Any]] = []
    for count in settings.nodes:
        few = count != 250 and not settings.methods
        names = settings.methods or tuple(FEW if few else ())
        methods = chosen(everything, names, settings.steps)
        train, validation, tests = convection_cases(settings, count)
        name = f"padgn-convection-hard-{count}" if settings.hard else f"padgn-convection-{count}"
        rows += run_sensor_table(
            name,
            methods,
            train,
            validation,
            tests,
            folder,
            seeds=settings.seeds,
            published={} if settings.hard else published(count),
            title=f"Convection and diffusion at {count} sensors",
            note=NOTE,
            prefix=f"{count}-",
            finish=False,
            console=console,
        )
    folder.finish(rows)
    return rows


def convection_cases(
    settings: ConvectionSettings, count: int
) -> tuple[list[SensorCase], list[SensorCase], dict[str, Sequence[SensorCase]]]:
    """Training and validation cases of the placements to learn from; tests at these and, as "unseen", at others."""
    seeds = range(42, 42 + settings.placements + settings.unseen)
    cases = settings.equation.cases([sensors(count, seed) for seed in seeds])
    known, other = cases[: settings.placements], cases[settings.placements :]
    tests: dict[str, Sequence[SensorCase]] = {"": [test for _, _, test in known], "unseen": [test for _, _, test in other]}
    return [train for train, _, _ in known], [validation for _, validation, _ in known], tests


def published(count: int) -> dict[tuple[str, str, str, int], float]:
    """The paper's numbers for so many sensors."""
    found = {**PUBLISHED.get(count, {}), **(TRIANGULATED if count == 250 else {})}
    return {("", method, "mae", 15): value for method, value in found.items()}
