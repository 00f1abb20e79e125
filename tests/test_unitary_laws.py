"""What strictly unitary flows owe to their theory: a thousand steps on any mesh, and what no norm-preserving model can do."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.heat_data import published_operator
from neuralpde.metrics import PublishedRayleigh
from neuralpde.testing import meshes
from neuralpde.uni_graph import RUniGraph
from neuralpde.uni_mesh import RUniMesh, robust_adjacency
from neuralpde.unitary import UnitaryFlow
from operators import (
    Laplacian,
    TriangleMesh,
    adjacency_of,
    bumpy,
    exponential,
    icosphere,
    load_mesh,
    normalized_laplacian,
    pad_channels,
    rayleigh_quotient,
    robust_laplacian,
    torus,
)
from operators.group_sort import GroupSort
from operators.lie_unitary import LieUnitary

DATA = os.environ.get("NEURALPDE_DATA")
FILES = sorted((Path(DATA) / "meshes").glob("*.ply")) if DATA else []
# It names a face twice, which is refused unrepaired.
REPAIRED = ("suzanne",)
# Edges of three faces, seams and boundaries; slivers; components.
HARD = ("beetle", "airplane", "bunny_coarse", "ant", "suzanne")
GENERATED = {"sphere": icosphere(3), "bumpy": bumpy(icosphere(3), 0.3, seed=1), "torus": torus(30, 12)}
STEPS = 1000
# ‖A‖‖W‖ of a step: a thousand of them turn the fastest mode by three full circles.
ANGLE = 0.02
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
REAL = [pytest.param(path, id=path.stem) for path in FILES] or [
    pytest.param(None, marks=pytest.mark.skip(reason="no meshes: set NEURALPDE_DATA to the data folder"))
]


def loaded(path: Path) -> TriangleMesh:
    return load_mesh(path, clean=path.stem in REPAIRED)


def drift(flow: UnitaryFlow, seed: int = 0) -> tuple[float, float]:
    """The relative change of norm and Rayleigh quotient after STEPS exact steps, measured in float64."""
    part, laplacian = flow.linear, flow.laplacian
    x = torch.randn(laplacian.shape[0], 2, dtype=laplacian.dtype, generator=torch.Generator().manual_seed(seed))
    h = ANGLE / part.norm_bound()

    def measured(x: torch.Tensor) -> tuple[float, float]:
        wide = x.double()
        return float(wide.norm()), float(rayleigh_quotient(laplacian.to_wide(wide), wide))

    before = measured(x)
    with torch.no_grad():
        start = x
        for _ in range(STEPS):
            x = part.exponential(h, x)
    # It must have gone somewhere: by little where one sliver is much faster than all the rest.
    assert float((x - start).norm()) > 0.01 * float(start.norm())
    return tuple(abs(new / old - 1) for new, old in zip(measured(x), before, strict=True))


def strict_flow(laplacian: Laplacian, *, adjacency: bool) -> UnitaryFlow:
    torch.manual_seed(0)
    return UnitaryFlow(laplacian, 2, adjacency=adjacency, scale=1.0)


def keeps_both(flow: UnitaryFlow) -> None:
    norm, quotient = drift(flow)
    bound = TOLERANCE[flow.laplacian.dtype]
    assert norm < bound
    assert quotient < bound


@pytest.mark.filterwarnings("ignore::operators.domains.DomainWarning")
@DTYPES
@pytest.mark.parametrize("path", REAL)
def test_a_thousand_strict_steps_keep_norm_and_rayleigh_quotient_on_every_real_mesh(path, dtype):
    laplacian = normalized_laplacian(robust_laplacian(loaded(path).to(dtype)))
    keeps_both(strict_flow(laplacian, adjacency=True))


@pytest.mark.filterwarnings("ignore::operators.domains.DomainWarning")
@DTYPES
@pytest.mark.parametrize("path", [p for p in REAL if p.values[0] is None or p.values[0].stem in HARD])
def test_a_thousand_strict_steps_of_the_published_operator_keep_both(path, dtype):
    # Its units are those of the mesh file, 1/length²: the time of a step is scaled, not the operator.
    keeps_both(strict_flow(published_operator(loaded(path).to(dtype)), adjacency=False))


@DTYPES
@pytest.mark.parametrize("name", GENERATED)
def test_a_thousand_strict_steps_keep_both_on_generated_surfaces(name, dtype):
    mesh = GENERATED[name].to(dtype)
    keeps_both(strict_flow(normalized_laplacian(robust_laplacian(mesh)), adjacency=True))
    keeps_both(strict_flow(robust_laplacian(mesh).symmetrized(), adjacency=False))


@DTYPES
def test_stacked_exact_layers_keep_both_and_truncated_ones_drift_by_their_bound(dtype):
    mesh = GENERATED["bumpy"].to(dtype)
    laplacian = normalized_laplacian(robust_laplacian(mesh))
    torch.manual_seed(0)
    x = torch.randn(mesh.num_nodes, 4, dtype=dtype)

    def change(order):
        layer = LieUnitary(laplacian.complement(), 4, order=order, scale=0.3)
        y = x
        with torch.no_grad():
            for _ in range(20):
                y = layer(y)
        quotient = abs(float(rayleigh_quotient(laplacian, y) - rayleigh_quotient(laplacian, x)))
        return abs(float(y.norm() / x.norm()) - 1), quotient, layer.remainder_bound()

    exact = change(None)
    assert max(exact[:2]) < 20 * 64 * torch.finfo(dtype).eps
    norm, quotient, remainder = change(1)
    assert 1e-3 < norm < (1 + remainder) ** 20 - 1
    assert quotient > 1e-3


@given(meshes(), st.integers(2, 5), st.integers(0, 2**31))
def test_padding_with_zero_channels_keeps_norm_and_mesh_rayleigh_quotient(mesh, width, seed):
    laplacian = normalized_laplacian(robust_laplacian(mesh))
    x = torch.randn(mesh.num_nodes, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    padded = pad_channels(x, width)
    torch.testing.assert_close(padded.norm(), x.norm(), rtol=4e-16, atol=0)
    torch.testing.assert_close(rayleigh_quotient(laplacian, padded), rayleigh_quotient(laplacian, x), rtol=1e-14, atol=1e-15)


@given(meshes(slivers=False), st.integers(0, 2**31))
def test_the_papers_mesh_rayleigh_quotient_is_that_of_the_normalised_robust_laplacian(mesh, seed):
    robust = robust_laplacian(mesh)
    x = torch.randn(mesh.num_nodes, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    quotient = rayleigh_quotient(normalized_laplacian(robust), x)
    # The published metric raises sums of weights below one to one; elsewhere the two are the same number.
    if float(adjacency_of(robust).row_sums().min()) >= 1:
        torch.testing.assert_close(PublishedRayleigh(robust)(x), quotient, rtol=1e-12, atol=1e-12)
    # A bipartite component reaches 2, a constant on each component 0 after D^½.
    assert -1e-12 < float(quotient) < 2 + 1e-12


@given(st.integers(0, 2**31))
def test_no_strict_model_comes_closer_to_heat_than_the_norm_that_heat_loses(seed):
    mesh = GENERATED["torus"]
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(mesh.num_nodes, 2, dtype=torch.float64, generator=random)
    laplacian = normalized_laplacian(robust_laplacian(mesh))
    smoothed = exponential(laplacian, 0.5) @ x
    torch.manual_seed(seed)
    model = RUniGraph(laplacian.complement(), 4, 3, order=None, activation=GroupSort)
    with torch.no_grad():
        error = (model(x) - pad_channels(smoothed, 4)).norm()
    assert float(error) >= (float(x.norm()) - float(smoothed.norm())) * (1 - 1e-12)


@given(st.floats(0.05, 0.9), st.integers(0, 2**31))
def test_a_norm_that_depends_on_the_angle_costs_a_norm_preserving_model_at_least_its_variance_over_the_orbit(depth, seed):
    # Theorem 1 with the rotations of two channels for group: f(x R_φ) has the norm (1 + a cos φ)‖x‖, variance a²‖x‖²/2.
    mesh = GENERATED["sphere"]
    x = torch.randn(mesh.num_nodes, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    angles = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
    c, s = angles.cos()[:, None, None], angles.sin()[:, None, None]
    turned = x @ torch.cat([torch.cat([c, -s], dim=2), torch.cat([s, c], dim=2)], dim=1)
    target = (1 + depth * c) * turned
    bound = float(target.flatten(1).norm(dim=1).var(correction=0))
    torch.testing.assert_close(bound, depth**2 / 2 * float(x.square().sum()), rtol=1e-10, atol=0)
    torch.manual_seed(seed)
    model = RUniGraph(normalized_laplacian(robust_laplacian(mesh)).complement(), 2, 2, order=None, activation=GroupSort)

    def mean_error(y):
        return float((y - target).square().sum(dim=(1, 2)).mean())

    with torch.no_grad():
        assert mean_error(model(turned)) >= bound * (1 - 1e-10)
    # The best that keeps the norm attains it, and what may change the norm is free of it.
    torch.testing.assert_close(mean_error(turned), bound, rtol=1e-10, atol=0)
    assert mean_error(target) == 0


def test_group_sort_keeps_the_norm_of_the_encoder_and_not_its_rayleigh_quotient():
    mesh = GENERATED["bumpy"]
    laplacian = normalized_laplacian(robust_laplacian(mesh))
    torch.manual_seed(0)
    model = RUniMesh(robust_adjacency(mesh), 8, 2, order=None)
    x = torch.randn(mesh.num_nodes, 5, dtype=torch.float64)
    with torch.no_grad():
        inside = model.encoded(x)
    torch.testing.assert_close(inside.norm(), x.norm(), rtol=1e-12, atol=0)
    assert abs(float(rayleigh_quotient(laplacian, inside) - rayleigh_quotient(laplacian, x))) > 1e-3
