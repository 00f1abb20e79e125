"""Fourth-order operators: −div(a grad u) edge by edge, and solves of two coupled Laplacians, against dense matrices."""

import pytest
import torch

from neuralpde.mixed_form import MixedPart, weighted_laplacian, weighted_product
from neuralpde.phase_field import CahnHilliard
from neuralpde.testing import assert_within
from operators import Boundary, Grid, cotangent_laplacian, grid_laplacian, icosphere

NOW = torch.tensor(0.3, dtype=torch.float64)
PERIODIC = grid_laplacian(Grid((7, 5), 0.4, (Boundary.NEUMANN, Boundary.PERIODIC)))
WALLED = grid_laplacian(Grid((7, 5), 0.4, (Boundary.NEUMANN, Boundary.DIRICHLET)))
SPHERE = cotangent_laplacian(icosphere(1))
LAPLACIANS = pytest.mark.parametrize("laplacian", [PERIODIC, WALLED, SPHERE], ids=["grid", "walls", "sphere"])


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(laplacian, a):
    """−div(a grad ·) entry by entry: the mean of a at both ends of an edge; what a wall takes, with a of its node."""
    stiffness = laplacian.stiffness.matrix()
    weights = -(stiffness - stiffness.diagonal().diag()) * (a[:, None] + a[None, :]) / 2
    surplus = stiffness.sum(1) * a
    return (weights.sum(1).diag() - weights + surplus.diag()) / laplacian.mass[:, None]


@LAPLACIANS
def test_a_coefficient_stands_in_the_middle_of_every_edge(laplacian):
    n = laplacian.shape[0]
    u, a = noise(2, n, 3), noise(n, 1, seed=1).abs() + 0.2
    expected = dense(laplacian, a[:, 0]) @ u
    assert_within(weighted_product(laplacian, a, u), expected, 1e-12 * float(expected.abs().max()))
    # One a channel, and one a batch member.
    each = noise(2, n, 3, seed=2).abs() + 0.2
    found = weighted_product(laplacian, each, u)
    for i in range(2):
        for k in range(3):
            column = dense(laplacian, each[i, :, k]) @ u[i, :, k]
            assert_within(found[i, :, k], column, 1e-12 * float(expected.abs().max()))
    assert torch.equal(weighted_product(laplacian, torch.tensor(2.0, dtype=torch.float64), u), 2 * (laplacian @ u))


@LAPLACIANS
def test_a_weighted_laplacian_is_the_same_as_an_operator(laplacian):
    n = laplacian.shape[0]
    u, a, r = noise(n, 2), noise(n, 1, seed=1).abs() + 0.2, noise(n, 1, seed=2).abs() + 0.2
    built = weighted_laplacian(laplacian, a, r, 0.7)
    expected = r * (weighted_product(laplacian, a, u) + 0.7 * u)
    assert_within(built @ u, expected, 1e-12 * float(expected.abs().max()))
    assert torch.equal(built.stiffness.matrix(), built.stiffness.matrix().T)
    single = torch.tensor(2.0, dtype=torch.float64)
    assert_within(weighted_laplacian(laplacian, single, single, 0.0) @ u, 4 * (laplacian @ u), 1e-11)


@LAPLACIANS
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_a_mixed_solve_is_that_of_the_product(laplacian, channels):
    n = laplacian.shape[0]
    if channels:
        m, square = (noise(n, channels, seed=k).abs() + 0.2 for k in (1, 2))
    else:
        m, square = (torch.tensor(value, dtype=torch.float64) for value in (0.8, 0.09))
    part, b = MixedPart(laplacian, m, square, 2.0), noise(3, n, 2)
    y, mu = part.solve_mixed(0.1, b)
    for k in range(2):
        first, second = (dense(laplacian, a.expand(n, 2)[:, k]) for a in (m, square))
        eye = torch.eye(n, dtype=torch.float64)
        potential = second + 2 * eye
        whole = eye + 0.1 * first @ potential
        assert_within(whole @ y[..., k, None], b[..., k, None], 1e-11 * float(whole.abs().sum(1).max()))
        assert_within(mu[..., k, None], potential @ y[..., k, None], 1e-11 * float(potential.abs().sum(1).max()))
        assert_within((part @ b)[..., k, None], -first @ (potential @ b[..., k, None]), 1e-11 * part.norm_bound())
    assert part.self_adjoint == (channels == 0)
    assert torch.equal(part.solve(torch.tensor(0.1, dtype=torch.float64), b), y)


def test_it_agrees_with_the_factors_of_a_single_laplacian():
    f, u = CahnHilliard(PERIODIC, 0.3, 0.8), noise(35, 1)
    shift = torch.tensor(0.1, dtype=torch.float64)
    assert_within(f.lagged(NOW, u)[0].solve(shift, u), f.linear.solve(shift, u), 1e-12)


def test_a_factor_is_kept_for_a_shift_and_renewed_for_another():
    part, b = MixedPart(PERIODIC, *(torch.tensor(v, dtype=torch.float64) for v in (0.8, 0.09)), 2.0), noise(35, 1)
    for s in (0.1, 0.1, 0.2, 0.1):
        y = part.solve(torch.tensor(s, dtype=torch.float64), b)
        assert_within(y - s * (part @ y), b, 1e-11)
    part.keep_factors(6)
    assert part._solver.factors_kept == 6


def test_gradients_in_the_shift_the_fields_and_the_coefficients():
    laplacian = grid_laplacian(Grid((3, 2), 0.5))
    s = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    m, square = ((noise(6, 1, seed=k).abs() + 0.3).requires_grad_() for k in (1, 2))
    b = noise(6, 1).requires_grad_()

    def solved(s, m, square, b):
        return torch.cat(MixedPart(laplacian, m, square, 0.5).solve_mixed(s, b))

    assert torch.autograd.gradcheck(solved, (s, m, square, b))
    assert torch.autograd.gradgradcheck(solved, (s, m, square, b))
