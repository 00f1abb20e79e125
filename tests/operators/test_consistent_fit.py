"""Local fits against NumPy's least squares, and their condition against NumPy's."""

import numpy as np
import pytest
import torch
from consistent_stencils import scattered

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.consistent_fit import Fit, batches
from operators.neighbours import InverseDistance
from operators.stencils import monomials_of

U = roundoff(torch.float64)


def neighbourhoods(k=9):
    """Twenty nodes with k other points each, the last two of the first node padded."""
    table = torch.stack([torch.tensor([(i + s) % 20 for s in range(1, k + 1)]) for i in range(20)])
    valid = torch.ones_like(table, dtype=torch.bool)
    table[0, -2:], valid[0, -2:] = 0, False
    return table, valid


@pytest.mark.parametrize("weight", [None, InverseDistance(2.0)])
def test_coefficients_are_those_of_a_weighted_fit(weight):
    points, (table, valid) = scattered(20, 2).points, neighbourhoods()
    fit = Fit(points, table, valid, monomials_of(2, 2), weight)
    u = torch.sin(4 * points[:, 0]) * points[:, 1]
    found = (fit.coefficients().mT @ (u[table] - u[:, None])[..., None])[..., 0]
    for i in (0, 7):
        local = ((points[table[i]] - points[i]) / fit.radius[i])[valid[i]]
        rho = torch.linalg.vector_norm(local, dim=1)
        root = (torch.exp(-4 * rho**2) if weight is None else weight(rho)).sqrt().numpy()
        x, y = local.numpy().T
        matrix = root[:, None] * np.stack([x, y, x * x, x * y, y * y], axis=1)
        jumps = root * (u[table[i]] - u[i])[valid[i]].numpy()
        expected = torch.from_numpy(np.linalg.lstsq(matrix, jumps)[0])
        condition = np.linalg.cond(matrix)
        assert_within(found[i], expected, 64 * U * condition * float(expected.abs().max()))
        assert_within(fit.condition()[i], condition, 64 * U * condition**2)
        assert_within(fit.columns()[i][valid[i]], torch.from_numpy(matrix / root[:, None]), 8 * U)
    assert bool((fit.coefficients()[0, -2:] == 0).all())
    assert bool((fit.basis[0, -2:] == 0).all())


def test_too_few_neighbours_and_coincident_ones_have_no_condition():
    points = torch.zeros(4, 2, dtype=torch.float64)
    points[0, 0] = 1.0
    table = torch.tensor([[1, 2, 3], [0, 2, 3], [1, 3, 1]])
    used = torch.ones_like(table, dtype=torch.bool)
    condition = Fit(points, table, used, monomials_of(2, 1), None, torch.arange(3)).condition()
    assert not bool((condition <= 1e12).any())
    few = Fit(scattered(4, 2).points, table, torch.ones_like(table, dtype=torch.bool), monomials_of(2, 2), None, torch.arange(3))
    assert not bool((few.condition() <= 1e12).any())


def test_a_weight_without_a_value_is_refused():
    points, (table, valid) = scattered(20, 2).points, neighbourhoods()
    with pytest.raises(DomainError, match="a least-squares weight is negative, infinite or NaN"):
        Fit(points, table, valid, monomials_of(2, 1), lambda rho: 0.5 - rho)
    with pytest.raises(DomainError, match="a least-squares weight is negative, infinite or NaN"):
        Fit(points, table, valid, monomials_of(2, 1), lambda rho: rho * torch.nan)


def test_batches_are_all_nodes_in_order_and_no_larger_than_asked():
    nodes = torch.arange(10)
    assert torch.equal(torch.cat(list(batches(nodes, 3, 7))), nodes)
    assert max(map(len, batches(nodes, 3, 7))) == 2
    assert [len(part) for part in batches(nodes, 100, 7)] == [1] * 10
    assert len(batches(nodes, 3)) == 1
