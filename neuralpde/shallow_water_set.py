"""Simulated weather whose truth is known: trajectories of shallow water, seen on a coarse sphere every six hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.shallow_water_climate import Climate, ClimateSettings
from neuralpde.sphere_lifting import check_refinements, observation, rotated
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import Variable, WeatherRecord, regular_times
from operators.checks import is_integer
from operators.domains import TriangleMesh
from operators.sphere_meshes import centroidal_icosphere
from operators.spherical_dual import spherical_dual

STEP_HOURS = 6.0
VARIABLES = (
    Variable("height", units="m"),
    Variable("u_component_of_wind", units="m s**-1"),
    Variable("v_component_of_wind", units="m s**-1"),
)
# The mesh of the truth is turned, so that no model on a mesh of its own shares its nodes.
TURN = (0.4, 0.7)

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class ShallowWaterSet:
    """The set's settings.

    Args:
        refinements: of the icosphere that is observed, 10·4^r + 2 nodes.
        truth_refinements: of the one that is simulated.
        trajectories: all of them, those of the test included.
        test_trajectories: how many of them, the last ones, are for testing.
        days: that are kept of each trajectory.
        spin_up_days: that come before.
        seed: of the starts.
    """

    refinements: int = 3
    truth_refinements: int = 4
    trajectories: int = 12
    test_trajectories: int = 4
    days: int = 25
    spin_up_days: int = 15
    seed: int = 0
    climate: ClimateSettings = field(default_factory=ClimateSettings)

    def __post_init__(self) -> None:
        check_refinements(self.refinements, self.truth_refinements)
        for name, least in (("trajectories", 2), ("test_trajectories", 1), ("days", 1), ("spin_up_days", 0)):
            value = getattr(self, name)
            if not is_integer(value) or value < least:
                raise RunFolderError(f"{name} must be a whole number from {least} on, not {value!r}")
        if self.test_trajectories >= self.trajectories:
            raise RunFolderError(f"{self.test_trajectories} test trajectories of {self.trajectories} leave none to train on")

    @property
    def time_step(self) -> float:
        """Of the simulation, in s: an even share of six hours, halved with every refinement."""
        return 19200.0 * 0.5**self.truth_refinements

    def simulate(self, path: Path, told: Told = lambda day, days: None) -> WaterRecords:
        """Simulate, or read what was simulated; a file of a simulation that was cut short is continued.

        Args:
            path: a safetensors file, written after each few days.
            told: called with (day, days).

        Raises:
            RunFolderError: the file is damaged, or of other settings.
        """
        fine = rotated(centroidal_icosphere(self.truth_refinements, dtype=torch.float32), TURN)
        climate = self.climate.on(fine, self.time_step)
        place = self.place()
        watch = _Observer(climate, fine, place)
        days = self.spin_up_days + self.days
        state, frames, day = self._begin(path, climate)
        times = torch.arange(5) * 3600.0 * STEP_HOURS
        for today in range(day, days):
            with torch.no_grad():
                path_of_day = integrate(climate.forced, state, times, RK4(dt=self.time_step)).x
            state = (path_of_day[0][-1], path_of_day[1][-1])
            if today >= self.spin_up_days:
                frames.append(watch((path_of_day[0][:-1], path_of_day[1][:-1])))
            if (today + 1) % 5 == 0 or today + 1 == days:
                kept = {"frames": torch.cat(frames, dim=1)} if frames else {}
                write_tensors(path, {"h": state[0], "u": state[1], **kept}, {"identity": self._identity, "day": today + 1})
            told(today + 1, days)
        return self._records(torch.cat(frames, dim=1), place, watch.bottom)

    def place(self) -> MeshNodes:
        """Where it is observed."""
        mesh = centroidal_icosphere(self.refinements)
        return MeshNodes(mesh, spherical_dual(mesh).cell_areas)

    @property
    def _identity(self) -> dict[str, object]:
        return {**asdict(self), "form": 1}

    def _begin(self, path: Path, climate: Climate) -> tuple[tuple[Tensor, Tensor], list[Tensor], int]:
        if not path.exists():
            return self.climate.starts(climate, self.trajectories, self.seed), [], 0
        tensors, notes = read_tensors(path)
        if notes.get("identity") != self._identity:
            raise RunFolderError(f"{path} holds a simulation of other settings: choose another folder, or delete it")
        return (tensors["h"], tensors["u"]), [tensors["frames"]] if "frames" in tensors else [], int(notes["day"])

    def _records(self, frames: Tensor, place: MeshNodes, bottom: Tensor) -> WaterRecords:
        times = regular_times("2000-01-01", STEP_HOURS, frames.shape[1])
        cut = self.trajectories - self.test_trajectories
        train, test = (WeatherRecord.of(part, times, place, VARIABLES) for part in (frames[:cut], frames[cut:]))
        return WaterRecords(train, test, bottom)


@dataclass(frozen=True, eq=False)
class WaterRecords:
    """Height of the surface, eastward and northward wind.

    Args:
        train: its trajectories are K members at the same times.
        test: other trajectories.
        orography: the height of the bottom (n, 1) in m, which every method knows.
    """

    train: WeatherRecord
    test: WeatherRecord
    orography: Tensor


class _Observer:
    """States of the fine sphere → height and wind on the coarse one, (T, K, ...) → (K, T, n, 3)."""

    def __init__(self, climate: Climate, fine: TriangleMesh, place: MeshNodes) -> None:
        self.flow = climate.flow
        self.transfer = observation(fine, self.flow.grid.cell_areas, place.mesh).to(fine.vertices.dtype)
        self.bottom = self.transfer.restrict(self.flow.topography)
        self.basis = east_north(place.mesh).to(fine.vertices.dtype)

    def __call__(self, states: tuple[Tensor, Tensor]) -> Tensor:
        h, u = states
        height = self.transfer.restrict(h) + self.bottom
        wind = self.transfer.restrict(self.flow.velocity(u))
        components = torch.einsum("nad,...nd->...na", self.basis, wind)
        return torch.cat([height, components], dim=-1).transpose(0, 1)


def east_north(mesh: TriangleMesh) -> Tensor:
    """Unit vectors (n, 2, 3) eastward and northward at the vertices, in float64; at a pole, those of longitude 0."""
    x = torch.nn.functional.normalize(mesh.vertices.double(), dim=1)
    longitude, height = torch.atan2(x[:, 1], x[:, 0]), x[:, 2]
    s, c = torch.sin(longitude), torch.cos(longitude)
    across = torch.linalg.vector_norm(x[:, :2], dim=1)
    east = torch.stack([-s, c, torch.zeros_like(s)], dim=1)
    north = torch.stack([-height * c, -height * s, across], dim=1)
    return torch.stack([east, north], dim=1)
