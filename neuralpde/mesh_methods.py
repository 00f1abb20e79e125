"""The methods of MeshPDE's tables, in their order, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from neuralpde.heat_data import Truth
from neuralpde.mesh_baselines import ExplicitMass, ExplicitRobust, ImplicitEuler, Persistence, Zero
from neuralpde.mesh_baselines_stencils import (
    Cubic,
    FourParameters,
    OwnCubic,
    OwnFourParameters,
    OwnNormalisedRate,
    OwnRate,
    OwnTwoParameters,
    Rate,
    TwoParameters,
)
from neuralpde.mesh_method import Method
from neuralpde.mesh_networks_egnn import Egnn
from neuralpde.mesh_networks_gcn import Gcn
from neuralpde.mesh_networks_meshgraphnet import MeshGraphNet
from neuralpde.mesh_networks_mpnn import Mpnn
from neuralpde.mesh_networks_spectral import Spectral
from neuralpde.mesh_ours import Ours
from neuralpde.mesh_pde import Pde
from neuralpde.mesh_training import Network
from neuralpde.mesh_unitary import unitary_methods

# Sums over 196 steps on the paper's test meshes, of which armadillo_sub is a substitute and the others are ours.
PUBLISHED: Mapping[Pde, Mapping[tuple[str, str], float]] = {
    Pde.HEAT: {("r-unimesh", "nrmse"): 51.9, ("r-unimesh", "rayleigh_error"): 9.1},
    Pde.WAVE: {("r-unimesh", "nrmse"): 236.5},
    Pde.CAHN_HILLIARD: {("r-unimesh", "nrmse"): 123.9},
    Pde.ADVECTION: {},
}


def order_in_time(pde: Pde) -> int:
    """2 for waves, else 1."""
    return 2 if pde is Pde.WAVE else 1


def baselines(order: int) -> list[Method]:
    """What is trivial, and what is fitted in closed form, for an equation of this order in time."""
    return [
        Zero(),
        Persistence(),
        Rate(order),
        OwnRate(order),
        TwoParameters(order),
        OwnTwoParameters(order),
        FourParameters(order),
        OwnFourParameters(order),
    ]


def schemes(order: int) -> list[Method]:
    """Time steps on this operator or that, told that the rate is one; and a rate without area and time."""
    return [ImplicitEuler(order), ExplicitMass(order), ExplicitRobust(order), OwnNormalisedRate(order)]


def networks() -> list[Network]:
    """The graph networks and the spectral one."""
    return [Gcn(), Mpnn(), Egnn(), MeshGraphNet(), Spectral()]


def methods_of(pde: Pde, truth: Truth, steps: int | None = None) -> list[Method]:
    """All rows of a table, in order.

    Args:
        steps: training steps of every network, instead of its own.
    """
    order = order_in_time(pde)
    # Diffusion and waves are what the schemes discretise; the cubic is Cahn and Hilliard's.
    told = schemes(order) if pde in (Pde.HEAT, Pde.WAVE) else []
    if pde is Pde.CAHN_HILLIARD:
        told = [Cubic(), OwnCubic()]
    learned: Sequence[Network] = [*networks(), *unitary_methods(pde)]
    if steps is not None:
        learned = [replace(network, steps=steps) for network in learned]
    return [*baselines(order), *told, *learned, Ours()]


def published(pde: Pde, truth: Truth) -> Mapping[tuple[str, str], float]:
    """The paper's numbers, which exist for the data as published alone."""
    return PUBLISHED[pde] if truth is Truth.PUBLISHED else {}
