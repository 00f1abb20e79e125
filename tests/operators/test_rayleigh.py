"""The Rayleigh quotient measures roughness: scale-free, between 0 and λ_max, undefined for zero."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import (
    FieldError,
    adjacency_of,
    combinatorial_laplacian,
    dirichlet_energy,
    icosphere,
    mass_weighted_norm,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
)

U = roundoff(torch.float64)
LAPLACIANS = st.one_of(
    graphs().map(combinatorial_laplacian), graphs().map(symmetric_laplacian), meshes().map(robust_laplacian)
)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def nonzero(data, L, dtype, **options):
    x = data.draw(fields(L.shape[0], 2, dtype=dtype, **options))
    return x if bool((x != 0).any()) else torch.ones_like(x)


@dtypes
@given(data=st.data())
def test_quotient_is_between_zero_and_the_norm_bound(dtype, data):
    L = data.draw(LAPLACIANS)
    quotient = rayleigh_quotient(L, nonzero(data, L, dtype))
    slack = 32 * L.shape[0] * U * L.norm_bound()
    assert quotient.dtype == torch.float64
    assert -slack <= quotient <= L.norm_bound() + slack


@dtypes
@given(data=st.data(), power=st.integers(-60, 60))
def test_quotient_ignores_the_scale_of_the_field_bitwise_for_powers_of_two(dtype, data, power):
    L = data.draw(LAPLACIANS)
    x = nonzero(data, L, dtype)
    assert torch.equal(rayleigh_quotient(L, x * 2.0**power), rayleigh_quotient(L, x))
    assert_within(rayleigh_quotient(L, -3 * x), rayleigh_quotient(L, x), 64 * L.shape[0] * U * L.norm_bound())


@pytest.mark.parametrize("scale", [1e-250, 1e-150, 1e150, 1e250])
def test_quotient_of_a_huge_or_tiny_field_neither_overflows_nor_vanishes(scale):
    L = robust_laplacian(icosphere(1))
    x = torch.randn(3, 42, 2, dtype=torch.float64)
    torch.testing.assert_close(rayleigh_quotient(L, scale * x), rayleigh_quotient(L, x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("build", [robust_laplacian, lambda mesh: robust_laplacian(mesh).symmetrized()])
def test_quotient_of_an_eigenvector_is_its_eigenvalue(build):
    L = build(icosphere(1))
    root = L.mass.sqrt()
    values, vectors = torch.linalg.eigh(L.symmetrized().matrix())
    quotients = rayleigh_quotient(L, (vectors / root[:, None]).T[..., None])
    assert_within(quotients, values, 64 * len(values) * U * float(values[-1]))


@given(data=st.data())
def test_energy_is_half_the_weighted_squared_differences(data):
    L = data.draw(graphs().map(combinatorial_laplacian))
    x = data.draw(fields(L.shape[0], 2, batch=(2,)))
    W = adjacency_of(L).matrix()
    difference = (x[:, :, None] - x[:, None]).square().sum(-1)
    size = x.square().sum(-1)
    magnitude = (W * (size[:, :, None] + size[:, None])).sum((-1, -2))
    assert_within(dirichlet_energy(L, x), (W * difference).sum((-1, -2)) / 4, 32 * U * magnitude)


@dtypes
@given(data=st.data())
def test_norm_is_that_of_the_inner_product(dtype, data):
    L = data.draw(LAPLACIANS)
    x = data.draw(fields(L.shape[0], 2, dtype=dtype))
    norm = mass_weighted_norm(L.mass, x)
    assert_within(norm**2, L.inner(x, x).real, 32 * L.shape[0] * U * norm**2)


@dtypes
def test_derivatives_of_both_orders(dtype):
    L = robust_laplacian(icosphere(0))
    x = torch.randn(2, 12, 1, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rayleigh_quotient(L, x), x)
    assert torch.autograd.gradgradcheck(lambda x: rayleigh_quotient(L, x), x)
    assert torch.autograd.gradcheck(lambda x: dirichlet_energy(L, x), x)


@pytest.mark.parametrize(
    "x", [torch.zeros(12, 1), torch.zeros(12, 0), torch.stack([torch.ones(12, 1), torch.zeros(12, 1)])]
)
def test_a_zero_field_is_refused(x):
    with pytest.raises(FieldError, match=r"zero field is undefined \(0/0\): mask the field"):
        rayleigh_quotient(robust_laplacian(icosphere(0)), x.double())


def test_nan_stays_nan_and_an_empty_batch_empty():
    L = robust_laplacian(icosphere(0))
    assert rayleigh_quotient(L, torch.full((12, 1), torch.nan, dtype=torch.float64)).isnan()
    assert rayleigh_quotient(L, torch.zeros(0, 12, 1, dtype=torch.float64)).shape == (0,)


@pytest.mark.parametrize("measure", [dirichlet_energy, rayleigh_quotient])
def test_fields_that_do_not_fit_are_refused(measure):
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        measure(robust_laplacian(icosphere(0)), torch.ones(11, 1, dtype=torch.float64))
