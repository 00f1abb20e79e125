"""Patterns are the principal components of the weighted field; the generator never lets anything grow and finds a rotation."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from neuralpde.forecast_patterns import MetriplecticGenerator, Patterns
from operators import FieldError


def test_patterns_are_orthonormal_in_area_and_of_unit_variance():
    g = torch.Generator().manual_seed(0)
    samples, weights = torch.randn(40, 12, 2, generator=g), torch.rand(12, 1, generator=g) + 0.1
    weights = weights / weights.sum()
    patterns = Patterns(samples, weights, 40)
    z = patterns.coordinates(samples)
    assert torch.allclose(z.T @ z / len(z), torch.eye(z.shape[1], dtype=torch.float64), atol=1e-6)
    # All of them together are the field itself.
    assert torch.allclose(patterns.fields(z), samples, atol=1e-4)
    values = np.linalg.svd(patterns._flat(samples).numpy(), compute_uv=False) / 40**0.5
    assert np.allclose(patterns.deviation.numpy(), values[: len(patterns.deviation)], rtol=1e-5)


def test_the_generator_is_found_and_metriplectic():
    G = np.array([[-0.05, -0.3, 0.0], [0.3, -0.05, 0.0], [0.0, 0.0, -0.2]])
    g, step = np.random.default_rng(0), expm(G)
    noise = np.linalg.cholesky(np.eye(3) - step @ step.T)
    z = np.zeros((20000, 3))
    for k in range(1, len(z)):
        z[k] = step @ z[k - 1] + noise @ g.normal(size=3)
    found = MetriplecticGenerator([torch.from_numpy(z)], 2)
    # The ridge of 1 % damps by half of that a step.
    assert np.allclose((found.J - found.R).numpy(), G, atol=0.03)
    assert torch.allclose(found.J, -found.J.T)
    assert float(torch.linalg.eigvalsh(found.R).min()) >= 1e-4 * (1 - 1e-9)


def test_nothing_grows_whatever_the_sample():
    z = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(0)
    sizes = torch.linalg.matrix_norm(MetriplecticGenerator([z], 1).propagators(30), 2)
    assert bool((sizes <= 1.0).all())
    assert bool((sizes.diff() <= 1e-12).all())


def test_too_little_to_learn_from():
    with pytest.raises(FieldError, match="two samples"):
        Patterns(torch.ones(1, 3, 1), torch.ones(3, 1), 2)
    with pytest.raises(FieldError, match="no trajectory"):
        MetriplecticGenerator([torch.ones(3, 2, dtype=torch.float64)], 3)
