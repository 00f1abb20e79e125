"""The factors are those of weighted least squares; on what they were fitted to they beat climatology and every predictor."""

import numpy as np
import pytest
import torch

from neuralpde.forecast_shrinkage import Shrinkage, combined
from operators import FieldError


def sample(seed=0, j=3):
    g = torch.Generator().manual_seed(seed)
    p = torch.randn(5, 2, 7, 2, j, generator=g, dtype=torch.float64)
    y = 0.7 * p[..., 0] - 0.2 * p[..., -1] + 0.5 * torch.randn(5, 2, 7, 2, generator=g, dtype=torch.float64)
    return p, y, torch.rand(7, generator=g, dtype=torch.float64)


def test_factors_are_those_of_lstsq_and_batches_add_up():
    p, y, w = sample()
    fitted = Shrinkage(w, ridge=0.0).add(p[:2], y[:2]).add(p[2:], y[2:]).solve()
    root = w.sqrt()[:, None]
    for lead in range(2):
        for c in range(2):
            a = (p[:, lead, :, c] * root).reshape(-1, 3).numpy()
            b = (y[:, lead, :, c] * root[:, 0]).reshape(-1).numpy()
            expected = np.linalg.lstsq(a, b, rcond=None)[0]
            assert np.allclose(fitted[lead, c].numpy(), expected, rtol=1e-10)


def test_no_worse_than_climatology_and_any_predictor():
    p, y, w = sample(1)
    error = (combined(p, Shrinkage(w).add(p, y).solve()) - y).square()
    for other in (y, *(p[..., k] - y for k in range(3))):
        assert bool(((w[:, None] * error).sum((0, 2)) <= (w[:, None] * other.square()).sum((0, 2)) * (1 + 1e-3)).all())


def test_what_knows_nothing_gets_nothing():
    p, y, w = sample()
    p[..., 1] = 0.0
    factors = Shrinkage(w).add(p, y).solve()
    assert float(factors[..., 1].abs().max()) == 0.0
    copies = Shrinkage(w).add(torch.stack([p[..., 0], p[..., 0]], -1), y).solve()
    assert torch.allclose(copies[..., 0], copies[..., 1])


def test_bad_input():
    p, y, w = sample()
    with pytest.raises(FieldError, match="nothing was added"):
        Shrinkage(w).solve()
    with pytest.raises(FieldError, match="do not fit"):
        Shrinkage(w).add(p, y[..., :1])
    p[0, 0, 0, 0, 0] = torch.inf
    with pytest.raises(FieldError, match="not finite"):
        Shrinkage(w).add(p, y).solve()
