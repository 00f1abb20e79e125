"""A report counts what the definition says, agrees with published counts, and takes any arrays."""

import csv
import dataclasses
import math
import os
import time
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import graphs, meshes
from operators import DomainError, Graph, PointCloud, grid, icosphere, read_mesh, torus
from operators.report import corner_angles, report_mesh

DATA = Path(os.environ.get("NEURALPDE_DATA") or Path(__file__).parents[3] / "shared" / "data") / "meshes"
TABLE = DATA / "meshes.tsv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines(), delimiter="\t")) if TABLE.exists() else []
TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
NAN, INF = math.nan, math.inf


@pytest.mark.skipif(not ROWS, reason=f"no {TABLE}: set NEURALPDE_DATA to the data folder")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_counts_agree_with_those_that_were_published_with_the_meshes(row):
    """They were counted by another program, and rounded to two or three decimals."""
    report = report_mesh(*read_mesh(DATA / row["file"]))
    expected = {
        "vertices": "vertices",
        "faces": "faces",
        "components": "components",
        "boundary_edges": "boundary_edges",
        "non_manifold_edges": "nonmanifold_edges",
        "non_manifold_vertices": "nonmanifold_vertices",
        "euler_characteristic": "euler_char",
        "coincident_vertices": "duplicate_points",
        "unreferenced_vertices": "unreferenced",
    }
    assert {ours: getattr(report, ours) for ours in expected} == {ours: int(row[k]) for ours, k in expected.items()}
    assert report.closed == (row["closed"] == "yes")
    assert report.manifold == (row["manifold"] == "yes")
    assert report.least_angle_degrees == pytest.approx(float(row["min_angle_deg"]), abs=0.006)
    assert report.largest_angle_degrees == pytest.approx(float(row["max_angle_deg"]), abs=0.006)
    # The rectangles of the latitude-longitude sphere are concyclic up to the rounding of its float32 file, which they count.
    share = 0.0 if row["file"] == "sphere.ply" else float(row["pct_nonDelaunay_inner_edges"])
    assert 100 * report.non_delaunay_share == pytest.approx(share, abs=0.006)
    assert str(report).startswith("MeshReport")


@pytest.mark.parametrize(
    ("mesh", "euler", "volume"), [(icosphere(3), 2, 4 / 3 * math.pi), (torus(64, 32, 1.0, 0.4), 0, 2 * math.pi**2 * 0.16)]
)
def test_closed_surfaces_of_known_shape(mesh, euler, volume):
    report = mesh.report()
    assert (report.components, report.euler_characteristic) == (1, euler)
    assert report.closed and report.manifold and report.orientable and report.consistently_oriented  # noqa: PT018
    assert report.volume == pytest.approx(volume, rel=0.03)
    assert report.area == pytest.approx(mesh.area, rel=1e-13)
    assert report.problems == ()
    assert "no problems" in str(report)


def test_a_square_of_right_triangles():
    report = grid(5, 4).report()
    assert (report.boundary_edges, report.boundary_loops, report.euler_characteristic) == (14, 1, 1)
    assert report.volume is None
    assert report.largest_angle_degrees == pytest.approx(90)
    assert (report.non_delaunay_share, report.obtuse_boundary_share) == (0, 0)


@given(mesh=meshes())
def test_valid_meshes_have_none_of_the_defects_that_are_refused(mesh):
    report = mesh.report()
    defects = ["non_finite_vertices", "out_of_range_faces", "repeated_index_faces", "flat_faces", "duplicate_faces"]
    assert [getattr(report, name) for name in defects] == [0] * 5
    assert report.unreferenced_vertices == report.coincident_vertices == 0
    assert 0 < report.least_angle_degrees <= 60 + 1e-9
    angles = corner_angles(*mesh.arrays)
    assert np.allclose(angles.sum(axis=1), 180, atol=1e-9)
    assert mesh.clean().report().consistently_oriented == report.orientable or not report.orientable


@given(mesh=meshes(slivers=False), k=st.sampled_from([-200, 0, 200]))
def test_counts_and_angles_do_not_depend_on_scale(mesh, k):
    points, faces = mesh.arrays
    here, there = report_mesh(points, faces), report_mesh(points * 2.0**k, faces)
    scaled = {"extent", "distance_from_origin", "area", "volume"}
    for field in dataclasses.fields(here):
        if field.name not in scaled:
            assert getattr(here, field.name) == getattr(there, field.name), field.name
    assert there.area == pytest.approx(here.area * 4.0**k, rel=1e-12)


BAD = {
    "NaN": ([[0, 0, NAN], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], "non_finite_vertices"),
    "inf": ([[0, 0, INF], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], "non_finite_vertices"),
    "negative index": (TRIANGLE, [[0, 1, -1]], "out_of_range_faces"),
    "index too large": (TRIANGLE, [[0, 1, 2**40]], "out_of_range_faces"),
    "aab": (TRIANGLE, [[0, 1, 2], [0, 0, 1]], "repeated_index_faces"),
    "aaa": (TRIANGLE, [[0, 1, 2], [1, 1, 1]], "repeated_index_faces"),
    "collinear": ([[0, 0, 0], [1, 0, 0], [2, 0, 0.0]], [[0, 1, 2]], "flat_faces"),
    "coincident": ([[0, 0, 0], [0, 0, 0], [2, 0, 0.0]], [[0, 1, 2]], "coincident_vertices"),
    "flipped duplicate": (TRIANGLE, [[0, 1, 2], [2, 1, 0]], "duplicate_faces"),
    "unreferenced": (np.concatenate([TRIANGLE, [[9, 9, 9]]]), [[0, 1, 2]], "unreferenced_vertices"),
    "a needle": ([[0, 0, 0], [1, 0, 0], [0, 1e-3, 0]], [[0, 1, 2]], "thin_faces"),
    "disagreeing": (np.concatenate([TRIANGLE, [[1, 1, 0]]]), [[0, 1, 2], [1, 2, 3]], None),
    "no faces": (TRIANGLE, np.zeros((0, 3), dtype=np.int64), None),
    "nothing": (np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), None),
    "faces of nothing": (np.zeros((0, 3)), [[0, 1, 2]], "out_of_range_faces"),
}


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150, 1e300])
@pytest.mark.parametrize("case", BAD)
def test_any_arrays_are_reported_with_their_problem(case, scale):
    points, faces, count = BAD[case]
    with np.errstate(invalid="ignore"):
        report = report_mesh(np.array(points, dtype=np.float64).reshape(-1, 3) * scale, faces)
    assert count is None or getattr(report, count) == 1
    assert report.problems
    assert all(problem in str(report) for problem in report.problems)
    assert "nan" not in str(report)


@given(
    points=st.lists(st.tuples(*[st.floats()] * 3), max_size=6),
    faces=st.lists(st.tuples(*[st.integers(-2, 7)] * 3), max_size=8),
)
def test_nothing_that_has_the_shape_of_a_mesh_raises(points, faces):
    report = report_mesh(np.array(points, dtype=np.float64).reshape(-1, 3), np.array(faces, dtype=np.int64).reshape(-1, 3))
    assert report.faces == len(faces)
    assert "nan" not in str(report)


@pytest.mark.parametrize(
    ("points", "faces", "match"),
    [
        (TRIANGLE, [[0.0, 1, 2]], "faces must hold integers"),
        (TRIANGLE, [[True, False, True]], "faces must hold integers"),
        (TRIANGLE, [[0, 1, 2, 0]], "triangulate polygons first"),
        (TRIANGLE + 1j, [[0, 1, 2]], "vertices must be real"),
        (TRIANGLE[0], [[0, 1, 2]], r"shape \(n, 2 or 3\)"),
        ("a path", [[0, 1, 2]], "vertices must be an array or tensor of numbers"),
    ],
)
def test_what_is_no_triangle_list_is_refused(points, faces, match):
    with pytest.raises(DomainError, match=match):
        report_mesh(points, faces)


def test_time_grows_with_the_mesh_and_not_with_its_square():
    """Sixteen times the faces may take sixteen times as long and a little for sorting; CPU time, so that others do not count."""

    def seconds(refinements):
        taken = []
        for _ in range(3):  # the best of three: on a busy machine one run may take several times as long
            mesh = icosphere(refinements)
            start = time.process_time()
            mesh.report()
            taken.append(time.process_time() - start)
        return min(taken)

    seconds(2)
    assert seconds(6) < 64 * max(seconds(4), 1e-3)


# Graphs and points ----------------------------------------------------------------------------------------------------


@given(graph=graphs())
def test_graphs_are_counted_as_networkx_counts_them(graph):
    report = graph.report()
    reference = networkx.Graph()
    reference.add_nodes_from(range(graph.nodes))
    reference.add_edges_from((i, j) for i, j in graph.edge_index.T.tolist() if i != j)
    pairs = list(map(tuple, graph.edge_index.T.tolist()))
    assert report.components == networkx.number_connected_components(reference)
    assert report.isolated_nodes == networkx.number_of_isolates(reference)
    degrees = [degree for _, degree in reference.degree()]
    assert (report.least_degree, report.largest_degree) == (min(degrees), max(degrees))
    assert report.mean_degree == pytest.approx(np.mean(degrees))
    assert report.repeated_edges == len(pairs) - len(set(pairs))
    assert report.self_loops == sum(i == j for i, j in pairs)
    assert report.undirected
    assert "undirected()" not in str(report)


def test_a_directed_graph_is_told():
    for index, weight in (([[0], [1]], [1.0]), ([[0, 1], [1, 0]], [1.0, 2.0])):
        graph = Graph(torch.tensor(index), 3, torch.tensor(weight))
        assert not graph.report().undirected
        assert "use graph.undirected()" in str(graph.report())
        assert graph.undirected().report().undirected
        assert graph.report().isolated_nodes == 1


def test_weights_are_told():
    report = Graph(torch.tensor([[0, 1, 1], [1, 0, 1]]), 2, torch.tensor([-1.0, -1, 0])).report()
    assert (report.negative_weights, report.zero_weights, report.self_loops) == (2, 1, 1)
    assert (report.least_weight, report.largest_weight) == (-1, 0)
    assert Graph(torch.zeros(2, 0, dtype=torch.int64), 2).report().least_weight is None


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_rank_is_the_dimension_of_the_flat(rank, offset):
    points = torch.randn(20, rank, dtype=torch.float64) @ torch.randn(rank, 3, dtype=torch.float64) + offset
    report = PointCloud(points).report()
    assert report.rank == rank
    assert ("dimensions only" in str(report)) == (rank < 3)


def test_points_are_measured():
    line = torch.tensor([[0.0], [1], [3], [3], [200]])
    report = PointCloud(line).report()
    assert (report.points, report.coincident_points, report.rank) == (5, 1, 1)
    assert (report.least_spacing, report.median_spacing, report.largest_spacing) == (1, 1.5, 197)
    assert "look for outliers" in str(report)
    assert PointCloud(line[:1]).report().least_spacing is None
