"""Signatures agree with their definitions, and forget rotation, numbering, sign and (up to their law) scale."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, meshes
from operators.checks import DomainError
from operators.connection import connection_laplacian
from operators.domains import TriangleMesh
from operators.shapes import bumpy, icosphere, torus
from operators.signatures import heat_kernel_signature, wave_kernel_signature
from operators.spectrum import Eigenpairs, eigenpairs
from operators.surface import cotangent_laplacian, robust_laplacian

# Bumps make every eigenvalue simple, so that no multiplet is cut.
MESH = bumpy(icosphere(2))
PAIRS = eigenpairs(robust_laplacian(MESH), 40)
signatures = pytest.mark.parametrize("signature", [heat_kernel_signature, wave_kernel_signature])


def close(a, b, tolerance=1e-8):
    """To the accuracy of eigenvectors, round-off over the smallest gap: 1e-15 · λ̂ / gap = 1e-10 here."""
    assert_within(a, b, tolerance * float(b.abs().max()))


def test_heat_signature_is_the_diagonal_of_the_heat_kernel():
    L = robust_laplacian(MESH)
    everything = eigenpairs(L, MESH.num_nodes)
    times = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    h = heat_kernel_signature(everything, times)
    for t, column in zip(times, h.T, strict=True):
        close(column, torch.linalg.matrix_exp(-t * L.matrix()).diagonal() / L.mass)


def test_heat_signature_integrates_to_the_trace():
    h = heat_kernel_signature(PAIRS)
    assert h.shape == (MESH.num_nodes, 100)
    w = PAIRS.values
    times = torch.linspace(math.log(4 * math.log(10) / w[-1]), math.log(4 * math.log(10) / w[1]), 100, dtype=torch.float64).exp()
    mass = robust_laplacian(MESH).mass
    close((mass[:, None] * h).sum(0), torch.exp(-w[:, None] * times).sum(0))
    assert (h.diff(dim=1) <= 0).all()


def test_wave_signature_is_its_definition_and_integrates_to_one():
    energies = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    w = wave_kernel_signature(PAIRS, energies, 0.3)
    gauss = torch.exp(-((energies - PAIRS.values[1:, None].log()) ** 2) / (2 * 0.3**2))
    close(w, (PAIRS.vectors[:, 1:] ** 2) @ gauss / gauss.sum(0))
    close((robust_laplacian(MESH).mass[:, None] * wave_kernel_signature(PAIRS)).sum(0), torch.ones(100, dtype=torch.float64))


def test_default_energies_are_those_of_the_paper():
    """e runs from ln λ_1 + 2σ to ln λ_max − 2σ in 99 steps of δ, and σ = 7δ."""
    low, high = float(PAIRS.values[1].log()), float(PAIRS.values[-1].log())
    step = (high - low) / (99 + 4 * 7)
    energies = torch.linspace(low + 14 * step, high - 14 * step, 100, dtype=torch.float64)
    close(wave_kernel_signature(PAIRS), wave_kernel_signature(PAIRS, energies, 7 * step))


def test_the_default_width_is_seven_times_the_least_spacing_of_the_energies():
    energies = torch.tensor([0.5, 1.0, 0.8], dtype=torch.float64)
    close(wave_kernel_signature(PAIRS, energies), wave_kernel_signature(PAIRS, energies, 7 * 0.2))


def test_a_width_of_ones_own_leaves_the_energies_of_the_paper():
    low, high = float(PAIRS.values[1].log()), float(PAIRS.values[-1].log())
    step = (high - low) / (99 + 4 * 7)
    energies = torch.linspace(low + 14 * step, high - 14 * step, 100, dtype=torch.float64)
    close(wave_kernel_signature(PAIRS, width=0.3), wave_kernel_signature(PAIRS, energies, 0.3))


def test_wave_signature_is_finite_where_every_gaussian_underflows():
    far = wave_kernel_signature(PAIRS, torch.tensor([-1e4, 1e4], dtype=torch.float64), 0.01)
    close(far, PAIRS.vectors[:, [1, -1]] ** 2)


@signatures
def test_rotation_and_translation_change_nothing(signature):
    Q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = TriangleMesh(MESH.vertices @ Q.T + 5, MESH.faces)
    close(signature(eigenpairs(robust_laplacian(moved), 40)), signature(PAIRS))


@signatures
def test_renaming_the_nodes_renames_the_signature(signature):
    order = torch.randperm(MESH.num_nodes)
    rank = torch.argsort(order)
    renamed = TriangleMesh(MESH.vertices[order], rank[MESH.faces])
    close(signature(eigenpairs(robust_laplacian(renamed), 40)), signature(PAIRS)[order])


@signatures
@pytest.mark.parametrize("s", [0.25, 3.0, 1e6])
def test_scaling_by_s_divides_by_its_square(signature, s):
    grown = TriangleMesh(MESH.vertices * s, MESH.faces)
    close(signature(eigenpairs(robust_laplacian(grown), 40)) * s**2, signature(PAIRS))


@signatures
def test_sign_of_an_eigenvector_does_not_matter(signature):
    flip = torch.where(torch.randn(40) > 0, 1.0, -1.0).double()
    assert torch.equal(signature(Eigenpairs(PAIRS.values, PAIRS.vectors * flip, PAIRS.weighted * flip)), signature(PAIRS))


@signatures
def test_whole_multiplets_make_the_sphere_look_alike_everywhere_up_to_its_facets(signature):
    pairs = eigenpairs(cotangent_laplacian(icosphere(4)), 25)
    value = signature(pairs)
    # The icosahedron has twelve corners: 3 % at 2562 vertices.
    assert_within(value, value.mean(0).expand_as(value), 0.03 * value.mean(0).expand_as(value))


@settings(max_examples=15)
@given(data=st.data())
def test_finite_and_positive_on_any_mesh_or_refused(data):
    L = robust_laplacian(data.draw(meshes(slivers=False)))
    pairs = eigenpairs(L, L.shape[0])
    for signature in (heat_kernel_signature, wave_kernel_signature):
        try:
            value = signature(pairs)
        except DomainError as error:
            assert "ask for more" in str(error) or "ask eigenpairs for more" in str(error)  # noqa: PT017
        else:
            assert torch.isfinite(value).all()
            assert (value >= 0).all()


@signatures
def test_complex_eigenvectors_and_float32(signature):
    value = signature(eigenpairs(connection_laplacian(torus(12, 8)), 12))
    assert value.dtype == torch.float64
    assert (value >= 0).all()
    narrow = signature(PAIRS.to(torch.float32))
    assert narrow.dtype == torch.float32
    close(narrow.double(), signature(PAIRS), 1e-4)


def test_every_real_mesh_has_finite_signatures(real_mesh):
    pairs = eigenpairs(robust_laplacian(real_mesh), 30)
    for signature in (heat_kernel_signature, wave_kernel_signature):
        value = signature(pairs)
        assert value.shape == (real_mesh.num_nodes, 100)
        assert torch.isfinite(value).all()
        assert (value >= 0).all()


@pytest.mark.parametrize("times", [[0.0], [-1.0], [math.nan], [[1.0]], []])
def test_bad_times_are_refused(times):
    samples = torch.tensor(times, dtype=torch.float64)
    if samples.numel() == 0:
        assert heat_kernel_signature(PAIRS, samples).shape == (MESH.num_nodes, 0)
        return
    with pytest.raises(DomainError, match="times must be"):
        heat_kernel_signature(PAIRS, samples)


def test_other_refusals_name_the_cure():
    few = Eigenpairs(PAIRS.values[:1] * 0, PAIRS.vectors[:, :1], PAIRS.weighted[:, :1])
    for signature in (heat_kernel_signature, wave_kernel_signature):
        with pytest.raises(DomainError, match="ask eigenpairs for more"):
            signature(few)
    with pytest.raises(DomainError, match=r"of torch\.float64"):
        heat_kernel_signature(PAIRS, torch.ones(3))
    with pytest.raises(DomainError, match="width must be positive"):
        wave_kernel_signature(PAIRS, torch.ones(1, dtype=torch.float64))
    with pytest.raises(DomainError, match="width must be positive"):
        wave_kernel_signature(PAIRS, torch.ones(2, dtype=torch.float64), -1.0)
