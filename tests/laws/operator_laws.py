"""The laws O1 to O18 of every operator, each asserted on one `Case`.

Tolerances are C·u·(the magnitudes that were accumulated)·(what the geometry amplifies), with C = 8 for one application and 32
for compositions; `aspect` (size over the least height of a triangle) is what a triangle makes of the rounding of its corners.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from neuralpde.testing import aspect, assert_within, roundoff
from operators import (
    DomainError,
    Graph,
    Laplacian,
    SparseOperator,
    TriangleMesh,
    adjacency_of,
    combinatorial_laplacian,
    cotangent_laplacian,
    dirichlet_energy,
    modulated_gradient,
    modulated_laplacian,
    random_walk_laplacian,
    robust_laplacian,
    symmetric_laplacian,
)
from operators.boundary import boundary_vertices
from operators.delaunay import intrinsic_delaunay, intrinsic_delaunay_laplacian
from operators.differential import edge_gradient, face_gradient, vertex_gradient
from operators.diffusion import diffusion_laplacian
from operators.magnetic import magnetic_laplacian
from operators.report import corner_angles, report_mesh
from operators.signed import signed_laplacian

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
        return components(self.domain)[1]

    @cached_property
    def ambiguous(self):
        """Whether round-off decides how `robust_laplacian` splits four vertices on one circle: its mass then differs."""
        if self.build is not robust_laplacian:
            return False
        surface, _ = intrinsic_delaunay(self.domain)
        return bool((surface.angle_excess((surface.twin >= 0).nonzero()[:, 0]).abs() < 1e-6).any())

    @cached_property
    def round(self):
        """Whether no triangle is thin."""
        centred = self.domain.vertices - self.domain.vertices.mean(0)
        return aspect(TriangleMesh(centred, self.domain.faces)) < 100

    def accumulated(self, *factors):
        """|a|ᵀ |C| |b|."""
        a, b = (np.abs(np.asarray(f)) for f in factors)
        return float((a * (self.size @ b)).sum())

    def rebuilt(self, domain):
        return self.build(domain)


def components(domain):
    """Number and labels of the components of a domain, told by its own edges: an operator that dropped one would not notice."""
    edges = domain.edge_index[:, domain.edge_weight != 0] if isinstance(domain, Graph) else domain.edges
    joined = sp.coo_array((np.ones(edges.shape[1]), edges.numpy()), shape=(domain.num_nodes, domain.num_nodes))
    return sp.csgraph.connected_components(joined, directed=False)


def dyadic(*tensors):
    """Whether these are small multiples of ⅛, on which sums and products are exact."""
    return all(bool((8 * t == (8 * t).round()).all() and (t.abs() <= 1024).all()) for t in tensors)


def moved(case, points):
    return case.rebuilt(TriangleMesh(torch.as_tensor(points), case.domain.faces))


def same_operator(one, other, bound):
    """The stiffness of both is the same within an entrywise bound; patterns may differ where a weight rounds to zero."""
    difference = abs(one.stiffness.to_scipy() - other.stiffness.to_scipy())
    assert difference.max() <= bound if difference.nnz else True


def o1_symmetric_to_the_last_bit(case):
    assert (case.C != case.C.conj().T).nnz == 0


def o2_constants_of_each_component_are_the_kernel(case):
    if case.build in NO_CONSTANTS - {symmetric_laplacian}:
        return
    labels = case.components
    degree = np.diff(case.C.indptr).max(initial=1)
    # D^½ 1 for the symmetric normalisation: roundings in roots and entries; equal terms of a hub's row round alike and add up.
    root = random_walk_laplacian(case.domain).mass.sqrt() if case.build is symmetric_laplacian else torch.ones(len(labels))
    constant = root.double().numpy()
    more = 6 + degree / 8 if case.build is symmetric_laplacian else 0
    for label in range(min(labels.max() + 1, 20)):
        ones = torch.from_numpy((labels == label) * constant)[:, None]
        rows = torch.from_numpy(case.size @ ones.numpy()) / case.L.mass[:, None]
        # One rounding more than the sum of the row: the division by the mass.
        assert_within(case.L @ ones, 0.0, (3 + more + math.log2(degree)) * U * rows)


def o3_positive_semidefinite(case):
    # Negative weights of flat triangles cancel in the sum.
    slack = 8 * case.amplified if case.build in (cotangent_laplacian, unit_diffusion) else 8
    for x in (case.x, case.y):
        energy = float(case.L.inner(x, case.L @ x).real.sum())
        assert energy >= -slack * U * case.accumulated(x, x)


def o4_energy_is_the_sum_of_squared_differences(case):
    f = torch.complex(case.x[:, :1], case.y[:, :1])
    if isinstance(case.domain, Graph):
        expected, phase = _energy_of_graph(case, f.numpy())
        bound = 8 * U * (1 + phase) * case.accumulated(f.abs(), f.abs())
        assert_within(case.L.inner(f, case.L @ f).real, expected, bound)
    if case.build in NO_CONSTANTS:
        return
    coo = sp.coo_array(sp.triu(case.C, k=1))
    for x in (case.x, case.x * 1e-8 + 1.0):
        wide = x.numpy().astype(np.longdouble)
        terms = -coo.data.astype(np.longdouble)[:, None] * (wide[coo.coords[0]] - wide[coo.coords[1]]) ** 2
        # Relative to the terms, not to |x|ᵀ|L||x|: a constant cancels before it is squared.
        bound = 32 * U * float(np.abs(terms).sum())
        assert_within(dirichlet_energy(case.L, x), float(terms.sum()) / 2, bound)


def _energy_of_graph(case, f):
    """Σ over pairs u < v of |s| |f_u − e^{iθ} f_v|², from the graph and the definitions alone, and the largest θ."""
    graph, n = case.domain, case.domain.nodes
    proper = graph.edge_index[0] != graph.edge_index[1]
    ends, weight = graph.edge_index[:, proper].numpy(), graph.edge_weight[proper].numpy()
    A = sp.csr_array(sp.coo_array((weight, (ends[0], ends[1])), shape=(n, n)))
    # Both share one pattern as the parts of a complex matrix.
    both = sp.coo_array((A + A.T) / 2 + 1j * (A - A.T))
    if case.build is symmetric_laplacian:
        degree = both.real.sum(axis=1)
        f = f / np.sqrt(np.where(degree > 0, degree, 1.0))[:, None]
    upper = both.coords[0] < both.coords[1]
    (u, v), s = (side[upper] for side in both.coords), both.data.real[upper]
    theta = np.pi / 2 * both.data.imag[upper] if case.build is magnetic_laplacian else np.zeros_like(s)
    turn = np.exp(1j * theta) * np.sign(s)
    return float((np.abs(s)[:, None] * np.abs(f[u] - turn[:, None] * f[v]) ** 2).sum()), np.abs(theta).max(initial=0.0)


def o5_o6_divergence_is_the_adjoint_and_closes_to_the_laplacian(case):
    if case.build is symmetric_laplacian:
        return
    if case.build not in NO_CONSTANTS:
        pattern = case.L.stiffness.pattern
        i, j = (ends[pattern.row < pattern.col] for ends in (pattern.row, pattern.col))
        assert torch.equal(edge_gradient(case.L) @ case.x, case.x[j] - case.x[i])
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
    if case.ambiguous:
        return
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
    here, new = case.L.stiffness.pattern, there.stiffness.pattern
    if case.build not in (robust_laplacian, intrinsic_delaunay_laplacian):  # which leave out, or split, by round-off
        assert torch.equal(*((i * n + j).sort().values for i, j in ((new.row, new.col), (rank[here.row], rank[here.col]))))
    rows = 8 * U * case.amplified * case.size.max() * case.x.abs().sum(0) / case.L.mass[order, None]
    assert_within(there @ case.x[order], (case.L @ case.x)[order], 2 * rows)
    expected = case.C[order.numpy()][:, order.numpy()]
    bound = np.abs(there.stiffness.to_scipy() - expected).max() if n else 0.0
    assert bound <= 8 * U * case.amplified * case.size.max()
    assert_within(there.mass, case.L.mass[order], 8 * U * case.amplified * case.L.mass[order])


def o8_rotation_and_translation_change_nothing(case):
    if case.ambiguous:
        return
    points = case.domain.arrays[0]
    turn, _ = np.linalg.qr(case.random.normal(size=(3, 3)))
    size = np.abs(points).max()
    for there in (points @ turn.T, points + size * case.random.normal(size=3)):
        other = moved(case, there)
        # Moving rounds the positions where they arrive. Every flip adds to that: 40 of these units were measured.
        times = 8 if case.build in (cotangent_laplacian, unit_diffusion) else 128
        bound = times * U * (case.amplified + aspect(TriangleMesh(torch.from_numpy(there), case.domain.faces)))
        same_operator(other, case.L, bound * case.size.max())
        assert_within(other.mass, case.L.mass, bound * case.L.mass.max())


def o9_scaling_keeps_the_stiffness_and_squares_the_mass(case):
    power = int(case.random.integers(-20, 20))
    twice = moved(case, case.domain.arrays[0] * 2.0**power)
    assert (twice.stiffness.to_scipy() != case.C).nnz == 0
    assert torch.equal(twice.mass, case.L.mass * 4.0**power)
    if case.build is cotangent_laplacian:
        larger = TriangleMesh(case.domain.vertices * 2.0**power, case.domain.faces)
        for gradient in (face_gradient, vertex_gradient):
            assert torch.equal(gradient(larger).stencil.values * 2.0**power, gradient(case.domain).stencil.values)
    for factor in (1e150, 1e-150):
        with pytest.raises(DomainError, match="unit of length"):
            moved(case, case.domain.arrays[0] * factor)
    if case.ambiguous:
        return
    scaled = moved(case, case.domain.arrays[0] * 3.7e5)
    same_operator(scaled, case.L, 16 * U * case.amplified * case.size.max())
    assert_within(scaled.mass, case.L.mass * 3.7e5**2, 16 * U * case.amplified * 3.7e5**2 * case.L.mass.max())


def o10_weights_are_not_negative_where_promised(case):
    off = sp.coo_array(case.C)
    off = off.data[off.coords[0] != off.coords[1]]
    if case.build in M_MATRICES:
        assert off.max(initial=0.0) <= 0
    elif case.build is intrinsic_delaunay_laplacian:
        if case.report.closed and case.report.non_manifold_edges == 0:
            assert off.max(initial=0.0) <= 8 * U * case.amplified * case.size.max()
    elif case.build is cotangent_laplacian:
        positive = off.max(initial=0.0) > 8 * U * case.amplified * case.size.max()
        worst = _worst_angle_sum(case.domain)
        if positive:
            assert worst > math.pi * (1 - 1e-12)
        if worst > math.pi + 64 * U * case.amplified and case.report.non_manifold_edges == 0:
            assert off.max() > 0


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
    assert energy <= other + 32 * U * case.amplified * magnitude + mollified
    if case.build is robust_laplacian and case.report.closed and case.report.manifold and case.round:
        # No less either, on a closed surface; mollification moves round triangles by far less than a quarter.
        delaunay = intrinsic_delaunay_laplacian(case.domain)
        points = case.domain.vertices - case.domain.vertices.mean(0)
        assert float(case.L.inner(points, case.L @ points)) >= 0.75 * float(delaunay.inner(points, delaunay @ points))


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
    if case.build in (combinatorial_laplacian, random_walk_laplacian, symmetric_laplacian) and len(case.x) < 100:
        values = torch.linalg.eigvalsh(case.L.symmetrized().matrix())
        assert values[0] >= -8 * len(values) * U * case.L.norm_bound()
        if case.build is not combinatorial_laplacian:
            assert values[-1] <= 2 + 32 * len(values) * U
            # L_ii = 1, but for isolated nodes: the trace counts the others.
            (i, j), weight = case.domain.edge_index, case.domain.edge_weight
            joined = i[(weight > 0) & (i != j)].unique().numel()
            assert_within(case.L.diagonal().sum(), float(joined), 8 * len(values) * U)
        return
    top = case.L.largest_eigenvalue()
    assert -1e-6 * case.L.norm_bound() <= top <= case.L.norm_bound() * (1 + 1e-6)


def o16_linear_and_blind_to_batch_channel_and_layout(case):
    L, x, y = case.L, case.x, case.y
    a, b = 0.75, -3.0
    rows = torch.from_numpy(case.size @ (abs(a) * x.abs() + abs(b) * y.abs()).numpy()) / L.mass[:, None]
    # Rows of a thousand entries are added up one by one.
    rows *= 1 + torch.from_numpy(np.sqrt(np.diff(case.C.indptr)))[:, None] / 16
    assert_within(L @ (a * x + b * y), a * (L @ x) + b * (L @ y), 16 * U * rows)
    batch = torch.stack([x, y])
    assert_within(L @ batch, torch.stack([L @ x, L @ y]), 16 * U * rows)
    assert_within(L @ x[:, 1:2], (L @ x)[:, 1:2], 16 * U * rows[:, 1:2])
    assert torch.equal(L @ x.T.contiguous().T, L @ x)
    assert_within(L @ x.expand(2, 3, *x.shape), (L @ x).expand(2, 3, *x.shape), 8 * U * rows)
    assert (L @ x[:, :0]).shape == (len(x), 0)
    assert (L @ batch[:0]).shape == (0, *x.shape)


def o17_unmodulated_difference_is_the_plain_one(case):
    if case.build in NO_CONSTANTS or case.build not in M_MATRICES:
        return
    weights = adjacency_of(case.L)
    ones = torch.ones(weights.pattern.nnz, dtype=torch.float64)
    rows = torch.from_numpy(case.size @ case.x.abs().numpy())
    assert_within(modulated_laplacian(weights, ones, ones) @ case.x, case.L.stiffness(case.x), 8 * U * rows)
    if dyadic(case.x, case.L.stiffness.values):
        assert torch.equal(modulated_laplacian(weights, ones, ones) @ case.x, case.L.stiffness(case.x))
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
    twice = {magnetic_laplacian: lambda graph: magnetic_laplacian(graph, 0.125)}.get(case.build, case.build)(doubled)
    expected = case.L if case.build is symmetric_laplacian else _scaled(case.L, 2.0)
    # The phase of a weight w is rounded to u w.
    same_operator(twice, expected, 16 * U * (1 + float(graph.edge_weight.abs().sum())) * 2 * case.size.max())
    if dyadic(graph.edge_weight):
        turned = Graph(graph.edge_index.flip(1), graph.nodes, graph.edge_weight.flip(0))
        assert torch.equal(case.rebuilt(turned).stiffness.values, case.L.stiffness.values)
        if case.build is not symmetric_laplacian:
            assert torch.equal(twice.stiffness.values, expected.stiffness.values)


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
