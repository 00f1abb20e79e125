"""The equations of MeshPDE by the names of the command line."""

from __future__ import annotations

from enum import Enum

from neuralpde.mesh_equation import MeshEquation
from neuralpde.mesh_equation_advection import MeshAdvection
from neuralpde.mesh_equation_cahn_hilliard import MeshCahnHilliard
from neuralpde.mesh_equation_heat import MeshHeat
from neuralpde.mesh_equation_wave import MeshWave


class Pde(Enum):
    """An equation of MeshPDE; `Pde.HEAT.equation` is the object."""

    HEAT = "heat"
    WAVE = "wave"
    CAHN_HILLIARD = "cahn-hilliard"
    ADVECTION = "advection"

    @property
    def equation(self) -> MeshEquation:
        """The equation with its published settings."""
        return _EQUATIONS[self]


_EQUATIONS: dict[Pde, MeshEquation] = {
    Pde.HEAT: MeshHeat(),
    Pde.WAVE: MeshWave(),
    Pde.CAHN_HILLIARD: MeshCahnHilliard(),
    Pde.ADVECTION: MeshAdvection(),
}
