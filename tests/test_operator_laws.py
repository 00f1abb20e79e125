"""The laws O1 to O18 of every operator, on drawn graphs and surfaces and on every real mesh.

One definition of a law serves both: `LAWS` names it, the domains it holds on, and the function that asserts it. Tolerances are
C·u·(the magnitudes that were accumulated)·(what the geometry amplifies), with C = 8 for one application and 32 for compositions;
`aspect` (size over the least height of a triangle) is what a triangle makes of the rounding of its corners.
Closed-form spectra (O15) stand in tests/operators/test_spectrum.py, except for the bounds here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    DomainWarning,
    FieldError,
    Graph,
    Laplacian,
    SparseOperator,
    TriangleMesh,
    adjacency_of,
    combinatorial_laplacian,
    cotangent_laplacian,
    dirichlet_energy,
    icosphere,
    modulated_gradient,
    modulated_laplacian,
    random_walk_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
)
from operators.delaunay import intrinsic_delaunay_laplacian
from operators.differential import edge_gradient, face_gradient, vertex_gradient
from operators.diffusion import diffusion_laplacian
from operators.magnetic import magnetic_laplacian
from operators.report import corner_angles, report_mesh
from operators.signed import signed_laplacian
from operators.spectrum import eigenpairs
from operators.topology import boundary_vertices

U = roundoff(torch.float64)


def unit_diffusion(mesh):
    """Diffusion with D = 1 through gradients of faces: the cotangent Laplacian by another road."""
    return diffusion_laplacian(mesh, torch.ones(len(mesh.faces), dtype=mesh.vertices.dtype, device=mesh.vertices.device))


GRAPH_KINDS = [combinatorial_laplacian, random_walk_laplacian, symmetric_laplacian, signed_laplacian, magnetic_laplacian]
MESH_KINDS = [cotangent_laplacian, robust_laplacian, intrinsic_delaunay_laplacian, unit_diffusion]
# Weights that are never negative, by construction.
M_MATRICES = {combinatorial_laplacian, random_walk_laplacian, symmetric_laplacian, robust_laplacian}
NO_CONSTANTS = {symmetric_laplacian, signed_laplacian, magnetic_laplacian}


@dataclass
class Case:
    """A domain, the Laplacian built on it, two fields, and a source of further choices."""

    build: Callable
    domain: Graph | TriangleMesh
    x: torch.Tensor
    y: torch.Tensor
    random: np.random.Generator

    @cached_property
    def L(self):
        return self.build(self.domain)

    @cached_property
    def C(self):
        return self.L.stiffness.to_scipy()

    @cached_property
    def size(self):
        """|C|."""
        return abs(self.C)

    @cached_property
    def amplified(self):
        return 1.0 if isinstance(self.domain, Graph) else max(1.0, aspect(self.domain))

    @cached_property
    def report(self):
        return report_mesh(*self.domain.arrays)

    @cached_property
    def components(self):
        return sp.csgraph.connected_components(self.C != 0, directed=False)[1]

    def accumulated(self, *factors):
        """|a|ᵀ |C| |b|."""
        a, b = (np.abs(np.asarray(f)) for f in factors)
        return float((a * (self.size @ b)).sum())

    def rebuilt(self, domain):
        return self.build(domain)


def moved(case, points):
    return case.rebuilt(TriangleMesh(torch.as_tensor(points), case.domain.faces))


def same_operator(one, other, bound):
    """The stiffness of both is the same within an entrywise bound; patterns may differ where a weight rounds to zero."""
    difference = abs(one.stiffness.to_scipy() - other.stiffness.to_scipy())
    assert difference.max() <= bound if difference.nnz else True


def o1_symmetric_to_the_last_bit(case):
    assert (case.C != case.C.conj().T).nnz == 0


def o2_constants_of_each_component_are_the_kernel(case):
    if case.build in NO_CONSTANTS:
        return
    labels = case.components
    degree = np.diff(case.C.indptr).max(initial=1)
    for label in range(min(labels.max() + 1, 20)):
        ones = torch.from_numpy((labels == label).astype(np.float64))[:, None]
        rows = torch.from_numpy(case.size @ ones.numpy()) / case.L.mass[:, None]
        # One rounding more than the sum of the row: the division by the mass.
        assert_within(case.L @ ones, 0.0, (3 + math.log2(degree)) * U * rows)


def o3_positive_semidefinite(case):
    # Negative weights of flat triangles cancel in the sum.
    slack = 32 * case.amplified if case.build in (cotangent_laplacian, unit_diffusion) else 8.0
    for x in (case.x, case.y):
        energy = float(case.L.inner(x, case.L @ x).real.sum())
        assert energy >= -slack * U * case.accumulated(x, x)


def o4_energy_is_the_sum_of_squared_differences(case):
    if case.build in NO_CONSTANTS:
        return
    coo = sp.coo_array(sp.triu(case.C, k=1))
    for x in (case.x, case.x * 1e-8 + 1.0):
        wide = x.numpy().astype(np.longdouble)
        terms = -coo.data.astype(np.longdouble)[:, None] * (wide[coo.coords[0]] - wide[coo.coords[1]]) ** 2
        # Relative to the terms, not to |x|ᵀ|L||x|: a constant cancels before it is squared.
        bound = 32 * U * float(np.abs(terms).sum())
        assert_within(dirichlet_energy(case.L, x), float(terms.sum()) / 2, bound)


def o5_o6_divergence_is_the_adjoint_and_closes_to_the_laplacian(case):
    if case.build in NO_CONSTANTS:
        return
    gradients = [(edge_gradient(case.L), case.L)]
    if case.build is cotangent_laplacian:
        gradients.append((face_gradient(case.domain), case.L))
        gradients.append((vertex_gradient(case.domain), None))
    for gradient, laplacian in gradients:
        divergence = gradient.divergence()
        f = torch.complex(case.x[:, :1], case.y[:, :1])
        real, imaginary = case.random.normal(size=(2, gradient.shape[0], 1))
        v = torch.from_numpy(real + 1j * imaginary)
        slope = gradient @ f
        through = abs(gradient.stencil.to_scipy()) @ f.abs().numpy()
        magnitude = float((gradient.weight.abs()[:, None] * v.abs() * torch.from_numpy(through)).sum())
        duality = divergence.inner(f, divergence @ v)
        assert_within(gradient.inner(slope, v), -duality, 4 * math.sqrt(gradient.shape[0] + 1) * U * magnitude)
        if laplacian is not None:
            rows = abs(gradient.stencil.to_scipy()).T @ (gradient.weight.abs().numpy()[:, None] * through)
            bound = 32 * U * case.amplified * torch.from_numpy(rows) / laplacian.mass[:, None]
            assert_within(divergence @ slope, -(laplacian @ f), bound)


def o7_renaming_the_nodes_renames_the_operator(case):
    n = case.domain.num_nodes
    order = torch.from_numpy(case.random.permutation(n))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n)
    if isinstance(case.domain, Graph):
        edges = torch.from_numpy(case.random.permutation(case.domain.edge_index.shape[1]))
        renamed = Graph(rank[case.domain.edge_index][:, edges], n, case.domain.edge_weight[edges])
    else:
        faces = torch.from_numpy(case.random.permutation(len(case.domain.faces)))
        renamed = TriangleMesh(case.domain.vertices[order], rank[case.domain.faces][faces])
    there = case.rebuilt(renamed)
    expected = case.C[order.numpy()][:, order.numpy()]
    bound = np.abs(there.stiffness.to_scipy() - expected).max() if n else 0.0
    assert bound <= 64 * U * case.amplified * case.size.max(), bound
    assert_within(there.mass, case.L.mass[order], 64 * U * case.amplified * case.L.mass[order])


def o8_rotation_and_translation_change_nothing(case):
    points = case.domain.arrays[0]
    turn, _ = np.linalg.qr(case.random.normal(size=(3, 3)))
    size = np.abs(points).max()
    bound = 128 * U * case.amplified * case.size.max()
    for there in (points @ turn.T, points + size * case.random.normal(size=3)):
        other = moved(case, there)
        same_operator(other, case.L, 4 * bound)
        assert_within(other.mass, case.L.mass, 512 * U * case.amplified * case.L.mass.max())


def o9_scaling_keeps_the_stiffness_and_squares_the_mass(case):
    power = int(case.random.integers(-20, 20))
    twice = moved(case, case.domain.arrays[0] * 2.0**power)
    assert (twice.stiffness.to_scipy() != case.C).nnz == 0
    assert torch.equal(twice.mass, case.L.mass * 4.0**power)
    scaled = moved(case, case.domain.arrays[0] * 3.7e5)
    same_operator(scaled, case.L, 128 * U * case.amplified * case.size.max())
    assert_within(scaled.mass, case.L.mass * 3.7e5**2, 128 * U * case.amplified * 3.7e5**2 * case.L.mass.max())
    for factor in (1e150, 1e-150):
        with pytest.raises(DomainError, match="unit of length"):
            moved(case, case.domain.arrays[0] * factor)


def o10_weights_are_not_negative_where_promised(case):
    off = sp.coo_array(case.C)
    off = off.data[off.coords[0] != off.coords[1]]
    if case.build in M_MATRICES:
        assert off.max(initial=0.0) <= 0
    elif case.build is intrinsic_delaunay_laplacian:
        if case.report.closed and case.report.non_manifold_edges == 0:
            assert off.max(initial=0.0) <= 8 * U * case.amplified * case.size.max()
    elif case.build is cotangent_laplacian:
        positive = off.max(initial=0.0) > 64 * U * case.amplified * case.size.max()
        if positive:
            assert _worst_angle_sum(case.domain) > math.pi * (1 - 1e-12)


def _worst_angle_sum(mesh):
    """The largest sum of angles opposite an inner edge, or twice the largest one opposite a boundary edge."""
    points, faces = mesh.arrays
    total, count = {}, {}
    angles = np.radians(corner_angles(points, faces))
    for face, triple in zip(faces.tolist(), angles.tolist(), strict=True):
        for k in range(3):
            edge = tuple(sorted((face[(k + 1) % 3], face[(k + 2) % 3])))
            total[edge] = total.get(edge, 0.0) + triple[k]
            count[edge] = count.get(edge, 0) + 1
    return max(total[edge] * (2 if count[edge] == 1 else 1) for edge in total)


def o11_energy_of_the_coordinates_is_the_area(case):
    """Σ_axes xᵀ C x = 2·area for the triangulation as embedded; less where flips or covers change it (O12)."""
    points = torch.from_numpy(case.domain.arrays[0] - case.domain.arrays[0].mean(0))
    energy = float(case.L.inner(points, case.L @ points))
    bound = 16 * U * case.accumulated(points, points) * case.amplified
    if case.build in (cotangent_laplacian, unit_diffusion):
        assert abs(energy - 2 * case.domain.area) <= bound
    elif case.build is intrinsic_delaunay_laplacian:
        assert energy <= 2 * case.domain.area + bound


def o12_of_all_triangulations_delaunay_has_the_least_energy(case):
    """Rippa (1990)."""
    if case.build not in (robust_laplacian, intrinsic_delaunay_laplacian):
        return
    plain = cotangent_laplacian(case.domain)
    x = case.x
    energy, other = (float(L.inner(x, L @ x)) for L in (case.L, plain))
    rough = abs(x).numpy()
    magnitude = float((rough * (abs(plain.stiffness.to_scipy()) @ rough)).sum())
    # robust_laplacian mollifies: needles get longer by up to 1e-5 of the mean edge.
    mollified = 1e-3 * other if case.build is robust_laplacian else 0.0
    assert energy <= other + 64 * U * case.amplified * magnitude + mollified


def o13_mass_is_the_area(case):
    assert bool((case.L.mass > 0).all())
    mollified = 1e-3 if case.build is robust_laplacian else 0.0
    bound = (8 * U * case.domain.num_nodes * case.amplified + mollified) * case.domain.area
    assert_within(case.L.mass.sum(), case.domain.area, bound)


def o14_gauss_bonnet(case):
    """Σ (2π − angles) inside + Σ (π − angles) on the boundary = 2πχ, and χ = V − E + F, whatever is built on the surface."""
    if case.build is not cotangent_laplacian:
        return
    points, faces = case.domain.arrays
    characteristic = case.report.euler_characteristic
    assert characteristic == len(points) - case.domain.edges.shape[1] + len(faces)
    if case.report.manifold:
        angle = np.bincount(faces.ravel(), np.radians(corner_angles(points, faces)).ravel())
        whole = np.full(len(points), 2 * math.pi)
        whole[boundary_vertices(case.domain).numpy()] = math.pi
        assert abs((whole - angle).sum() - 2 * math.pi * characteristic) <= 16 * U * len(faces) * math.pi * case.amplified


def o15_spectrum_lies_between_zero_and_the_norm_bound(case):
    if case.build in (combinatorial_laplacian, random_walk_laplacian, symmetric_laplacian):
        values = torch.linalg.eigvalsh(case.L.symmetrized().matrix())
        assert values[0] >= -8 * len(values) * U * case.L.norm_bound()
        if case.build is not combinatorial_laplacian:
            assert values[-1] <= 2 + 32 * len(values) * U
        return
    top = case.L.largest_eigenvalue()
    assert -1e-6 * case.L.norm_bound() <= top <= case.L.norm_bound() * (1 + 1e-6)


def o16_linear_and_blind_to_batch_channel_and_layout(case):
    L, x, y = case.L, case.x, case.y
    a, b = 0.75, -3.0
    rows = torch.from_numpy(case.size @ (abs(a) * x.abs() + abs(b) * y.abs()).numpy()) / L.mass[:, None]
    assert_within(L @ (a * x + b * y), a * (L @ x) + b * (L @ y), 16 * U * rows)
    batch = torch.stack([x, y])
    assert_within(L @ batch, torch.stack([L @ x, L @ y]), 16 * U * rows)
    assert_within(L @ x[:, 1:2], (L @ x)[:, 1:2], 16 * U * rows[:, 1:2])
    assert torch.equal(L @ x.T.contiguous().T, L @ x)
    assert (L @ x[:, :0]).shape == (len(x), 0)
    assert (L @ batch[:0]).shape == (0, *x.shape)


def o17_unmodulated_difference_is_the_plain_one(case):
    if case.build in NO_CONSTANTS or case.build not in M_MATRICES:
        return
    weights = adjacency_of(case.L)
    ones = torch.ones(weights.pattern.nnz, dtype=torch.float64)
    rows = torch.from_numpy(case.size @ case.x.abs().numpy())
    assert_within(modulated_laplacian(weights, ones, ones) @ case.x, case.L.stiffness(case.x), 16 * U * rows)
    plain = case.x[weights.pattern.col] - case.x[weights.pattern.row]
    assert torch.equal(modulated_gradient(weights, case.x, ones, ones), plain)
    copied = modulated_gradient(weights, case.x, ones, 0 * ones)
    assert torch.equal(copied, case.x[weights.pattern.col])


def o18_self_loops_drop_and_repeated_edges_add(case):
    graph = case.domain
    loops = torch.arange(graph.nodes).repeat(2, 1)
    looped = Graph(torch.cat([graph.edge_index, loops], 1), graph.nodes, torch.cat([graph.edge_weight, torch.ones(graph.nodes)]))
    doubled = Graph(graph.edge_index.repeat(1, 2), graph.nodes, graph.edge_weight.repeat(2))
    assert (case.rebuilt(looped).stiffness.to_scipy() != case.C).nnz == 0
    if case.build in (combinatorial_laplacian, random_walk_laplacian, signed_laplacian):
        same_operator(case.rebuilt(doubled), _scaled(case.L, 2.0), 16 * U * 2 * case.size.max())


def _scaled(L, factor):
    return Laplacian(SparseOperator(L.stiffness.pattern, factor * L.stiffness.values), L.mass)


EVERYWHERE = [
    o1_symmetric_to_the_last_bit,
    o2_constants_of_each_component_are_the_kernel,
    o3_positive_semidefinite,
    o4_energy_is_the_sum_of_squared_differences,
    o5_o6_divergence_is_the_adjoint_and_closes_to_the_laplacian,
    o7_renaming_the_nodes_renames_the_operator,
    o10_weights_are_not_negative_where_promised,
    o15_spectrum_lies_between_zero_and_the_norm_bound,
    o16_linear_and_blind_to_batch_channel_and_layout,
    o17_unmodulated_difference_is_the_plain_one,
]
ON_GRAPHS = [*EVERYWHERE, o18_self_loops_drop_and_repeated_edges_add]
ON_MESHES = [
    *EVERYWHERE,
    o8_rotation_and_translation_change_nothing,
    o9_scaling_keeps_the_stiffness_and_squares_the_mass,
    o11_energy_of_the_coordinates_is_the_area,
    o12_of_all_triangulations_delaunay_has_the_least_energy,
    o13_mass_is_the_area,
    o14_gauss_bonnet,
]


def named(items):
    return {"ids": [item.__name__ for item in items]}


@pytest.mark.parametrize("law", ON_GRAPHS, **named(ON_GRAPHS))
@pytest.mark.parametrize("build", GRAPH_KINDS, **named(GRAPH_KINDS))
@given(data=st.data())
def test_on_drawn_graphs(law, build, data):
    graph = data.draw(graphs(max_nodes=12))
    if build is magnetic_laplacian:
        keep = data.draw(st.lists(st.booleans(), min_size=graph.edge_index.shape[1], max_size=graph.edge_index.shape[1]))
        kept = torch.tensor(keep, dtype=torch.bool)
        graph = Graph(graph.edge_index[:, kept], graph.nodes, graph.edge_weight[kept])
    if build is signed_laplacian:
        sign = torch.where(graph.edge_index.sum(0) % 3 == 0, -1.0, 1.0)
        graph = Graph(graph.edge_index, graph.nodes, graph.edge_weight * sign)
    law(_drawn(build, graph, data))


@pytest.mark.parametrize("law", ON_MESHES, **named(ON_MESHES))
@pytest.mark.parametrize("build", MESH_KINDS, **named(MESH_KINDS))
@given(data=st.data())
def test_on_drawn_surfaces(law, build, data):
    law(_drawn(build, data.draw(meshes()), data))


def _drawn(build, domain, data):
    x, y = (data.draw(fields(domain.num_nodes, 2)) for _ in range(2))
    return Case(build, domain, x, y, np.random.default_rng(data.draw(st.integers(0, 9))))


@pytest.mark.parametrize("build", MESH_KINDS, **named(MESH_KINDS))
def test_on_every_real_mesh(build, real_mesh):
    x, y = torch.randn(2, real_mesh.num_nodes, 2, dtype=torch.float64)
    case = Case(build, real_mesh, x, y, np.random.default_rng(0))
    for law in ON_MESHES:
        law(case)


@pytest.mark.parametrize("build", [*GRAPH_KINDS[:3], robust_laplacian], **named([*GRAPH_KINDS[:3], robust_laplacian]))
@given(data=st.data())
def test_the_kernel_has_one_dimension_for_each_component(build, data):
    """O2, counted; weights and angles of moderate size, or a small eigenvalue could not be told from zero."""
    domains = meshes(slivers=False) if build is robust_laplacian else graphs(max_nodes=12, weights=["ones"])
    L = build(data.draw(domains))
    components = sp.csgraph.connected_components(L.stiffness.to_scipy() != 0, directed=False)[0]
    values = torch.linalg.eigvalsh(L.symmetrized().matrix())
    assert int((values <= 64 * len(values) * U * L.norm_bound()).sum()) == components


def test_the_kernel_of_every_real_mesh_is_counted_by_its_components(real_mesh):
    L = robust_laplacian(real_mesh)
    components = sp.csgraph.connected_components(L.stiffness.to_scipy() != 0, directed=False)[0]
    values = eigenpairs(L, components + 1).values
    assert float(values[components - 1]) <= 1e-9 * L.norm_bound()
    # The first mode of a surface of area A is far above rounding: 4π²/A for a round one, and no less than 1e-3 of it here.
    assert float(values[components]) >= 1e-3 / real_mesh.area


def test_energy_of_a_small_ripple_on_a_huge_constant():
    """O4's hard input, against rational arithmetic: xᵀ L x would have no digit left."""
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3, torch.ones(4, dtype=torch.float64))
    x = torch.tensor([1e8 + 0.25, 1e8, 1e8 - 0.5], dtype=torch.float64)[:, None]
    exact = (Fraction(1, 16) + Fraction(1, 4)) / 2
    assert float(dirichlet_energy(combinatorial_laplacian(graph), x)) == float(exact)


@pytest.mark.parametrize("size", [1e150, 1e-150])
def test_energy_beyond_the_range_is_infinite_or_zero_never_nan(size):
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64))
    energy = dirichlet_energy(combinatorial_laplacian(graph), torch.tensor([[size], [-size]], dtype=torch.float64) * 1e10)
    assert not bool(energy.isnan())


def test_an_offset_that_eats_the_digits_of_a_float32_surface_is_told():
    """O8's exception: 1e4 sizes from the origin, float32 keeps three digits of each edge."""
    far = icosphere(3).vertices + 1e4
    with pytest.warns(DomainWarning, match="digits|precision|origin"):
        TriangleMesh(far.float(), icosphere(3).faces)


def test_a_zero_field_has_no_rayleigh_quotient():
    with pytest.raises(FieldError, match="zero field"):
        rayleigh_quotient(robust_laplacian(icosphere(0)), torch.zeros(12, 1, dtype=torch.float64))
