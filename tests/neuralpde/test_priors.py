"""Smoothness priors, and rules for their weight, against dense linear algebra."""

import pytest
import torch

from neuralpde.priors import CrossValidation, Curve, Discrepancy, LCurve, Smooth, WeightChoice
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))


@pytest.mark.parametrize("order", [1, 2])
def test_metric_and_inverse(order: int) -> None:
    prior = Smooth(L, order, length=0.3)
    one = torch.eye(42, dtype=torch.float64) + 0.09 * L.matrix()
    dense = torch.diag(L.mass) @ torch.linalg.matrix_power(one, order)
    x = torch.randn(42, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(prior.metric(x), dense @ x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(prior.inverse(prior.metric(x)), x, rtol=1e-10, atol=1e-10)
    assert float((dense - dense.T).abs().max()) < 1e-12
    # H¹: mass plus ℓ² times twice the Dirichlet energy.
    if order == 1:
        energy = (x * (L.stiffness @ x)).sum()
        torch.testing.assert_close((x * prior.metric(x)).sum(), (L.mass[:, None] * x * x).sum() + 0.09 * energy)


def decaying(noise: float) -> tuple[Curve, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An ill-posed problem A z = b with singular values 10^(−k/4), in the plain norm."""
    generator = torch.Generator().manual_seed(1)
    n = 40
    U = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    sigma = 10 ** (-torch.arange(n, dtype=torch.float64) / 4)
    A = U * sigma
    truth = 1 / (1 + torch.arange(n, dtype=torch.float64)) ** 2
    b = (A @ truth + noise * torch.randn(n, generator=generator, dtype=torch.float64)) / noise
    A = A / noise
    return Curve((sigma / noise) ** 2, A.T @ b, float(b @ b), n), A, b, truth


def test_the_curve_is_that_of_dense_solutions() -> None:
    curve, A, b, _ = decaying(1e-3)
    for weight in (1e-2, 1.0, 1e3):
        z = torch.linalg.solve(A.T @ A + weight * torch.eye(40, dtype=torch.float64), A.T @ b)
        assert curve.misfit(weight) == pytest.approx(float((A @ z - b).square().sum()), rel=1e-8)
        assert curve.penalty(weight) == pytest.approx(float(z @ z), rel=1e-10)
        hat = A @ torch.linalg.solve(A.T @ A + weight * torch.eye(40, dtype=torch.float64), A.T)
        assert curve.freedom(weight) == pytest.approx(float(hat.trace()), rel=1e-10)


@pytest.mark.parametrize(("rule", "factor"), [(Discrepancy(), 2), (CrossValidation(), 3), (LCurve(), 8)])
def test_rules_find_a_good_weight(rule: WeightChoice, factor: float) -> None:
    curve, A, b, truth = decaying(1e-3)

    def error(weight: float) -> float:
        z = torch.linalg.solve(A.T @ A + weight * torch.eye(40, dtype=torch.float64), A.T @ b)
        return float((z - truth).norm() / truth.norm())

    best = min(error(w) for w in curve.weights())
    assert error(rule.choose(curve)) < factor * best
    assert error(curve.weights()[0]) > 30 * best


def test_discrepancy_meets_the_noise() -> None:
    curve = decaying(1e-3)[0]
    assert curve.misfit(Discrepancy().choose(curve)) == pytest.approx(40, rel=1e-6)
    assert Discrepancy(1.5).choose(curve) > Discrepancy().choose(curve)
    # A model that cannot reach the noise still gets a finite weight.
    wrong = Curve(curve.values, curve.coefficients, curve.total + 1e4, curve.count)
    assert Discrepancy().choose(wrong) == CrossValidation().choose(wrong)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="order"):
        Smooth(L, 0)
    with pytest.raises(ValueError, match="length"):
        Smooth(L, 1, -1.0)
    with pytest.raises(ValueError, match="weight"):
        Smooth(L, 1, 1.0, 0.0)
    with pytest.raises(ValueError, match="factor"):
        Discrepancy(0.0)
    with pytest.raises(ValueError, match="caution"):
        CrossValidation(0.5)
