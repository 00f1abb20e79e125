"""Heat with tensors on faces: the assembled operator, closed forms, and learning."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given

from integrators import RK4, SBDF2, SDIRK3, Exponential, integrate
from neuralpde.anisotropic_heat import AlongDirection, AnisotropicHeat
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.sources import PositionalSource
from neuralpde.testing import meshes
from operators import (
    FieldError,
    MeshDiffusion,
    TriangleMesh,
    cotangent_laplacian,
    directional_diffusivity,
    face_average,
    grid,
    icosphere,
)

NOW = torch.tensor(0.3, dtype=torch.float64)
UP = torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64)


@given(mesh=meshes(slivers=False))
def test_divergence_of_the_flux_is_the_assembled_laplacian(mesh):
    """Two ways to the same numbers, for tensors and for one number."""
    m, d = mesh.faces.shape[0], mesh.vertices.shape[1]
    root = torch.randn(m, d, d, dtype=mesh.vertices.dtype)
    u = torch.randn(2, mesh.num_nodes, 3, dtype=mesh.vertices.dtype)
    for D in (root @ root.mT, torch.rand(m, dtype=mesh.vertices.dtype)):
        f = AnisotropicHeat(mesh, D)
        laplacian = MeshDiffusion(mesh)(D)
        # Round-off of the largest entries of both ways.
        tolerance = 1e-9 * (1 + laplacian.norm_bound()) * float(u.abs().max())
        assert float((f(NOW, u) + laplacian @ u).abs().max()) <= tolerance
        assert float((f.linear @ u + laplacian @ u).abs().max()) == 0


def test_one_everywhere_is_heat():
    mesh = icosphere(1)
    u = torch.randn(42, 1, dtype=torch.float64)
    f = AnisotropicHeat(mesh, torch.full((80,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(f(NOW, u), Heat(cotangent_laplacian(mesh), 0.7)(NOW, u))


def test_invariants_hold():
    f = AnisotropicHeat(icosphere(2), AlongDirection(UP, along=1.0, across=0.05))
    u = torch.randn(162, 2, dtype=torch.float64)
    for solver in (Exponential(), SDIRK3(dt=0.1)):
        path = integrate(f, u, [0.0, 0.1, 1.0], solver).x
        assert len(f.invariants) == 3
        for invariant in f.invariants:
            assert invariant.violation(path) < 1e-11, invariant.name


def test_a_sheet_conducts_at_two_rates_with_order_two():
    """cos(πx) cos(πy) on a square with rates α, β along the axes falls at (α + β) π²."""
    errors = []
    for n in (6, 11, 21):
        mesh = grid(n, n)
        low, side = mesh.vertices.min(0).values, float((mesh.vertices.max(0).values - mesh.vertices.min(0).values)[0])
        mesh = TriangleMesh((mesh.vertices - low) / side, mesh.faces)
        x, y = mesh.vertices[:, :2].T
        u0 = (torch.cos(math.pi * x) * torch.cos(math.pi * y))[:, None]
        axis = torch.eye(mesh.vertices.shape[1], dtype=torch.float64)[0]
        f = AnisotropicHeat(mesh, AlongDirection(axis, along=0.5, across=0.1))
        final = integrate(f, u0, [0.0, 0.1], Exponential()).final
        mass = f.assembly.mass[:, None]
        errors.append(float((mass * (final - math.exp(-0.06 * math.pi**2) * u0) ** 2).sum().sqrt()))
    assert math.log2(errors[0] / errors[1]) > 1.7
    assert math.log2(errors[1] / errors[2]) > 1.8


def test_a_field_on_the_faces_of_a_sphere_with_order_two():
    """κ = 1 + z/2 and u = e^(−t) z, with the source that makes it so."""
    errors = []
    for k in (1, 2, 3):
        mesh = icosphere(k)
        z = mesh.vertices[:, 2:]

        def source(t, p):
            h = p[:, 2:]
            return torch.exp(-t) * (-h + 2 * h * (1 + h / 2) - (1 - h**2) / 2)

        f = AnisotropicHeat(mesh, lambda mesh: face_average(mesh, 1 + mesh.vertices[:, 2] / 2)) + PositionalSource(mesh, source)
        final = integrate(f, z, [0.0, 1.0], SBDF2(dt=0.02)).final
        errors.append(float((final - z / math.e).norm() / z.norm()))
    assert math.log2(errors[0] / errors[1]) > 1.8
    assert math.log2(errors[1] / errors[2]) > 1.8


def test_faces_and_directions_are_learned():
    mesh = icosphere(0)
    u = torch.randn(12, 1, dtype=torch.float64)
    for f in (
        AnisotropicHeat(mesh, learned(0.5 + torch.rand(20, dtype=torch.float64))),
        AnisotropicHeat(mesh, learned(0.7)),
        AnisotropicHeat(mesh, AlongDirection(UP, along=learned(1.0), across=learned(0.1))),
        AnisotropicHeat(mesh, torch.nn.Parameter(0.5 + torch.rand(20, dtype=torch.float64))),
    ):
        parameters = list(f.parameters())
        for solver in (Exponential(), SDIRK3(dt=0.1), RK4(dt=0.05)):

            def loss(f=f, solver=solver):
                return integrate(f, u, [0.0, 0.2], solver).final.pow(3).sum()

            slopes = torch.autograd.grad(loss(), parameters)
            for p, slope in zip(parameters, slopes, strict=True):
                along = torch.rand_like(p)
                with torch.no_grad():
                    p.add_(1e-5 * along)
                    high = loss()
                    p.sub_(2e-5 * along)
                    low = loss()
                    p.add_(1e-5 * along)
                assert float((slope * along).sum()) == pytest.approx(float(high - low) / 2e-5, rel=1e-4, abs=1e-8), solver


def test_another_mesh_copies_and_single_precision():
    f = AnisotropicHeat(icosphere(1), AlongDirection(UP, along=learned(1.0), across=0.1))
    moved = f.on(icosphere(2))
    assert next(moved.parameters()) is next(f.parameters())
    expected = directional_diffusivity(icosphere(2), UP.expand(320, 3), 1.0, 0.1)
    torch.testing.assert_close(moved.diffusivity.detach(), expected)
    u = torch.randn(162, 1, dtype=torch.float64)
    torch.testing.assert_close(moved.linear @ u, moved(NOW, u))
    for again in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        u = torch.randn(42, 1, dtype=torch.float64)
        assert torch.equal(again(NOW, u), f(NOW, u))
        single = again.to(torch.float32)
        assert single(NOW, u.float()).dtype == torch.float32
        assert integrate(single, u.float(), [0.0, 0.1], SDIRK3(dt=0.1)).final.dtype == torch.float32
        assert single.on(icosphere(0)).linear.laplacian.dtype == torch.float32
    with pytest.raises(NotImplementedError, match="AlongDirection"):
        AnisotropicHeat(icosphere(0), torch.ones(20, dtype=torch.float64)).on(icosphere(1))


def test_the_assembled_operator_is_kept_until_it_changes():
    f = AnisotropicHeat(icosphere(0), torch.ones(20, dtype=torch.float64))
    first = f.linear.laplacian
    assert f.linear.laplacian is first
    f.value.mul_(2.0)
    assert f.linear.laplacian is not first


def test_bad_diffusivities_are_refused():
    mesh = icosphere(0)
    for bad in (torch.ones(12, dtype=torch.float64), -torch.ones(20, dtype=torch.float64), torch.ones(20), learned(-1.0)):
        with pytest.raises(FieldError):
            AnisotropicHeat(mesh, bad)
    with pytest.raises(TypeError, match="face"):
        AnisotropicHeat(mesh, 0.5)
