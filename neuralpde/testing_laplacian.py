"""The laws of a Laplacian, and `assert_laplacian`, which holds one against all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from neuralpde.symmetry import Permutation, RigidMotion
from neuralpde.testing_cases import Case, cases
from neuralpde.testing_measured import Measured, compared, fact
from neuralpde.testing_operators import OPERATOR_LAWS, components, equivariant, hold
from neuralpde.testing_search import Search, words
from operators import Graph, PointCloud, TriangleMesh, boundary_vertices

LaplacianLaw = Callable[[Case], Measured | None]


def assert_laplacian(
    build: Any,
    domain: Any = None,
    *,
    kernel: Callable[[Any], Tensor] | None = None,
    without: Collection[LaplacianLaw] = (),
    search: Search = Search(),  # noqa: B008 (frozen)
) -> Measured:
    """Assert every law of a Laplacian, positive semi-definite in its own inner product, on one domain or on many.

    The laws, in this order: shape and dtype, input untouched, linear, batch = loop, symmetric, constants of each component in the
    kernel, positive semi-definite, joins what the domain joins, equivariant under renumbering; on graphs, edges that are
    repeated add up; with positions, rigid motion changes nothing; on a surface also L ∝ 1/length², energy of the
    coordinates, and linear functions harmonic inside planar ones.

    Tolerance: C u (Σ_j |L_ij| |x_j|, the magnitudes accumulated)·(size over the least height of a triangle), with u the
    round-off of the operator's dtype and C = 8 for one product, 32 for compositions.

    Args:
        build: a function of a domain that gives an `Operator` or a matrix, such as `cotangent_laplacian`; or one such
            operator, held against the laws that need no domain.
        domain: a Hypothesis strategy such as `graphs()`, or one domain; by default what the first argument of `build` is
            annotated with, a directed graph now and then included, which `build` may refuse with a DomainError.
        kernel: the field (n, 1) of the domain that L must take to zero, if it is not the constants: D^½ 1 of the symmetric
            normalisation.
        without: laws that this one does not promise, such as `GEOMETRIC_LAWS` for a Laplacian of the mesh's graph alone.
        search: how many examples, and where a counter-example is saved.

    Returns:
        The law nearest to its tolerance; float() of it is the error in units of the tolerance.

    Raises:
        LawBrokenError: an AssertionError; the shrunk counter-example and its file are in the message.
    """
    __tracebackhide__ = True
    laws = [law for law in LAPLACIAN_LAWS if law not in set(without)]
    return hold(build, laws, cases(build, domain, kernel=kernel), search)


def symmetric_in_its_inner_product(case: Case) -> Measured:
    """⟨y, L x⟩ = ⟨L y, x⟩."""
    L, x, y = case.operator, case.cast(case.x), case.cast(case.y)
    size = (case.weights[:, None] * (case.rows(case.x) * case.y.abs() + case.rows(case.y) * case.x.abs())).sum()
    # Column by column would miss what channels of x and y share.
    difference = L.inner(y, L @ x) - L.inner(L @ y, x)
    rule = "8 u Σ m_i |y_i| |L_ij| |x_j|, times the aspect of the triangles"
    return compared(words(symmetric_in_its_inner_product), difference, 0.0, 8 * case.unit * size, rule)


def constants_of_each_component_are_killed(case: Case) -> Measured:
    """L c = 0 for c constant on each component of the domain, isolated nodes included."""
    L, kernel = case.operator, case.options.get("kernel")
    c = kernel(case.domain).double() if kernel else torch.ones(L.shape[1], 1, dtype=torch.float64)
    labels = components(case.domain)
    count = 1 if labels is None else int(labels.max()) + 1
    pieces = [c if labels is None else c * torch.from_numpy(labels == k)[:, None] for k in range(min(count, 20))]
    each = torch.cat(pieces, dim=1)
    bound = 8 * case.unit * case.rows(each)
    if kernel:  # its equal entries are rounded alike, and add up along the row of a hub
        bound = bound * (1 + torch.from_numpy(np.diff(case.size.indptr))[:, None] / 64)
    rule = "8 u Σ_j |L_ij| |c_j|, times the aspect of the triangles"
    return compared(words(constants_of_each_component_are_killed), L @ case.cast(each), 0.0, bound, rule)


def positive_semidefinite(case: Case) -> Measured:
    """⟨x, L x⟩ ≥ 0; by eigenvalues where there are few nodes."""
    L, name = case.operator, words(positive_semidefinite)
    n = L.shape[0]
    if n <= 64:
        root = case.weights.sqrt().clamp(min=1e-300)
        S = root[:, None] * L.matrix().to(torch.promote_types(L.dtype, torch.float64)) / root
        # eigh reads one triangle, and a law of its own tells when they differ.
        least = torch.linalg.eigvalsh((S + S.mH) / 2).min()
        norm = float(S.abs().sum(1).max())
        return compared(
            name, least.clamp(max=0.0), 0.0, 8 * max(n, 1) * case.unit * norm, "8 n u ‖L‖, times the aspect of the triangles"
        )
    x = case.cast(case.x)
    energy = torch.as_tensor(L.inner(x, L @ x)).real
    size = (case.weights[:, None] * case.rows(case.x) * case.x.abs()).sum()
    return compared(name, energy.clamp(max=0.0), 0.0, 8 * case.unit * size, "8 u Σ m_i |x_i| |L_ij| |x_j|, times the aspect")


def joins_what_the_domain_joins(case: Case) -> Measured | None:
    """The non-zero entries of L connect the nodes that the edges of the domain connect, and no others."""
    labels = components(case.domain)
    if labels is None:
        return None
    found = sp.csgraph.connected_components(case.size, directed=False)[1]
    # Two labellings of the same parts: each label of one goes with one of the other.
    pairs = len(set(zip(labels.tolist(), found.tolist(), strict=True)))
    same = pairs == len(set(labels.tolist())) == len(set(found.tolist()))
    told = f"the domain has {len(set(labels.tolist()))} components, the operator {len(set(found.tolist()))}"
    return fact(words(joins_what_the_domain_joins), same, told)


def renumbering_the_nodes_renumbers_the_operator(case: Case) -> Measured | None:
    """L(P domain) P x = P L(domain) x; edges and faces are shuffled too."""
    if case.fixed or not isinstance(case.domain, (Graph, TriangleMesh)):
        return None
    return equivariant(case, Permutation(), words(renumbering_the_nodes_renumbers_the_operator))


def edges_that_are_repeated_add_up(case: Case) -> Measured | None:
    """An edge of weight w and the same edge twice with weight w/2 are the same."""
    if case.fixed or not isinstance(case.domain, Graph):
        return None
    graph = case.domain
    halves = Graph(graph.edge_index.repeat(1, 2), graph.nodes, (graph.edge_weight / 2).repeat(2))
    x = case.cast(case.x)
    bound = 32 * case.unit * case.rows(case.x)
    rule = "32 u Σ_j |L_ij| |x_j|"
    return compared(words(edges_that_are_repeated_add_up), case.rebuilt(halves) @ x, case.operator @ x, bound, rule)


def rigid_motion_changes_nothing(case: Case) -> Measured | None:
    """Rotation and translation of the positions leave L as it is."""
    if case.fixed or not isinstance(case.domain, (TriangleMesh, PointCloud)):
        return None
    return equivariant(case, RigidMotion(reflections=True), words(rigid_motion_changes_nothing))


def lengths_twice_as_long_make_a_quarter(case: Case) -> Measured | None:
    """L(s·domain) = L(domain) / s² for s = 2^k: L is in 1/length², its stiffness has no unit."""
    if case.fixed or not isinstance(case.domain, TriangleMesh):
        return None
    s = 2.0 ** (case.seed - 4)
    larger = TriangleMesh(case.domain.vertices * s, case.domain.faces)
    x = case.cast(case.x)
    bound = 32 * case.unit * case.rows(case.x)
    rule = "32 u Σ_j |L_ij| |x_j|, times the aspect of the triangles"
    name = words(lengths_twice_as_long_make_a_quarter)
    return compared(name, (case.rebuilt(larger) @ x) * s**2, case.operator @ x, bound, rule)


def energy_of_the_coordinates_is_the_area(case: Case) -> Measured | None:
    """Σ over the axes of ⟨p, L p⟩ = 2·area on a planar surface; in space no more than that (Rippa 1990)."""
    if not isinstance(case.domain, TriangleMesh):
        return None
    points = _centred(case.domain)
    p = case.cast(points)
    energy = torch.as_tensor(case.operator.inner(p, case.operator @ p)).real
    excess = energy - 2 * case.domain.area
    size = (case.weights[:, None] * case.rows(points) * points.abs()).sum()
    name, rule = words(energy_of_the_coordinates_is_the_area), "32 u Σ m_i |p_i| |L_ij| |p_j|, times the aspect of the triangles"
    return compared(name, excess if _planar(case.domain) else excess.clamp(min=0.0), 0.0, 32 * case.unit * size, rule)


def linear_functions_are_harmonic_inside(case: Case) -> Measured | None:
    """(L p)_i = 0 for the coordinates p at the inner vertices of a planar surface."""
    if not isinstance(case.domain, TriangleMesh) or not _planar(case.domain):
        return None
    points = _centred(case.domain)
    inside = torch.ones(len(points), dtype=torch.bool)
    inside[boundary_vertices(case.domain)] = False
    bound = 32 * case.unit * case.rows(points)[inside]
    rule = "32 u Σ_j |L_ij| |p_j|, times the aspect of the triangles"
    return compared(words(linear_functions_are_harmonic_inside), (case.operator @ case.cast(points))[inside], 0.0, bound, rule)


def _planar(mesh: TriangleMesh) -> bool:
    """Whether all faces are counter-clockwise in the plane z = 0."""
    points, faces = mesh.arrays
    if bool((points[:, 2] != 0).any()):
        return False
    a, b, c = (points[faces[:, k], :2] for k in range(3))
    return bool(((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0).all())


def _centred(mesh: TriangleMesh) -> Tensor:
    points = mesh.vertices.detach().double()
    return points - points.mean(0)


GEOMETRIC_LAWS: tuple[LaplacianLaw, ...] = (
    rigid_motion_changes_nothing,
    lengths_twice_as_long_make_a_quarter,
    energy_of_the_coordinates_is_the_area,
    linear_functions_are_harmonic_inside,
)
"""What only a Laplacian of the geometry promises; one of the mesh's graph knows of no length."""

LAPLACIAN_LAWS: tuple[LaplacianLaw, ...] = (
    *OPERATOR_LAWS,
    symmetric_in_its_inner_product,
    constants_of_each_component_are_killed,
    positive_semidefinite,
    joins_what_the_domain_joins,
    renumbering_the_nodes_renumbers_the_operator,
    edges_that_are_repeated_add_up,
    *GEOMETRIC_LAWS,
)
"""The laws of `assert_laplacian`, in its order."""
