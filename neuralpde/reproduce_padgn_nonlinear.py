"""`neuralpde reproduce padgn-nonlinear`: nonlinear equations seen by fewer sensors than the fields have modes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress

from neuralpde.files import RunFolderError
from neuralpde.nonlinear_sensors_data import NonlinearCases, NonlinearSensors
from neuralpde.nonlinear_sensors_equations import EQUATIONS
from neuralpde.nonlinear_sensors_ours import LearnedFieldMethod
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_baselines import JointVar, Persistence, Var
from neuralpde.sensor_method import SensorMethod
from neuralpde.sensor_networks import Gru, Mlp
from neuralpde.sensor_networks_graph import Gn
from neuralpde.sensor_rows import chosen
from neuralpde.sensor_table import run_sensor_table

Equation = Literal["burgers", "fitzhugh-nagumo", "gray-scott"]


@dataclass(frozen=True)
class NonlinearSettings:
    """The settings of `neuralpde reproduce padgn-nonlinear`; the text under each is its help."""

    pde: Equation = "burgers"
    """The equation."""
    methods: tuple[str, ...] = ()
    """Methods to run beside persistence, several after one flag; all if absent."""
    seeds: int = 3
    """Train the networks with so many seeds."""
    steps: int | None = None
    """Training steps of the networks, instead of their own."""
    sensors: int = 64
    """Sensors of a placement. The fields start with 81 modes each, and soon have more."""
    placements: int = 3
    """Placements to train at."""
    unseen: int = 3
    """Placements that nobody trains at."""
    windows: int = 32
    """Training windows of each placement; a quarter as many for validation, and as many for each test."""
    given: int = 6
    """Frames that a forecast is made from."""
    horizon: int = 10
    """Frames to forecast."""
    data_seed: int = 0
    """Seed of placements and fields."""
    out: Path | None = None
    """The run folder, runs/padgn-PDE if absent. Every finished method and seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "placements": 1, "unseen": 1, "windows": 4, "given": 2, "horizon": 1, "threads": 1, "sensors": 16}
        for name, bound in (least | ({} if self.steps is None else {"steps": 1})).items():
            if getattr(self, name) < bound:
                raise RunFolderError(f"--{name} must be at least {bound}, not {getattr(self, name)}")
        if self.data_seed < 0:
            raise RunFolderError(f"--data-seed must not be negative, not {self.data_seed}")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"padgn-{self.pde}"

    @property
    def data(self) -> NonlinearSensors:
        """What is simulated."""
        few = max(1, self.windows // 4)
        sizes = {"sensors": self.sensors, "placements": self.placements, "unseen": self.unseen, "train": self.windows}
        return NonlinearSensors(
            EQUATIONS[self.pde], **sizes, validation=few, test=few, given=self.given, horizon=self.horizon, seed=self.data_seed
        )


def nonlinear_methods() -> tuple[SensorMethod, ...]:
    """All rows, ours last. Networks take fewer steps and windows than at fewer sensors: a table is minutes on one core."""
    from neuralpde.difference_regression import LeastSquaresRegression, MeshRegression, RingRegression, StandardRegression
    from neuralpde.difference_regression_learned import LearnedDifferenceRegression
    from neuralpde.pa_dgn_methods import (
        MeshRecurrentGraphMethod,
        PADGNMethod,
        RecurrentGraphMethod,
        StandardRecurrentGraphMethod,
    )

    simple = (Persistence(), Var(), JointVar(clock=False), Mlp(), Gru(steps=150), Gn(steps=80))
    linear = (StandardRegression(), RingRegression(), MeshRegression(), LeastSquaresRegression())
    recurrent = (
        LearnedDifferenceRegression(steps=60),
        RecurrentGraphMethod(steps=30, windows=2),
        StandardRecurrentGraphMethod(steps=30, windows=2),
        MeshRecurrentGraphMethod(steps=30, windows=2),
        PADGNMethod(steps=30, windows=2),
    )
    return (*simple, *linear, *recurrent, LearnedFieldMethod())


def reproduce_nonlinear(settings: NonlinearSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Simulate, learn from the training windows, forecast the test and placements that nobody trained at: table and report.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError: with the cause and the cure.
    """
    folder = RunFolder(settings.folder, settings.resume, settings.json, settings.threads)
    folder.check()
    torch.set_num_threads(settings.threads)
    methods = chosen(nonlinear_methods(), settings.methods, settings.steps)
    cases = simulated(settings.data)
    return run_sensor_table(
        f"padgn-{settings.pde}",
        methods,
        cases.train,
        cases.validation,
        {"": cases.test, "unseen": cases.unseen},
        folder,
        seeds=settings.seeds,
        horizons=sorted({1, settings.horizon // 2 or 1, settings.horizon}),
        metric="mse",
        title=f"Few sensors, a nonlinear equation: {settings.pde}",
        note=(
            "Fields of unit variance; networks are trained briefly (longer with --steps). ours is told that the field is "
            "periodic, and which terms an equation may have; it learns their coefficients from the same training windows as the "
            "others."
        ),
        console=console,
    )


def simulated(data: NonlinearSensors) -> NonlinearCases:
    """The windows, with a progress bar."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating")

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return data.cases(told)
