"""Transport: skew for any flows, the mass where there is no divergence, and its axis found on several surfaces."""

import gc

import pytest
import torch

from integrators import Exponential, integrate
from neuralpde.heat_data import Truth
from neuralpde.invariants import Law, Mass, Norm
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_transport import _AXES, StirredFlow, Transport, axes
from neuralpde.transport import AdvectionDiffusion
from operators import SparseOperator, bumpy, icosphere, robust_laplacian
from operators.advection import Flux

NOW = torch.zeros((), dtype=torch.float64)
AXIS = (0.3, -0.5, 0.8)


def scene(mesh, dt, name="ball"):
    return Scene(name, mesh, dt, Truth.SURFACE)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def library(mesh, axis, kappa):
    """The ready equation with the same velocity."""
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = normal / normal.norm(dim=1, keepdim=True)
    velocity = torch.linalg.cross(normal, torch.tensor(axis, dtype=torch.float64).expand_as(normal))
    return AdvectionDiffusion(robust_laplacian(mesh), mesh, velocity, kappa, Flux.CENTRED)


def test_it_is_the_ready_equation_on_closed_surfaces():
    mesh = bumpy(icosphere(1), 0.2)
    form = Transport(AXIS, (0.1, 0.0), False)
    u = noise(42, 2)
    assert torch.allclose(form.equation(scene(mesh, 0.1))(NOW, u), library(mesh, AXIS, 0.1)(NOW, u), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_the_norm_obeys_any_flows(kappa):
    """Skew by construction: even flows with divergence keep the norm, and it falls by diffusion alone."""
    laplacian = robust_laplacian(icosphere(1))
    n = laplacian.shape[0]
    row, col = torch.triu_indices(n, n, 1)
    values = noise(len(row))
    F = SparseOperator.from_entries(torch.cat([row, col]), torch.cat([col, row]), torch.cat([values, -values]), (n, n))
    f = StirredFlow(laplacian, F, torch.tensor(kappa, dtype=torch.float64))
    u = noise(n, 1)
    path = integrate(f, u, torch.linspace(0, 1, 5, dtype=torch.float64), Exponential()).x
    (norm,) = f.invariants
    assert isinstance(norm, Norm)
    assert norm.law is (Law.NON_INCREASING if kappa else Law.CONSERVED)
    assert norm.violation(path) <= 1e-11
    rate = 2 * laplacian.inner(u, f(NOW, u))
    assert float(rate) == pytest.approx(-2 * kappa * float(laplacian.inner(u, laplacian(u))), rel=1e-10, abs=1e-10)
    assert float((f.linear @ u).norm()) <= f.linear.norm_bound() * float(u.norm()) * 10


def test_mass_stays_without_divergence():
    f = Transport(AXIS, (0.1, 0.2), False).equation(scene(bumpy(icosphere(1), 0.2), 0.1))
    mass = next(i for i in f.invariants if isinstance(i, Mass))
    path = integrate(f, noise(42, 1), torch.linspace(0, 1, 5, dtype=torch.float64), Exponential()).x.detach()
    assert mass.violation(path) <= 1e-12


@pytest.mark.parametrize("frame_by_frame", [True, False])
def test_axis_and_diffusion_are_found(frame_by_frame):
    """κ = κ₀ + κ₁ τ over surfaces of different steps."""
    truth = []
    for k, (mesh, dt) in enumerate([(icosphere(1), 0.02), (bumpy(icosphere(1, radius=2.0), 0.2), 0.05)]):
        f = library(mesh, AXIS, 0.02 + 0.5 * dt)
        path = [noise(2, 42, 1, seed=k)]
        for _ in range(12):
            with torch.no_grad():
                nxt = path[-1] + dt * f(NOW, path[-1])
                if not frame_by_frame:
                    nxt = integrate(f, path[-1], [0.0, dt]).x[-1]
            path.append(nxt)
        frames = torch.stack(path, dim=1)
        truth.append(Case(scene(mesh, dt), frames, frames))
    form = Transport.fitted(truth, frame_by_frame=frame_by_frame)
    assert form.axis.tolist() == pytest.approx(AXIS, abs=1e-6 if frame_by_frame else 5e-3)
    assert (form.root**2).tolist() == pytest.approx([0.02, 0.5], rel=1e-4 if frame_by_frame else 0.05)


def test_the_axes_are_made_once_and_forgotten_with_the_scene():
    one = scene(icosphere(0), 0.1)
    assert axes(one)[1] is axes(one)[1]
    count = len(_AXES)
    del one
    gc.collect()
    assert len(_AXES) < count
