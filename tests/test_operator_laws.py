"""The laws O1 to O18 of every operator, on drawn graphs and surfaces and on every real mesh and graph.

`laws/operator_laws.py` says what each law is, and `ON_GRAPHS` and `ON_MESHES` there where it holds. Closed-form spectra (O15)
stand in tests/operators/test_spectrum.py, the point cloud's part of O7 in tests/operators/test_point_cloud.py.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_laws import GRAPH_KINDS, MESH_KINDS, ON_GRAPHS, ON_MESHES, Case, U, components, unit_diffusion

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes
from operators import (
    DomainWarning,
    FieldError,
    Graph,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    dirichlet_energy,
    icosphere,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
)
from operators.boundary import boundary_vertices
from operators.delaunay import intrinsic_delaunay_laplacian
from operators.differential import face_gradient, vertex_gradient
from operators.magnetic import magnetic_laplacian
from operators.signed import signed_laplacian
from operators.spectrum import eigenpairs


def named(items):
    return {"ids": [item.__name__ for item in items]}


@pytest.mark.parametrize("law", ON_GRAPHS, **named(ON_GRAPHS))
@pytest.mark.parametrize("build", GRAPH_KINDS, **named(GRAPH_KINDS))
@given(data=st.data())
def test_on_drawn_graphs(law, build, data):
    graph = data.draw(graphs(directed=build is magnetic_laplacian))
    law(_drawn(build, _signed(graph) if build is signed_laplacian else graph, data))


def _signed(graph):
    sign = torch.where(graph.edge_index.sum(0) % 3 == 0, -1.0, 1.0)
    return Graph(graph.edge_index, graph.nodes, graph.edge_weight * sign)


@pytest.mark.parametrize("build", GRAPH_KINDS, **named(GRAPH_KINDS))
def test_on_every_real_graph(build, real_graph):
    x, y = torch.randn(2, real_graph.nodes, 2, dtype=torch.float64)
    graph = real_graph
    if build is signed_laplacian:
        graph = _signed(graph)
    elif build is magnetic_laplacian:  # a third of the edges become one-way streets
        kept = (graph.edge_index * torch.tensor([[1], [2]])).sum(0) % 3 > 0
        graph = Graph(graph.edge_index[:, kept], graph.nodes, graph.edge_weight[kept])
    case = Case(build, graph, x, y, np.random.default_rng(0))
    for law in ON_GRAPHS:
        law(case)


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
    domain = data.draw(meshes(slivers=False) if build is robust_laplacian else graphs(weights=["ones"]))
    L = build(domain)
    values = torch.linalg.eigvalsh(L.symmetrized().matrix())
    assert int((values <= 64 * len(values) * U * L.norm_bound()).sum()) == components(domain)[0]


@given(graph=graphs(weights=["ones"]))
def test_the_normalized_spectrum_reaches_two_once_for_each_bipartite_component(graph):
    """O15: such a component, and no other, falls into two in the bipartite double cover."""
    i, j = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    cover = Graph(torch.cat([torch.stack([i, j + graph.nodes]), torch.stack([i + graph.nodes, j])], 1), 2 * graph.nodes)
    isolated = graph.nodes - i.unique().numel()
    bipartite = components(cover)[0] - components(graph)[0] - isolated
    values = torch.linalg.eigvalsh(symmetric_laplacian(graph).matrix())
    assert int((values >= 2 - 64 * len(values) * U).sum()) == bipartite


@pytest.mark.parametrize("build", [cotangent_laplacian, intrinsic_delaunay_laplacian, unit_diffusion])
@given(mesh=meshes(planar=True))
def test_linear_functions_are_harmonic_inside_a_planar_mesh(build, mesh):
    """O11, pointwise. With weights ≥ 0 at the boundary too, as those of `robust_laplacian`, it cannot hold."""
    L = build(mesh)
    points = mesh.vertices - mesh.vertices.mean(0)
    inside = torch.ones(len(points), dtype=torch.bool)
    inside[boundary_vertices(mesh)] = False
    rows = torch.from_numpy(abs(L.stiffness.to_scipy()) @ points.abs().numpy())
    assert_within(L.stiffness(points)[inside], 0.0, 16 * U * aspect(mesh) * rows[inside])


@pytest.mark.parametrize("build", [face_gradient, vertex_gradient])
@given(mesh=meshes(planar=True))
def test_linear_functions_have_their_slope_as_gradient(build, mesh):
    """O5 and O6 hold for −∇ as well; this tells the two apart."""
    gradient = build(mesh)
    points = mesh.vertices - mesh.vertices.mean(0)
    rows = torch.from_numpy(abs(gradient.stencil.to_scipy()) @ points.abs().numpy())
    expected = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    bound = 16 * U * aspect(mesh) * gradient.vectors(rows).amax(dim=(1, 2), keepdim=True)
    assert_within(gradient.vectors(gradient @ points), expected.expand(rows.shape[0] // 3, 3, 3), bound)


def test_the_kernel_of_every_real_mesh_is_counted_by_its_components(real_mesh):
    L = robust_laplacian(real_mesh)
    count = components(real_mesh)[0]
    values = eigenpairs(L, count + 1).values
    assert float(values[count - 1]) <= 1e-9 * L.norm_bound()
    # The first mode of a surface of area A is far above rounding: 4π²/A for a round one, and no less than 1e-3 of it here.
    assert float(values[count]) >= 1e-3 / real_mesh.area


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
