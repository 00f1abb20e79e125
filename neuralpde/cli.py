"""The command line: neuralpde run heat, neuralpde data meshpde, neuralpde reproduce blend, neuralpde bench operators."""

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
from neuralpde.mesh_data_command import MeshDataSettings, make_mesh_data
from neuralpde.reproduce_blend import BlendSettings, reproduce_blend
from neuralpde.reproduce_hard import HardSettings, reproduce_hard
from neuralpde.reproduce_laplacian_983 import LaplacianSettings, reproduce_laplacian_983
from neuralpde.reproduce_meshpde import MeshpdeSettings, reproduce_meshpde
from neuralpde.reproduce_padgn_convection import ConvectionSettings, reproduce_convection
from neuralpde.reproduce_padgn_derivatives import DerivativesSettings, reproduce_padgn_derivatives
from neuralpde.reproduce_padgn_nonlinear import NonlinearSettings, reproduce_nonlinear
from neuralpde.reproduce_padgn_sst import SstSettings, reproduce_sst
from neuralpde.reproduce_padgn_stations import StationsSettings, reproduce_stations
from neuralpde.reproduce_unigraph import UniGraphSettings, reproduce_unigraph
from neuralpde.reproduce_weather import WeatherSettings, reproduce_weather
from neuralpde.run_heat import run_heat
from neuralpde.station_checks import StationError
from neuralpde.station_data_command import StationDataSettings, show_station_data
from neuralpde.weather_record import WeatherError
from neuralpde.weather_synthetic import SyntheticWeather, make_weather
from operators import DomainError, MeshFileError

# What the user can mend.
EXPECTED = (
    RunFolderError,
    DomainError,
    WeatherError,
    StationError,
    MeshFileError,
    SolveError,
    FloatingPointError,
    ImportError,
    OSError,
)


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


def unigraph_heat(settings: Annotated[UniGraphSettings, tyro.conf.arg(name="")]) -> None:
    """Heat on grid graphs, the experiment that motivates R-UniGraph: on graphs never trained on, and on those trained on.

    A model sees x(t) and predicts x(t + 0.5). Beside the paper's rows (gcn, unitary, r-unigraph) stand what it lacks: predicting
    no change (persistence), two parameters fitted in closed form (stencil), implicit Euler, a learned truncation order, a
    separable unitary layer, and ours: a dissipative generator, solved exactly. Takes a few minutes.

    For example:

    neuralpde reproduce unigraph-heat

    neuralpde reproduce unigraph-heat --methods stencil r-unigraph ours --seeds 1 --json toy.json
    """
    reproduce_unigraph(settings)


def meshpde(settings: Annotated[MeshpdeSettings, tyro.conf.arg(name="")]) -> None:
    """Five frames of heat, waves, phase separation or advection in; 196 frames out, on meshes never trained on.

    One harness for trivial and fitted baselines, graph networks, R-UniMesh and ours. NRMSE and Rayleigh error are summed over
    the steps, as the paper has them: predicting zero scores 196. Besides the table the run folder gets report.html: curves of the
    Rayleigh quotient against the truth, and error maps.

    For example:

    neuralpde reproduce meshpde --pde heat --data meshes

    neuralpde reproduce meshpde --pde wave --truth surface --data meshes --json wave.json

    neuralpde reproduce meshpde --pde cahn-hilliard --methods zero persistence stencil-cubic ours --seeds 1
    """
    reproduce_meshpde(settings)


def meshpde_hard(settings: Annotated[HardSettings, tyro.conf.arg(name="")]) -> None:
    """Heat of which little is known: rate and anisotropy differ in every trajectory, and frames are noisy.

    A material of unknown law and a nonlinear source act in all of them; the test meshes have other shapes and four times the
    faces. Ours infers what is unknown through the solver, from five noisy frames; beside it stand the networks and every fitted
    stencil.

    For example:

    neuralpde reproduce meshpde-hard --data meshes

    neuralpde reproduce meshpde-hard --small --seeds 1
    """
    reproduce_hard(settings)


def weather(settings: Annotated[WeatherSettings, tyro.conf.arg(name="")]) -> None:
    """Forecasts on the sphere, beside persistence and climatology: RMSE and anomaly correlation by lead time.

    Sets: shallow-water (a rotating atmosphere simulated here), era5-t2m (temperature over Britain, hourly) and era5-z500-t850
    (the globe at 3 degrees), which are small samples of ERA5 from --data, and wb2 (any store in WeatherBench 2's layout).

    For example:

    neuralpde reproduce weather

    neuralpde reproduce weather --set era5-t2m --data sensors --json t2m.json

    neuralpde data weather --out made.zarr && neuralpde reproduce weather --set wb2 --data made.zarr
    """
    reproduce_weather(settings)


def padgn_derivatives(settings: Annotated[DerivativesSettings, tyro.conf.arg(name="")]) -> None:
    """Derivatives along edges between 200 scattered sensors, from the field at them: Tables 1 and 9 of PA-DGN.

    Two functions, the published split of edges and one in which no edge is trained on in reverse. Beside the paper's rows
    (finite differences, perceptron, graph network, difference layers) stand least squares, which learns nothing, and ours: a
    stencil that is exact on polynomials whatever it learns. Takes a few minutes.

    For example:

    neuralpde reproduce padgn-derivatives

    neuralpde reproduce padgn-derivatives --methods least-squares ours --json derivatives.json
    """
    reproduce_padgn_derivatives(settings)


def padgn_convection(settings: Annotated[ConvectionSettings, tyro.conf.arg(name="")]) -> None:
    """Convection and diffusion with coefficients that vary in space, seen at few sensors: Tables 2, 5 and 8 of PA-DGN.

    Five frames in, 15 out; on three placements of sensors, and on three that nobody trained on. All rows get the same inputs.
    --hard has more waves than the sensors can resolve. Takes some minutes for each number of sensors.

    For example:

    neuralpde reproduce padgn-convection --nodes 250

    neuralpde reproduce padgn-convection --nodes 100 --hard --methods joint-var least-squares ours --out runs/hard
    """
    reproduce_convection(settings)


def padgn_nonlinear(settings: Annotated[NonlinearSettings, tyro.conf.arg(name="")]) -> None:
    """Burgers, FitzHugh–Nagumo or Gray–Scott, seen at 64 scattered sensors, fewer than the field has waves.

    Trained on some placements of the sensors, tested on these and on others. Takes some minutes.

    For example:

    neuralpde reproduce padgn-nonlinear --pde burgers

    neuralpde reproduce padgn-nonlinear --pde gray-scott --methods joint-var ours --json gray-scott.json
    """
    reproduce_nonlinear(settings)


def padgn_stations(settings: Annotated[StationsSettings, tyro.conf.arg(name="")]) -> None:
    """Forecasts at weather stations from their last 12 measurements, as in Tables 3 and 6 of PA-DGN; your own stations too.

    Trained on the first two thirds of time, chosen on the next sixth, tested on the last; also at stations that nobody trained
    on, and with 30 % of the values hidden and irregular times. All rows get the same inputs. Ends with a table and report.html.

    For example:

    neuralpde reproduce padgn-stations --set molene --data sensors

    neuralpde reproduce padgn-stations --set synthetic --seeds 1

    neuralpde reproduce padgn-stations --set file --data measured.csv --variables t --methods joint-var gru ours
    """
    reproduce_stations(settings)


def padgn_sst(settings: Annotated[SstSettings, tyro.conf.arg(name="")]) -> None:
    """Sea-surface temperature of the tropical Pacific at points drawn at sea, five months in, up to 25 out: Table 7 of PA-DGN.

    The paper's daily data are no longer to be had; these are monthly anomalies of 1970 to 2003. Takes some minutes.

    For example:

    neuralpde reproduce padgn-sst --data sensors
    """
    reproduce_sst(settings)


def laplacian_983(settings: Annotated[LaplacianSettings, tyro.conf.arg(name="")]) -> None:
    """The Laplacian of random periodic functions at 983 scattered nodes, as PhyMPGN tests its operator.

    The cotangent Laplacian, least squares and difference layers beside ours, with the published numbers. Takes a few minutes.

    For example:

    neuralpde reproduce laplacian-983

    neuralpde reproduce laplacian-983 --methods mesh-op least-squares ours --json laplacian.json
    """
    reproduce_laplacian_983(settings)


def reproduce(arguments: Annotated[list[str], tyro.conf.Positional]) -> None:
    """Train what a paper trained, with its numbers beside: `neuralpde reproduce blend --help` tells more."""
    tyro.extras.subcommand_cli_from_dict(
        {
            "blend": blend,
            "unigraph-heat": unigraph_heat,
            "meshpde": meshpde,
            "meshpde-hard": meshpde_hard,
            "weather": weather,
            "padgn-derivatives": padgn_derivatives,
            "padgn-convection": padgn_convection,
            "padgn-stations": padgn_stations,
            "padgn-sst": padgn_sst,
            "padgn-nonlinear": padgn_nonlinear,
            "laplacian-983": laplacian_983,
        },
        prog="neuralpde reproduce",
        description="Train what a paper trained, and put its numbers beside.",
        args=arguments,
        config=(tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff),
    )


def meshpde_data(settings: Annotated[MeshDataSettings, tyro.conf.arg(name="")]) -> None:
    """Simulate MeshPDE's equations on meshes, by the authors' schemes and by the true equations of the surface.

    One file for each equation, truth and mesh: vertices, faces, frames, time step and all parameters, with its checksum in
    MANIFEST.json. What is finished is checked and kept, so a killed run continues where it was.

    For example:

    neuralpde data meshpde --pde heat wave --truth published --meshes meshes --out data/meshpde --workers 4

    neuralpde data meshpde --out data/meshpde --verify
    """
    make_mesh_data(settings)


def weather_data(settings: Annotated[SyntheticWeather, tyro.conf.arg(name="")]) -> None:
    """Write a made-up weather of planetary waves, seasons and noise as a zarr store in WeatherBench 2's layout.

    For example:

    neuralpde data weather --out made.zarr --days 365
    """
    make_weather(settings)


def stations_data(settings: Annotated[StationDataSettings, tyro.conf.arg(name="")]) -> None:
    """Read measurements of stations of your own, check them, show what they hold, and write them ready for learning.

    Tables (CSV, parquet, npz, NetCDF) and NOAA's layouts: isd-lite, global-hourly, lcd, ghcn-daily.

    For example:

    neuralpde data stations --files measured.csv --variables t:degC --missing -9999 --out stations.npz --picture map.png

    neuralpde reproduce padgn-stations --set file --data stations.npz
    """
    show_station_data(settings)


def data(arguments: Annotated[list[str], tyro.conf.Positional]) -> None:
    """Make data: `neuralpde data meshpde --help` tells more."""
    tyro.extras.subcommand_cli_from_dict(
        {"meshpde": meshpde_data, "weather": weather_data, "stations": stations_data},
        prog="neuralpde data",
        description="Simulate data, checked and resumable.",
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
        elif words[:1] == ["data"]:
            data(words[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(
                {"run": run, "data": data, "reproduce": reproduce, "bench": bench},
                prog="neuralpde",
                description="Neural PDEs on graphs, triangle meshes and point clouds, trained through the solver.",
                args=words,
            )
    except EXPECTED as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"neuralpde: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nneuralpde: stopped; what is finished is kept, continue with --resume", file=sys.stderr)
        return 130
    return 0
