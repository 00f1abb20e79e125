"""The command line: neuralpde run heat, neuralpde reproduce blend, neuralpde bench operators."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from integrators import SolveError
from neuralpde.bench_integrators import IntegratorBench, bench_integrators
from neuralpde.bench_newcomer import NewcomerBench, bench_newcomer
from neuralpde.bench_operators import OperatorBench, bench_operators
from neuralpde.bench_scale import ScaleBench, bench_scale
from neuralpde.files import RunFolderError
from neuralpde.heat_settings import HeatSettings
from neuralpde.reproduce_blend import BlendSettings, reproduce_blend
from neuralpde.run_heat import run_heat
from operators import DomainError, MeshFileError


def heat(settings: Annotated[HeatSettings, tyro.conf.arg(name="")]) -> None:
    """Three neural PDEs learn the heat equation through the solver, then roll out on surfaces they have never seen.

    Without arguments the surfaces are made on the spot: bumpy spheres and tori. The run ends with a table and with
    OUT/report.html: the table, curves, error maps and an animated surface of truth beside prediction.

    For example:

    neuralpde run heat

    neuralpde run heat --train-mesh bunny.ply lucy.ply --test-mesh armadillo.ply --out runs/mine

    neuralpde run heat --out runs/mine --resume
    """
    run_heat(settings)


def operators(settings: Annotated[OperatorBench, tyro.conf.arg(name="")]) -> None:
    """The sparse product and graph attention beside torch, PyG and SciPy, on a mesh of 50,000 vertices.

    All alternatives run in turns within one process, and medians are compared, so a busy machine slows all alike. Takes about
    a minute. Besides times it prints how far the product is from the speed at which this machine copies memory.

    For example:

    neuralpde bench operators

    neuralpde bench operators --json bench.json --compiled
    """
    bench_operators(settings)


def scale(settings: Annotated[ScaleBench, tyro.conf.arg(name="")]) -> None:
    """From a mesh file to the gradient of one implicit step, at growing sizes: seconds and peak memory.

    Each size runs in a process of its own. A million vertices take a few minutes and some gigabytes.

    For example:

    neuralpde bench scale

    neuralpde bench scale --vertices 40000 160000 --json scale.json
    """
    bench_scale(settings)


def integrators(settings: Annotated[IntegratorBench, tyro.conf.arg(name="")]) -> None:
    """Our solvers beside torchdiffeq's and torchode's: stiff heat, Cahn–Hilliard, Allen–Cahn, waves, attention, and overhead.

    CPU-seconds, evaluations and errors at the end, on a surface of 10,000 vertices. Where an explicit solver would take hours,
    a piece is measured and the rest extrapolated, and the table says so. Takes about ten minutes; name tables to run only
    these. torchode is measured too if it is installed.

    For example:

    neuralpde bench integrators

    neuralpde bench integrators --only heat wave --json integrators.json
    """
    bench_integrators(settings)


def newcomer(settings: Annotated[NewcomerBench, tyro.conf.arg(name="")]) -> None:
    """The first thing anyone tries: heat on a domain, and its diffusivity learned through the solver.

    Four programs of ten lines (a surface, a plane, a graph, a point cloud) learn κ from an exact solution that none of our
    code has made. The table shows how far off κ is, what 40 gradient steps cost, and how many lines it took.

    For example:

    neuralpde bench newcomer

    neuralpde bench newcomer --json newcomer.json
    """
    bench_newcomer(settings)


def bench(arguments: Annotated[list[str], tyro.conf.Positional]) -> None:
    """Measure this machine: `neuralpde bench operators --help` tells more."""
    tyro.extras.subcommand_cli_from_dict(
        {"newcomer": newcomer, "operators": operators, "integrators": integrators, "scale": scale},
        prog="neuralpde bench",
        description="Measure how fast things are on this machine, beside what else does them.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def blend(settings: Annotated[BlendSettings, tyro.conf.arg(name="")]) -> None:
    """Classify the nodes of a citation, co-author or co-purchase graph by Beltrami flow, beside GCN and GAT.

    Every method is trained from several seeds. The epoch is chosen on the validation nodes alone, and the test nodes are looked
    at once a seed. The table shows mean and standard deviation, the paper's number beside them, and what training cost.

    Methods: ours (our best configuration: a flow whose A is fixed before training, by the graph alone or by kernels of its
    features and positions; it has no learned attention), blend (the paper's: positions and features flow together by learned
    attention), blend-knn (the same on the graph of each node's nearest in PageRank), grand-l and grand-nl (BLEND's settings with
    features alone, A computed once or at each evaluation), gcn and gat (PyG's layers, with their authors' settings).

    For example:

    neuralpde reproduce blend --data data --dataset cora --seeds 3

    neuralpde reproduce blend --data data --dataset photo --split random --methods ours blend gcn --json photo.json

    neuralpde reproduce blend --data data --dataset cora --seeds 20 --resume
    """
    reproduce_blend(settings)


def reproduce(arguments: Annotated[list[str], tyro.conf.Positional]) -> None:
    """Train what a paper trained, with its numbers beside: `neuralpde reproduce blend --help` tells more."""
    tyro.extras.subcommand_cli_from_dict(
        {"blend": blend},
        prog="neuralpde reproduce",
        description="Train what a paper trained, and put its numbers beside.",
        args=arguments,
        config=(tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff),
    )


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
        elif words[:1] == ["bench"]:
            bench(words[1:])
        elif words[:1] == ["reproduce"]:
            reproduce(words[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(
                {"run": run, "reproduce": reproduce, "bench": bench},
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
