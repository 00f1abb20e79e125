"""Domains are frozen, validated where they are made, and survive every conversion."""

import dataclasses
import math
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

import operators.surface
from neuralpde.testing import aspect, graphs, meshes, roundoff
from operators import (
    DomainError,
    DomainWarning,
    Graph,
    PointCloud,
    TriangleMesh,
    icosphere,
    load_mesh,
    robust_laplacian,
    write_mesh,
)

SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.float64)
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])
NAN, INF = math.nan, math.inf


def with_entry(tensor, i, j, value):
    changed = tensor.clone()
    changed[i, j] = value
    return changed


BAD_MESHES = {
    "NaN": (
        with_entry(SQUARE, 1, 2, NAN),
        TWO,
        r"vertices hold 1 non-finite value, the first \(nan\) at index \[1, 2\]: remove",
    ),
    "inf": (with_entry(SQUARE, 0, 0, -INF), TWO, r"\(-inf\) at index \[0, 0\]: remove or repair"),
    "huge": (SQUARE * 1e90, TWO, "change the unit of length"),
    "tiny": (SQUARE * 1e-90, TWO, "change the unit of length"),
    "index too large": (SQUARE, torch.tensor([[0, 1, 4]]), "index 4, but there are only 4 points"),
    "index negative": (SQUARE, torch.tensor([[0, 1, -2]]), "negative index -2: indices count from 0"),
    "float faces": (SQUARE, TWO.double(), r"integers, not torch\.float64: indices are never rounded"),
    "bool faces": (SQUARE, TWO.bool(), r"integers, not torch\.bool"),
    "quads": (SQUARE, torch.tensor([[0, 1, 2, 3]]), "triangulate polygons first"),
    "no vertices": (SQUARE[:0], TWO[:0], "vertices is empty: a domain needs"),
    "no faces": (SQUARE, TWO[:0], "faces are empty.*for bare points use PointCloud"),
    "repeated index": (
        SQUARE,
        torch.tensor([[0, 1, 2], [0, 2, 2], [0, 2, 3]]),
        r"1 faces repeat.*face 1 \[0, 2, 2\].*clean_mesh",
    ),
    "zero area": (
        torch.cat([SQUARE, torch.tensor([[0.5, 0.5, 0]], dtype=torch.float64)]),
        torch.cat([TWO, torch.tensor([[0, 2, 4]])]),
        r"1 faces have no area, the first is face 2 \[0, 2, 4\].*repair with clean_mesh",
    ),
    "duplicate": (SQUARE, torch.cat([TWO, TWO[:1]]), "1 faces are named twice.*counted double: repair with clean_mesh"),
    "flipped duplicate": (SQUARE, torch.cat([TWO, TWO[1:].flip(1)]), "1 faces are named twice.*repair with clean_mesh"),
    "unreferenced": (SQUARE, TWO[:1], "1 vertices belong to no face, the first is vertex 3.*repair with clean_mesh"),
    "int8 that wrapped": (
        torch.rand(162, 3, dtype=torch.float64),
        torch.arange(162).to(torch.int8).reshape(-1, 3),
        "torch.int8, which ends at 127, but there are 162 points.*wrapped around; build them as int64",
    ),
    "uint8 that wrapped": (
        torch.rand(300, 3, dtype=torch.float64),
        torch.arange(300).to(torch.uint8).reshape(-1, 3),
        "torch.uint8, which ends at 255, but there are 300 points",
    ),
    "2^31": (SQUARE, torch.tensor([[0, 1, 2**31]]), "index 2147483648, but there are only 4 points"),
    "2^32 + 1": (SQUARE, torch.tensor([[0, 1, 2**32 + 2]]), "index 4294967298, but there are only 4 points"),
    "2^62": (SQUARE, torch.tensor([[0, 1, 2**62]]), "index 4611686018427387904"),
    "aaa": (SQUARE, torch.cat([TWO, torch.tensor([[1, 1, 1]])]), r"1 faces repeat.*\[1, 1, 1\]"),
    "coincident corners": (torch.cat([SQUARE, SQUARE[:1]]), torch.cat([TWO, torch.tensor([[0, 4, 2]])]), "have no area"),
    "one point": (SQUARE[:1].expand(4, 3), TWO, "2 faces have no area"),
    "a sliver of 1e-12": (
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 1e-12, 0]], dtype=torch.float64),
        torch.tensor([[0, 1, 2]]),
        "1 faces have no area",
    ),
    "offset 1e16": (icosphere(1).vertices + 1e16, icosphere(1).faces, "faces have no area.*repair with clean_mesh"),
    "huge, 1e150": (SQUARE * 1e150, TWO, "change the unit of length"),
    "tiny, 1e-150": (SQUARE * 1e-150, TWO, "change the unit of length"),
    "NaN at an unreferenced vertex": (with_entry(SQUARE, 3, 0, NAN), TWO[:1], "1 non-finite value"),
    "complex vertices": (SQUARE + 0j, TWO, "float32 or float64, not torch.complex128"),
    "bfloat16": (SQUARE.bfloat16(), TWO, "float32 or float64, not torch.bfloat16"),
    "text": ("bunny.ply", TWO, "vertices must be an array or tensor of numbers, not this str"),
    "ragged faces": (SQUARE, [[0, 1, 2], [0, 1]], "faces must be an array or tensor of numbers, not this list"),
    "nothing at all": (None, None, "vertices must be an array or tensor of numbers, not this NoneType"),
    "a sparse tensor": (SQUARE.to_sparse(), TWO, "must be a dense tensor"),
    "half precision": (SQUARE.half(), TWO, r"float32 or float64, not torch\.float16"),
    "integer vertices": (SQUARE.long(), TWO, r"float32 or float64, not torch\.int64: convert"),
    "four columns": (torch.ones(4, 4), TWO, r"shape \(n, 2 or 3\), not \(4, 4\)"),
}


@pytest.mark.parametrize("case", BAD_MESHES)
def test_a_bad_mesh_is_refused_with_cause_and_cure_and_reaches_no_native_code(case, monkeypatch):
    vertices, faces, match = BAD_MESHES[case]
    monkeypatch.setattr(operators.surface.native, "mesh_laplacian", lambda *_: pytest.fail("native code was reached"))
    with pytest.raises(DomainError, match=match):
        robust_laplacian(TriangleMesh(vertices, faces))


def test_coincident_vertices_warn_with_the_cure_and_clean_welds_them():
    vertices = torch.cat([SQUARE, SQUARE[[0, 2]]])
    faces = torch.tensor([[0, 1, 2], [4, 5, 3]])
    with pytest.warns(DomainWarning, match=r"2 vertices coincide.*weld them with mesh\.clean\(\)"):
        seam = TriangleMesh(vertices, faces)
    assert seam.clean().num_nodes == 4
    assert robust_laplacian(seam).stiffness.to_scipy().toarray()[0, 3] == 0
    assert torch.equal(seam.to(torch.float32).faces, seam.faces)  # without a second warning


@pytest.mark.parametrize("case", ["duplicate", "zero area", "unreferenced"])
def test_load_mesh_names_the_file_or_cleans_it(case, tmp_path):
    vertices, faces, match = BAD_MESHES[case]
    write_mesh(tmp_path / "bad.ply", vertices.numpy(), faces.numpy())
    with pytest.raises(DomainError, match=rf"bad\.ply: .*{match}"):
        load_mesh(tmp_path / "bad.ply")
    assert load_mesh(tmp_path / "bad.ply", clean=True, dtype=torch.float32).vertices.dtype == torch.float32


@pytest.mark.parametrize(("offset", "dtype"), [(1e4, torch.float32), (1e13, torch.float64)])
def test_a_mesh_that_has_lost_its_digits_far_from_the_origin_says_so(offset, dtype):
    sphere = icosphere(2)
    with pytest.warns(DomainWarning, match=r"rounds angles and weights by about .* %; subtract the centroid") as caught:
        TriangleMesh((sphere.vertices + offset).to(dtype), sphere.faces)
    assert caught[0].filename == __file__
    far = TriangleMesh(sphere.vertices + 1e4, sphere.faces)  # float64 holds that
    with pytest.warns(DomainWarning, match="there float32 rounds") as caught:
        far.to(torch.float32)
    assert caught[0].filename == __file__


def test_rounding_to_another_precision_is_checked():
    big = icosphere(0, 1e20)
    for narrow in (lambda: big.to(torch.float32), lambda: PointCloud(big.vertices).to(torch.float32)):
        with pytest.raises(DomainError, match=r"beyond what torch\.float32 geometry can hold"):
            narrow()
    with pytest.raises(DomainError, match=r"float32 or float64, not torch\.float16"):
        big.to(torch.float16)
    heavy = Graph(torch.tensor([[0], [1]]), 2, torch.tensor([1e300], dtype=torch.float64))
    with pytest.raises(DomainError, match="edge_weight hold 1 non-finite value"):
        heavy.to(torch.float32)
    with pytest.raises(DomainError, match=r"edge_weight must be float32 or float64, not torch\.bfloat16"):
        heavy.to(torch.bfloat16)


def test_a_domain_does_not_change_with_the_arrays_it_was_made_from():
    vertices, faces = SQUARE.numpy().copy(), TWO.numpy().copy()
    mesh, cloud, graph = TriangleMesh(vertices, faces), PointCloud(vertices), Graph(faces.T[:2], 4)
    vertices[:], faces[:] = 9, 0
    assert torch.equal(mesh.vertices, SQUARE)
    assert torch.equal(mesh.faces, TWO)
    assert torch.equal(cloud.points, SQUARE)
    assert torch.equal(graph.edge_index, TWO.T[:2])


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint8, ">i4"])
def test_any_integers_are_taken_as_faces(kind):
    mesh = TriangleMesh(SQUARE.numpy().astype(">f8"), TWO.numpy().astype(kind)[:, ::-1])
    assert mesh.faces.dtype == torch.int64
    assert torch.equal(mesh.faces, TWO.flip(1))
    assert torch.equal(TriangleMesh(SQUARE.tolist(), TWO.tolist()).faces, TWO)


def test_every_domain_has_a_report():
    mesh = icosphere(1)
    assert mesh.report().faces == 80
    assert mesh.graph().report().edges == 2 * mesh.edges.shape[1]
    assert PointCloud(mesh.vertices).report().points == mesh.num_nodes


@given(mesh=meshes(slivers=False))
def test_a_saved_mesh_comes_back_to_the_last_bit(tmp_path_factory, mesh):
    path = tmp_path_factory.mktemp("mesh") / "mesh.ply"
    mesh.save(path)
    back = load_mesh(path)
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)


@given(mesh=meshes(), size=st.sampled_from([1e-9, 1e9, 1e50, 1e-50]))
def test_a_mesh_of_any_sane_size_has_finite_area_and_laplacian(mesh, size):
    scaled = TriangleMesh(mesh.vertices / mesh.vertices.abs().max() * size, mesh.faces)
    L = robust_laplacian(scaled)
    assert 0 < scaled.area < INF
    assert L.matrix().isfinite().all()


@given(mesh=meshes())
def test_edges_name_each_side_of_each_face_once(mesh):
    expected = sorted({tuple(sorted((f[k], f[k - 1]))) for f in mesh.faces.tolist() for k in range(3)})
    assert [tuple(e) for e in mesh.edges.T.tolist()] == expected
    assert sorted(map(tuple, mesh.graph().edge_index.T.tolist())) == sorted(expected + [(j, i) for i, j in expected])
    assert (mesh.graph().edge_weight == 1).all()


@given(mesh=meshes(slivers=False))
def test_area_is_the_sum_of_herons_areas(mesh):
    x, faces = mesh.arrays
    sides = [np.linalg.norm(x[faces[:, k]] - x[faces[:, k - 1]], axis=1) for k in range(3)]
    half = sum(sides) / 2
    heron = np.sqrt(half * (half - sides[0]) * (half - sides[1]) * (half - sides[2])).sum()
    assert mesh.area == pytest.approx(heron, rel=256 * roundoff(torch.float64) * aspect(mesh) ** 2)


@given(mesh=meshes())
def test_clean_changes_nothing_but_the_orientation_of_a_clean_mesh(mesh):
    clean = mesh.clean()
    assert torch.equal(clean.vertices, mesh.vertices)
    assert torch.equal(clean.faces.sort(dim=1).values, mesh.faces.sort(dim=1).values)
    assert torch.equal(mesh.clean(orient=False).faces, mesh.faces)
    assert torch.equal(clean.clean().faces, clean.faces)


def test_a_cleaned_mesh_knows_the_way_back_for_fields(tmp_path):
    vertices, faces = torch.cat([SQUARE, SQUARE[[0, 2]], SQUARE[:1] + 7]), torch.tensor([[0, 1, 2], [4, 5, 3]])
    write_mesh(tmp_path / "seam.ply", vertices.numpy(), faces.numpy())
    mesh = load_mesh(tmp_path / "seam.ply", clean=True)
    assert str(mesh.cleaning) == "2 vertices welded, 1 vertices without a face dropped"
    x = torch.tensor([[1.0], [2], [3], [4], [5], [6], [7]], dtype=torch.float64)
    assert mesh.cleaning.to_clean(x).flatten().tolist() == [3, 2, 4.5, 4]
    assert mesh.cleaning.to_original(mesh.cleaning.to_clean(x)).flatten().tolist() == [3, 2, 4.5, 4, 3, 4.5, 0]
    assert mesh.to(torch.float32).cleaning is mesh.cleaning
    assert pickle.loads(pickle.dumps(mesh)).cleaning.welded == 2
    assert icosphere(0).cleaning is None


def test_clean_welds_within_a_tolerance():
    shaken = torch.cat([SQUARE, SQUARE[[0, 2]] + 1e-7])
    mesh = TriangleMesh(shaken, torch.tensor([[0, 1, 2], [4, 5, 3]]))
    assert mesh.clean().num_nodes == 6
    assert mesh.clean(tolerance=1e-6).num_nodes == 4


def test_planar_vertices_stay_planar_when_cleaned():
    assert TriangleMesh(SQUARE[:, :2], TWO).clean().vertices.shape == (4, 2)


# Conversions ----------------------------------------------------------------------------------------------------------


@given(graph=graphs())
def test_graph_to_pyg_and_back(graph):
    back = Graph.from_pyg(graph.to_pyg())
    assert back.nodes == graph.nodes
    assert torch.equal(back.edge_index, graph.edge_index)
    assert torch.equal(back.edge_weight, graph.edge_weight)


@given(mesh=meshes())
def test_mesh_and_points_to_pyg_and_back(mesh):
    back = TriangleMesh.from_pyg(mesh.to_pyg())
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert torch.equal(mesh.to_pyg().edge_index, mesh.graph().edge_index)
    assert torch.equal(PointCloud.from_pyg(PointCloud(mesh.vertices).to_pyg()).points, mesh.vertices)


def test_graph_reads_a_one_column_edge_attr_as_weight():
    data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), edge_attr=torch.tensor([[2.0], [2.0]]), num_nodes=3)
    graph = Graph.from_pyg(data)
    assert graph.nodes == 3
    assert graph.edge_weight.tolist() == [2.0, 2.0]


def test_pyg_data_without_what_is_needed_is_refused_with_the_cure():
    with pytest.raises(DomainError, match=r"no edge_index: build a PointCloud and connect it with \.knn_graph\(k\)"):
        Graph.from_pyg(Data(pos=SQUARE))
    with pytest.raises(DomainError, match=r"needs `pos` \(n, 3\) and `face` \(3, m\)"):
        TriangleMesh.from_pyg(Data(pos=SQUARE))
    with pytest.raises(DomainError, match="no pos: a point cloud needs coordinates"):
        PointCloud.from_pyg(Data(edge_index=TWO.T))


@given(graph=graphs(), mesh=meshes())
def test_to_converts_floats_and_leaves_indices_and_the_original_alone(graph, mesh):
    narrow = graph.to(torch.float32)
    assert torch.equal(narrow.edge_weight, graph.edge_weight.float())
    assert torch.equal(narrow.edge_index, graph.edge_index)
    assert narrow.edge_index.dtype == mesh.to(torch.float32).faces.dtype == torch.int64
    assert graph.edge_weight.dtype == torch.float64
    assert torch.equal(mesh.to(torch.float32).vertices, mesh.vertices.float())
    assert torch.equal(mesh.to(torch.float32).to(torch.float64).vertices, mesh.vertices.float().double())
    assert mesh.to("meta").faces.device.type == "meta"
    assert PointCloud(mesh.vertices).to(torch.float32).points.dtype == torch.float32


def test_domains_are_frozen():
    cloud = PointCloud(SQUARE)
    for domain, name in ((icosphere(0), "vertices"), (cloud, "points"), (cloud.knn_graph(1), "nodes")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(domain, name, None)


# Graphs and point clouds ----------------------------------------------------------------------------------------------


@given(graph=graphs())
def test_undirected_halves_the_sum_of_both_directions(graph):
    def dense(g):
        W = torch.zeros(g.nodes, g.nodes, dtype=torch.float64)
        return W.index_put((g.edge_index[0], g.edge_index[1]), g.edge_weight, accumulate=True)

    half = Graph(graph.edge_index[:, ::2], graph.nodes, graph.edge_weight[::2])
    W = dense(half)
    torch.testing.assert_close(dense(half.undirected()), (W + W.T) / 2, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (with_entry(SQUARE, 0, 1, NAN), r"points hold 1 non-finite value, the first \(nan\) at index \[0, 1\]: remove"),
        (SQUARE[:0], "points is empty: a domain needs at least one point"),
        (SQUARE[:, :0], "points is empty"),
        (SQUARE[0], r"shape \(n, d\), not \(3,\)"),
        (SQUARE.long(), r"float32 or float64, not torch\.int64"),
        (SQUARE + 0j, r"float32 or float64, not torch\.complex128"),
        (SQUARE * 1e150, "change the unit of length"),
        (SQUARE * 1e-150, "change the unit of length"),
        ([[0.0], []], "points must be an array or tensor of numbers"),
    ],
)
def test_bad_points_are_refused(points, match):
    with pytest.raises(DomainError, match=match):
        PointCloud(points)


EDGE = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((EDGE, 1), "edge_index hold the index 1, but there are only 1 points"),
        ((-EDGE, 2), "negative index -1"),
        ((EDGE.to(torch.int8), 300), "torch.int8, which ends at 127, but there are 300 points"),
        (("edges", 2), "edge_index must be an array or tensor of numbers, not this str"),
        ((EDGE, 2, "weights"), "edge_weight must be an array or tensor of numbers, not this str"),
        ((EDGE.double(), 2), r"integers, not torch\.float64"),
        ((EDGE.bool(), 2), r"integers, not torch\.bool"),
        ((torch.tensor([[0], [1], [2]]), 3), r"edge_index must have shape \(2, n\), not \(3, 1\)"),
        ((EDGE[:, :0], 0), "nodes must be a positive integer, not 0: a graph needs at least one node"),
        ((EDGE, 2.0), r"nodes must be a positive integer, not 2\.0"),
        ((EDGE, True), "nodes must be a positive integer, not True"),
        ((EDGE, 2, torch.ones(3)), r"edge_weight must have shape \(2,\), one for each edge, not \(3,\)"),
        ((EDGE, 2, torch.ones(2, dtype=torch.int64)), r"float32 or float64, not torch\.int64"),
        ((EDGE, 2, torch.tensor([1.0, NAN])), r"edge_weight hold 1 non-finite value, the first \(nan\) at index \[1\]"),
        ((EDGE, 2, torch.tensor([INF, 1.0])), r"\(inf\) at index \[0\]"),
    ],
)
def test_bad_graphs_are_refused(arguments, match):
    with pytest.raises(DomainError, match=match):
        Graph(*arguments)


def test_a_graph_without_edges_or_weights_is_fine():
    graph = Graph(EDGE[:, :0], 3)
    assert graph.num_nodes == 3
    assert graph.edge_weight.shape == (0,)
    assert Graph(EDGE, 2).edge_weight.tolist() == [1.0, 1.0]


def test_a_domain_shows_its_shape_and_not_its_numbers():
    mesh = icosphere(1)
    assert repr(mesh) == "TriangleMesh(vertices=[42, 3] float64, faces=[80, 3] int64, cpu)"
    assert repr(mesh.graph()) == "Graph(edge_index=[2, 240] int64, nodes=42, edge_weight=[240] float64, cpu)"
    assert repr(PointCloud(mesh.vertices.float())) == "PointCloud(points=[42, 3] float32, cpu)"


def test_vertices_have_gradients_through_cleaning():
    """The kept vertices are the given ones: the gradient of their sum is one, and zero on those welded away."""
    mesh = icosphere(1)
    faces = mesh.faces.clone()
    faces[0, 0] = mesh.num_nodes
    vertices = torch.cat([mesh.vertices, mesh.vertices[mesh.faces[0, :1]]]).requires_grad_()
    with pytest.warns(DomainWarning, match="coincide"):
        seamed = TriangleMesh(vertices, faces)
    cleaned = seamed.clean()
    assert torch.equal(cleaned.vertices, mesh.vertices)
    (gradient,) = torch.autograd.grad(cleaned.vertices.sum(), vertices)
    assert gradient[:-1].eq(1).all()
    assert gradient[-1].eq(0).all()


def test_a_device_and_a_precision_may_come_together():
    mesh = icosphere(0)
    for moved in (mesh.to("cpu", torch.float32), mesh.to(device="cpu", dtype=torch.float32), mesh.to(torch.float32)):
        assert moved.vertices.dtype == torch.float32
        assert moved.faces.dtype == torch.int64
    assert mesh.to("cpu").device == mesh.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("use", "wanted"),
    [
        (lambda: robust_laplacian(icosphere(0).graph()), "'vertices': what is wanted here is a TriangleMesh"),
        (lambda: operators.combinatorial_laplacian(icosphere(0)), r"here is a Graph, such as mesh\.graph\(\)"),
        (lambda: operators.boundary_loops(PointCloud(icosphere(0).vertices)), "a TriangleMesh"),
        (lambda: operators.point_cloud_laplacian(icosphere(1)), r"PointCloud\(mesh\.vertices\)"),
        (lambda: operators.grid_laplacian(operators.grid(3, 3)), "a Grid"),
        (lambda: operators.eigenpairs(icosphere(0), 3), "a Laplacian"),
        (lambda: icosphere(0).colour, "no attribute 'colour'$"),
    ],
)
def test_the_wrong_kind_of_domain_is_told_which_one_is_wanted(use, wanted):
    with pytest.raises(AttributeError, match=wanted):
        use()


def test_weights_may_come_as_any_array():
    cloud = PointCloud(icosphere(0).vertices.float())
    assert torch.equal(cloud.knn_graph(3, lambda r: np.ones(len(r))).edge_weight, cloud.knn_graph(3).edge_weight)
    with pytest.raises(DomainError, match=r"edge_weight must have shape"):
        cloud.knn_graph(3, lambda r: 1.0)


def test_arrays_survive_a_mesh_that_goes_to_another_process():
    mesh = icosphere(1)
    before = [part.copy() for part in mesh.arrays]
    # Pickling for a process moves the tensors' storage to shared memory.
    ForkingPickler.dumps(mesh)
    for part, was in zip(mesh.arrays, before, strict=True):
        np.testing.assert_array_equal(part, was)
        assert not np.shares_memory(part, mesh.vertices.numpy())
