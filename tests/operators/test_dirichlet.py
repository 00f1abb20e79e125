"""A Laplacian with fixed nodes is the block of the free ones, and solves boundary value problems."""

import math
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import (
    ConjugateGradient,
    DomainError,
    FieldError,
    Jacobi,
    combinatorial_laplacian,
    cotangent_laplacian,
    eigenpairs,
    grid,
    icosphere,
    robust_laplacian,
)
from operators.boundary import boundary_vertices
from operators.dirichlet import dirichlet
from operators.grids import Boundary, Grid, grid_laplacian

U = roundoff(torch.float64)


@st.composite
def held(draw):
    """A Laplacian and a proper subset of its nodes."""
    L = draw(st.one_of(graphs(min_nodes=2).map(combinatorial_laplacian), meshes().map(robust_laplacian)))
    n = L.shape[0]
    mask = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda m: not all(m)))
    return L, torch.tensor(mask)


@given(case=held(), data=st.data())
def test_the_matrix_is_the_block_of_the_free_nodes(case, data):
    L, mask = case
    D = dirichlet(L, mask)
    full = L.stiffness.to_scipy().toarray()
    free = ~mask.numpy()
    assert np.array_equal(D.stiffness.to_scipy().toarray(), full[np.ix_(free, free)])
    assert np.array_equal(D.coupling.to_scipy().toarray(), full[np.ix_(free, ~free)])
    assert torch.equal(D.mass, L.mass[~mask])
    assert torch.equal(D.free, (~mask).nonzero()[:, 0])
    assert torch.equal(D.fixed, mask.nonzero()[:, 0])
    x, g = data.draw(fields(len(D.free), 2)), data.draw(fields(len(D.fixed), 2))
    assert torch.equal(D.restrict(D.extend(x)), x)
    whole = D.extend(x, g)
    assert torch.equal(whole[mask], g)
    assert (D.extend(x)[mask] == 0).all()
    assert (D.extend(x, 3.0)[mask] == 3).all()
    batch = x.expand(2, 3, *x.shape)
    assert torch.equal(D.extend(batch, g), whole.expand(2, 3, *whole.shape))
    assert torch.equal(D.extend(batch[0], g.expand(3, *g.shape)), whole.expand(3, *whole.shape))
    magnitude = torch.from_numpy(abs(full) @ whole.abs().numpy()) / L.mass[:, None]
    assert_within(D @ x + D.load(g), (L @ whole)[~mask], 8 * U * (2 + math.log2(len(full))) * magnitude[~mask])


@given(case=held())
def test_a_held_component_has_no_kernel_and_a_free_one_keeps_its_constants(case):
    L, mask = case
    D = dirichlet(L, mask)
    ones = torch.ones(len(D.free), 1, dtype=torch.float64)
    if not mask.any():
        assert torch.equal(D.matrix(), L.matrix())
    touched = torch.from_numpy(np.asarray(abs(D.coupling.to_scipy()).sum(axis=1)).reshape(-1)) > 0
    energy = (ones * (D.stiffness @ ones)).sum()
    slack = 32 * len(ones) * U * float(L.stiffness.diagonal().abs().sum())
    assert energy >= -slack
    assert bool(touched.any()) or energy <= slack


def test_a_grid_between_fixed_ends_is_a_longer_grid_with_its_ends_fixed():
    inner = grid_laplacian(Grid(5, 0.5, Boundary.DIRICHLET))
    outer = dirichlet(grid_laplacian(Grid(7, 0.5, Boundary.PERIODIC)), [0, 6])
    assert torch.equal(inner.matrix(), outer.matrix())


def test_harmonic_functions_come_back_from_their_boundary_values():
    """On a flat mesh linear functions are harmonic for the cotangent weights: Δu = 0 inside, u given outside."""
    mesh = grid(9, 7)
    edge = boundary_vertices(mesh)
    D = dirichlet(cotangent_laplacian(mesh), edge)
    u = mesh.vertices[:, :1] * 2 - mesh.vertices[:, 1:2] + 3
    inside = torch.linalg.solve(D.matrix(), -D.load(u[edge]))
    torch.testing.assert_close(D.extend(inside, u[edge]), u, rtol=1e-12, atol=1e-12)


def test_the_drum_has_the_tones_of_bessel():
    """Unit square with a fixed rim: λ = π²(j² + k²), the first at 2π²."""
    D = dirichlet(cotangent_laplacian(mesh := grid(25, 25)), boundary_vertices(mesh))
    tones = torch.linalg.eigvalsh(torch.from_numpy(D.symmetrized().stiffness.to_scipy().toarray()))
    expected = torch.tensor([2.0, 5, 5, 8], dtype=torch.float64) * math.pi**2
    torch.testing.assert_close(tones[:4], expected, rtol=0.02, atol=0)


def test_solve_steps_heat_with_the_rim_held():
    D = dirichlet(robust_laplacian(mesh := grid(6, 6)), boundary_vertices(mesh))
    b = torch.randn(2, D.shape[0], 3, dtype=torch.float64)
    x = D.solve(0.1, b)
    torch.testing.assert_close(x + 0.1 * (D @ x), b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_copies_and_gradients(dtype):
    D = dirichlet(robust_laplacian(icosphere(1).to(dtype)), range(5))
    assert D.dtype == dtype
    assert D.to(torch.float64).coupling.dtype == torch.float64
    for copied in (pickle.loads(pickle.dumps(D)), deepcopy(D)):
        assert torch.equal(copied.matrix(), D.matrix())
        assert torch.equal(copied.free, D.free)
    x = torch.randn(D.shape[0], 1, dtype=torch.float64, requires_grad=True)
    g = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, g: D.extend(x, g).square() + D.extend(D.load(g)), (x, g))
    assert D.state_dict() == {}


@pytest.mark.parametrize(
    ("fixed", "match"),
    [
        ([12], "fixed must lie in 0 to 11, not 12 to 12"),
        ([-1], "fixed must lie in 0 to 11, not -1 to -1"),
        ([1, 1], "more than once"),
        ([0.5], r"integers \(g,\), not torch.float32 \(1,\)"),
        ([[1]], r"not torch.int64 \(1, 1\)"),
        ([True, False], r"fixed must have shape \(12,\), one for each node"),
        (range(12), "every node is fixed"),
        (torch.ones(12, dtype=torch.bool), "every node is fixed"),
        ("rim", "fixed must be an array or tensor of numbers"),
    ],
)
def test_nodes_that_can_not_be_fixed_are_refused(fixed, match):
    with pytest.raises(DomainError, match=match):
        dirichlet(robust_laplacian(icosphere(0)), fixed)


def test_fields_that_do_not_fit_are_refused():
    D = dirichlet(robust_laplacian(icosphere(0)), [0, 3])
    for wrong in (lambda: D.restrict(torch.ones(10, 1)), lambda: D.extend(torch.ones(12, 1)), lambda: D.load(torch.ones(10, 1))):
        with pytest.raises(FieldError, match="must have shape"):
            wrong()
    x = torch.ones(10, 1, dtype=torch.float64)
    with pytest.raises(FieldError, match="values must have shape"):
        D.extend(x, x)
    with pytest.raises(FieldError, match=r"values has dtype torch\.float32"):
        D.extend(x, torch.ones(2, 1))
    assert torch.equal(dirichlet(robust_laplacian(icosphere(0)), []).free, torch.arange(12))


def test_heat_with_fixed_values_is_the_steady_state_plus_what_decays_with_zeros():
    """On a rectangle with u = x held on its rim, x is steady; a mode of the rectangle decays on top of it."""
    mesh = grid(9, 17, 1.0, 2.0)
    D = dirichlet(cotangent_laplacian(mesh), boundary_vertices(mesh))
    x = mesh.vertices[:, :1]
    values = x[D.fixed]
    h = ConjugateGradient(tolerance=1e-12, preconditioner=Jacobi()).solve(D, -D.load(values))
    pairs = eigenpairs(D, 1)
    mode, rate = pairs.vectors, pairs.values
    start = x + D.extend(mode)
    later = D.extend(h + D.solve(0.1, D.restrict(start) - h), values)
    assert_within(later, x + D.extend(mode) / (1 + 0.1 * rate), 1e-9)


def test_what_is_no_laplacian_is_refused_and_another_domain_needs_its_own_nodes():
    mesh = grid(4, 4)
    with pytest.raises(DomainError, match="of a TriangleMesh"):
        dirichlet(mesh, boundary_vertices(mesh))
    with pytest.raises(NotImplementedError, match="boundary_vertices"):
        dirichlet(robust_laplacian(mesh), boundary_vertices(mesh)).on(grid(5, 5))
