"""Many minimisations at once: each is as if it were alone, falls, and survives values that are no numbers."""

from itertools import pairwise

import numpy as np
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.nonlinear_sensors_lbfgs import minimise_each
from neuralpde.testing import assert_within


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def test_it_finds_the_minimum_that_scipy_finds():
    start = torch.tensor([[-1.2, 1.0, 0.5], [2.0, -1.0, 0.3]], dtype=torch.float64)
    found = minimise_each(rosenbrock, start, 300)
    for row, x0 in zip(found, start, strict=True):
        exact = scipy.optimize.minimize(lambda x: float(rosenbrock(torch.from_numpy(np.array(x))[None])), x0.numpy()).x
        assert_within(row, torch.from_numpy(exact), 1e-3)


@settings(max_examples=3)
@given(st.integers(0, 1000))
def test_each_row_is_minimised_as_if_alone_and_never_rises(seed):
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(3, 5, 5, dtype=torch.float64, generator=draw)
    matrix = root @ root.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    start = torch.randn(3, 5, dtype=torch.float64, generator=draw)

    def loss(x, which=slice(None)):
        return torch.einsum("ki,kij,kj->k", x, matrix[which], x) / 2

    seen = [loss(start)]
    together = minimise_each(loss, start, 15, told=lambda step, value: seen.append(value))
    assert all(bool((b <= a).all()) for a, b in pairwise(seen))
    alone = torch.cat([minimise_each(lambda x, k=k: loss(x, slice(k, k + 1)), start[k : k + 1], 15) for k in range(3)])
    # Round-off is as large as the conditioning makes it; the values must agree where they are not yet zero.
    assert_within(loss(together), loss(alone), 1e-6 * float(loss(start).max()) + 1e-9)


def test_what_is_no_number_is_not_taken():
    def loss(x):
        value = ((x - 3) ** 2).sum(1)
        return torch.where(x[:, 0] > 2, torch.nan, value)

    found = minimise_each(loss, torch.zeros(1, 1, dtype=torch.float64), 40)
    assert bool(torch.isfinite(found).all())
    assert 1.0 < float(found) <= 2.0
