"""Laws with few numbers: positive, guarded, and with the derivatives that they say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.hard_law import RELAXATION, MaterialLaw, SourceLaw, positive_tensor, symmetric_basis

NUMBERS = st.lists(st.floats(-3, 3), min_size=9, max_size=9)


@given(NUMBERS)
def test_a_tensor_is_positive_and_has_its_derivatives(numbers: list[float]) -> None:
    s, basis = torch.tensor(numbers[:6], dtype=torch.float64), symmetric_basis(False)
    A, slopes = positive_tensor(s, basis)
    assert torch.linalg.eigvalsh((A + A.mT) / 2).min() > 0
    torch.testing.assert_close(A, A.mT, rtol=1e-9, atol=1e-12)
    exact = torch.func.jacrev(lambda s: torch.linalg.matrix_exp((s[:, None, None] * basis).sum(0)))(s).permute(2, 0, 1)
    torch.testing.assert_close(slopes, exact, rtol=1e-8, atol=1e-8 * float(A.norm()))


def test_the_basis_is_orthonormal_and_begins_with_the_identity() -> None:
    basis = symmetric_basis(False).reshape(6, 9)
    torch.testing.assert_close(basis @ basis.T, torch.eye(6, dtype=torch.float64))
    A, _ = positive_tensor(torch.tensor([3**0.5 * 0.7], dtype=torch.float64), symmetric_basis(True))
    torch.testing.assert_close(A, torch.tensor(0.7, dtype=torch.float64).exp() * torch.eye(3, dtype=torch.float64))


@given(NUMBERS)
def test_the_material_law_is_positive_and_has_its_derivatives(numbers: list[float]) -> None:
    law, m = MaterialLaw(6), torch.linspace(0, 1, 23, dtype=torch.float64)
    gamma = torch.tensor(numbers, dtype=torch.float64)
    g, slopes = law(m, gamma)
    assert (g > 0).all()
    # B-splines add up to one.
    torch.testing.assert_close(law.basis(m).sum(1), torch.ones(23, dtype=torch.float64))
    for k in range(law.size):
        e = torch.zeros_like(gamma)
        e[k] = 1e-6
        difference = (law(m, gamma + e)[0] - law(m, gamma - e)[0]) / 2e-6
        torch.testing.assert_close(slopes[:, k], difference, rtol=1e-7, atol=1e-7 * float(g.max()))


def test_no_material_is_one() -> None:
    g, slopes = MaterialLaw(0)(torch.rand(5, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    assert torch.equal(g, torch.ones(5, dtype=torch.float64))
    assert slopes.shape == (5, 0)


@pytest.mark.parametrize("degree", [0, 1, 3, 5])
def test_a_source_has_its_derivatives_and_pulls_back(degree: int) -> None:
    law, c = (
        SourceLaw(degree, -0.2, 1.3),
        torch.randn(degree + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    u = torch.tensor([-3.0, -0.5, -0.1, 0.4, 1.2, 1.9, 8.0], dtype=torch.float64, requires_grad=True)
    f, slope, by_c = law(u, c)
    (exact,) = torch.autograd.grad(f.sum(), u)
    torch.testing.assert_close(slope.detach(), exact)
    torch.testing.assert_close((by_c @ c - RELAXATION * (u - u.clamp(-0.2, 1.3))).detach(), f.detach())
    # Far outside it always points back.
    far = torch.tensor([-1e6, 1e6], dtype=torch.float64)
    assert (law(far, c)[0] * far < 0).all()


def test_a_source_is_numpys_chebyshev_series() -> None:
    from numpy.polynomial.chebyshev import chebval

    law, c = SourceLaw(5, -1.0, 2.0), torch.arange(1.0, 7.0, dtype=torch.float64)
    u = torch.linspace(-1, 2, 31, dtype=torch.float64)
    torch.testing.assert_close(law(u, c)[0], torch.from_numpy(chebval((2 * u.numpy() - 1) / 3, c.numpy())))


def test_no_source_has_no_unknowns() -> None:
    f, slope, by_c = SourceLaw(-1)(torch.tensor([-5.0, 0.5, 9.0]), torch.zeros(0))
    assert not f.any()
    assert not slope.any()
    assert by_c.shape == (3, 0)
