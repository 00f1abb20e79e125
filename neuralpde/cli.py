"""The command line: neuralpde run heat."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from integrators import SolveError
from neuralpde.files import RunFolderError
from neuralpde.heat_settings import HeatSettings
from neuralpde.run_heat import run_heat
from operators import DomainError, MeshFileError


def heat(settings: Annotated[HeatSettings, tyro.conf.arg(name="")]) -> None:
    """Three neural PDEs learn the heat equation through the solver, then roll out on surfaces they have never seen.

    Without arguments the surfaces are made on the spot: bumpy spheres and tori. The run ends with a table and with
    OUT/report.html: the table, curves, error maps and an animated surface of truth beside prediction.

    Examples:

    neuralpde run heat

    neuralpde run heat --train-mesh bunny.ply lucy.ply --test-mesh armadillo.ply --out runs/mine

    neuralpde run heat --out runs/mine --resume
    """
    run_heat(settings)


def run(arguments: Annotated[list[str], tyro.conf.Positional]) -> None:
    """Run a job: simulate, train, roll out, report. `neuralpde run heat --help` tells more."""
    tyro.extras.subcommand_cli_from_dict(
        {"heat": heat},
        prog="neuralpde run",
        description="Run a job: simulate, train, roll out, report.",
        args=arguments,
        config=(tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run it; an error that the user can mend is one paragraph, without a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["run"]:
            run(words[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(
                {"run": run},
                prog="neuralpde",
                description="Neural PDEs on graphs, triangle meshes and point clouds, trained through the solver.",
                args=words,
            )
    except (RunFolderError, DomainError, MeshFileError, SolveError, FloatingPointError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"neuralpde: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nneuralpde: stopped; what is finished is kept, continue with --resume", file=sys.stderr)
        return 130
    return 0
