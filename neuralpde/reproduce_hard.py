"""`neuralpde reproduce meshpde-hard`: rate and anisotropy unknown, noise, a material and a source, on finer meshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.hard_baselines import Cubic, OwnCubic
from neuralpde.hard_data import TRAJECTORIES, hard_cases, hard_meshes
from neuralpde.hard_ours import (
    HardOurs,
    Isotropic,
    SolverCubic,
    SolverOwnCubic,
    SolverOwnRate,
    SolverOwnTwo,
    Uniform,
)
from neuralpde.mesh_method import Method
from neuralpde.mesh_methods import baselines, networks
from neuralpde.mesh_table import run_table
from neuralpde.mesh_training import Network
from neuralpde.mesh_unitary import RUniMeshMethod
from neuralpde.run_folder import RunFolder

TABLE = "meshpde-hard"


@dataclass(frozen=True)
class HardSettings:
    """The settings of `neuralpde reproduce meshpde-hard`; the text under each is its help."""

    data: Path | None = None
    """A folder with the meshes sphere, bunny_coarse, nut, spot_low and hand_lowres. Without it, meshes are made on the spot."""
    methods: tuple[str, ...] = ()
    """The rows of the table, several after one flag; all if absent."""
    seeds: int = 3
    """Train every network with so many seeds; what is not random is fitted once."""
    steps: int | None = None
    """Training steps of every network, instead of its own."""
    ablations: bool = False
    """Ours without anisotropy, and ours blind to the material, as two more rows."""
    small: bool = False
    """One trajectory each on small generated meshes, to see within a minute that all works; its numbers mean little."""
    data_seed: int = 0
    """Seed of starts, rates, materials and noise. What was chosen while this was written was chosen on seed 0."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    out: Path | None = None
    """The run folder, runs/meshpde-hard if absent. Every finished seed, the simulations and the report are kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again. Seeds and methods may be added."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "threads", *(["steps"] if self.steps is not None else [])):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.data_seed < 0:
            raise RunFolderError(f"--data-seed must not be negative, not {self.data_seed}")
        if self.small and self.data is not None:
            raise RunFolderError("--small makes its own meshes: give either --small or --data")
        known = [method.name for method in hard_methods(ablations=True)]
        for name in self.methods:
            if name not in known:
                raise RunFolderError(f"--methods {name}: there is no such row; the rows of {TABLE} are {', '.join(known)}")

    @property
    def chosen(self) -> list[Method]:
        """The methods, in the table's order."""
        every = hard_methods(self.steps, self.ablations or bool(self.methods))
        return [method for method in every if not self.methods or method.name in self.methods]


def hard_methods(steps: int | None = None, ablations: bool = False) -> list[Method]:
    """All rows: trivial ones, stencils in closed form, stencils fitted through the solver, networks, ours.

    Args:
        steps: training steps of every network, instead of its own.
        ablations: ours without one of its parts, too.
    """
    learned: Sequence[Network] = [*networks(), RUniMeshMethod()]
    if steps is not None:
        learned = [replace(network, steps=steps) for network in learned]
    fitted = [SolverOwnRate(), SolverOwnTwo(), SolverCubic(), SolverOwnCubic()]
    without = [Isotropic(), Uniform()] if ablations else []
    return [*baselines(1), Cubic(), OwnCubic(), *fitted, *learned, HardOurs(), *without]


def reproduce_hard(settings: HardSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Simulate, fit every method, roll out on finer meshes of other shape, print the table, write it. See `run_table`.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, DomainError, MeshFileError: with the cause and the cure.
    """
    folder = RunFolder(settings.out or Path("runs") / TABLE, settings.resume, settings.json, settings.threads)
    folder.check()
    hard_meshes(settings.data, settings.small)
    # With its meshes found there is a run to resume; before, nothing may be in the way of another try.
    folder.make()
    errors = Console(stderr=True)
    train, test = hard_cases(
        settings.data,
        folder.path / "data",
        seed=settings.data_seed,
        trajectories=1 if settings.small else TRAJECTORIES,
        small=settings.small,
        done=lambda name: errors.print(f"simulated on {name}"),
    )
    return run_table(TABLE, settings.chosen, train, test, folder, seeds=settings.seeds, console=console)
