"""`neuralpde reproduce meshpde`: five frames of an equation on unseen meshes, rolled out by every method in one harness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.heat_data import TRAIN_CONDITIONS, TRAIN_FRAMES, Truth
from neuralpde.mesh_data import parts, simulated
from neuralpde.mesh_method import Method
from neuralpde.mesh_methods import methods_of, published
from neuralpde.mesh_pde import Pde
from neuralpde.mesh_table import run_table
from neuralpde.run_folder import RunFolder


@dataclass(frozen=True)
class MeshpdeSettings:
    """The settings of `neuralpde reproduce meshpde`; the text under each is its help."""

    pde: Pde = Pde.HEAT
    """The equation."""
    truth: Truth = Truth.PUBLISHED
    """published: the authors' scheme, which knows no area. surface: the equation of the surface, with area and robust weights."""
    data: Path | None = None
    """A folder with the meshes of the equation by their names (sphere.ply, ...). Without it, meshes are made on the spot."""
    methods: tuple[str, ...] = ()
    """The rows of the table, several after one flag; all if absent."""
    seeds: int = 3
    """Train every network with so many seeds; what is not random is fitted once."""
    steps: int | None = None
    """Training steps of every network, instead of its own."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    out: Path | None = None
    """The run folder, runs/TABLE if absent. Every finished seed, the simulations and the report are kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again. Seeds and methods may be added."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "threads", *(["steps"] if self.steps is not None else [])):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        known = [method.name for method in methods_of(self.pde, self.truth)]
        for name in self.methods:
            if name not in known:
                raise RunFolderError(f"--methods {name}: there is no such row; the rows of {self.table} are {', '.join(known)}")

    @property
    def table(self) -> str:
        """The table's name in the JSON rows."""
        return f"meshpde-{self.pde.value}" + ("-surface" if self.truth is Truth.SURFACE else "")

    @property
    def chosen(self) -> list[Method]:
        """The methods, in the table's order."""
        every = methods_of(self.pde, self.truth, self.steps)
        return [method for method in every if not self.methods or method.name in self.methods]


def reproduce_meshpde(settings: MeshpdeSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Simulate, fit every method, roll out on unseen meshes, print the table, write rows and report. See `run_table`.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, DomainError, MeshFileError: with the cause and the cure.
    """
    folder = RunFolder(settings.out or Path("runs") / settings.table, settings.resume, settings.json, settings.threads)
    folder.check()
    errors = Console(stderr=True)

    def said(text: str) -> None:
        errors.print(text)

    found = parts(settings.pde.equation, settings.truth, settings.data, seed=0, said=said)
    # From here on there is a run to resume; before, there is nothing in the way of another try.
    folder.make()
    train, test = simulated(found, folder.path / "data", said)
    return run_table(
        settings.table,
        settings.chosen,
        [case.first(TRAIN_CONDITIONS, TRAIN_FRAMES) for case in train],
        test,
        folder,
        seeds=settings.seeds,
        published=published(settings.pde, settings.truth),
        console=console,
    )
