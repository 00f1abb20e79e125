"""Distances agree with closed forms, unreachable is infinite, and nothing bad reaches the native code."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, meshes
from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.geodesics import HeatMethod, VectorHeatMethod, geodesic_distance, geodesic_path, log_map
from operators.shapes import grid, icosphere

SPHERE = icosphere(4)
ANGLE = torch.arccos((SPHERE.vertices @ SPHERE.vertices[0]).clamp(-1, 1))
BOW_TIE = TriangleMesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], dtype=torch.float64),
    torch.tensor([[0, 1, 2], [0, 3, 4]]),
)
TRIANGLE = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2]]))


def twice(mesh):
    """Two copies side by side."""
    shift = torch.tensor([5.0, 0, 0], dtype=mesh.vertices.dtype)
    return TriangleMesh(torch.cat([mesh.vertices, mesh.vertices + shift]), torch.cat([mesh.faces, mesh.faces + mesh.num_nodes]))


def length(path):
    return float((path[1:] - path[:-1]).norm(dim=1).sum())


@pytest.mark.parametrize("build", [HeatMethod, VectorHeatMethod, lambda mesh: geodesic_path(mesh, 0, 1)])
def test_a_gradient_that_would_be_lost_is_refused(build):
    mesh = TriangleMesh(TRIANGLE.vertices.clone().requires_grad_(), TRIANGLE.faces)
    with pytest.raises(DomainError, match="no gradient in the points"):
        build(mesh)
    with torch.no_grad():
        build(mesh)


@pytest.mark.parametrize("method", [HeatMethod(TRIANGLE), VectorHeatMethod(TRIANGLE)])
def test_a_copy_and_a_pickle_leave_the_native_factors_behind(method):
    def ask(method):
        return method.distance(0) if isinstance(method, HeatMethod) else method.log_map(0)

    expected = ask(method)
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert torch.equal(ask(other), expected)


# Distance -------------------------------------------------------------------------------------------------------------


def test_distance_on_the_sphere_is_the_angle():
    # Discretisation: 1 % of the diameter π at 2562 vertices.
    assert_within(geodesic_distance(SPHERE, 0), ANGLE, 0.01 * math.pi)


def test_distance_in_the_plane_is_euclidean():
    mesh = grid(30, 30)
    # Discretisation: 3.4 % of the diameter; smoothing rounds the distance off at the boundary.
    assert_within(geodesic_distance(mesh, 0), mesh.vertices.norm(dim=1), 0.034 * math.sqrt(2))


def test_distance_converges_as_the_mesh_is_refined():
    errors = []
    for mesh in (icosphere(2), icosphere(3), icosphere(4)):
        exact = torch.arccos((mesh.vertices @ mesh.vertices[0]).clamp(-1, 1))
        errors.append(float((geodesic_distance(mesh, 0) - exact).abs().max()))
    assert errors[2] < 0.6 * errors[1] < 0.6 * 0.6 * errors[0]


def test_several_sources_give_the_distance_from_the_nearest():
    heat = HeatMethod(SPHERE)
    nearest = torch.minimum(heat.distance(0), heat.distance(1))
    # The method smooths the ridge where two fronts meet, so this law holds to discretisation error only.
    assert_within(heat.distance([0, 1]), nearest, 0.03 * math.pi)
    assert torch.equal(heat.distance(torch.tensor([1, 0])), heat.distance([0, 1]))


def test_a_source_named_twice_is_one_source():
    heat = HeatMethod(SPHERE)
    assert torch.equal(heat.distance([0, 1, 0, 0, 1, 0]), heat.distance([0, 1]))


def test_other_components_are_infinitely_far():
    pair, n = twice(SPHERE), SPHERE.num_nodes
    d = geodesic_distance(pair, 3)
    assert torch.isinf(d[n:]).all()
    # The copy beside it is centred with other rounding, amplified by the ill-conditioned solves.
    assert_within(d[:n], geodesic_distance(SPHERE, 3), 1e-10)
    assert torch.isfinite(geodesic_distance(pair, [3, n])).all()


@settings(max_examples=15)
@given(data=st.data())
def test_distance_is_finite_and_positive_exactly_within_reach(data):
    mesh = data.draw(meshes(slivers=False))
    source = data.draw(st.integers(0, mesh.num_nodes - 1))
    d = geodesic_distance(mesh, source)
    reach = torch.zeros(mesh.num_nodes, dtype=torch.bool)
    reach[source] = True
    for _ in range(mesh.num_nodes):
        reach[mesh.faces[reach[mesh.faces].any(1)]] = True
    assert torch.equal(torch.isfinite(d), reach)
    assert d[source] == 0
    assert (d >= 0).all()


def test_every_real_mesh_has_finite_distances_on_its_component(real_mesh):
    d = geodesic_distance(real_mesh, 0)
    reached = d[torch.isfinite(d)]
    size = float((real_mesh.vertices - real_mesh.vertices.mean(0)).norm(dim=1).max())
    assert len(reached) >= 3
    # No path is shorter than the straight line; ragged meshes miss that by their discretisation error.
    straight = (real_mesh.vertices - real_mesh.vertices[0]).norm(dim=1)[torch.isfinite(d)]
    assert (reached >= straight - 0.1 * size).all()
    assert float(reached.max()) < 100 * size


@pytest.mark.parametrize("scale", [1e-50, 2.0**-30, 1e50])
def test_distance_scales_with_the_unit_of_length_and_forgets_the_origin(scale):
    moved = TriangleMesh((SPHERE.vertices + 3) * scale, SPHERE.faces)
    # Moving rounds the coordinates; the heat solves amplify that.
    assert_within(geodesic_distance(moved, 0) / scale, geodesic_distance(SPHERE, 0), 1e-10)


def test_result_has_the_precision_of_the_mesh():
    mesh = SPHERE.to(torch.float32)
    assert geodesic_distance(mesh, 0).dtype == torch.float32
    assert log_map(mesh, 0).dtype == torch.float32
    assert geodesic_path(mesh, 0, 5).dtype == torch.float32


@pytest.mark.parametrize("bad", [-1, 2562, 10**30, 1.0, True, None, "0", [], [0, 2562], [True], [[0]], torch.tensor([0.0])])
def test_bad_sources_never_reach_the_native_code(bad):
    for call in (lambda: geodesic_distance(SPHERE, bad), lambda: log_map(SPHERE, bad), lambda: geodesic_path(SPHERE, 0, bad)):
        with pytest.raises(DomainError, match=r"no vertex|sources must be"):
            call()


@pytest.mark.parametrize("two", [[0, 1], torch.tensor([0, 1])])
def test_a_map_has_one_source(two):
    with pytest.raises(DomainError, match="exactly one vertex"):
        log_map(SPHERE, two)


@pytest.mark.parametrize("smoothing", [0.0, -1.0, math.nan, math.inf, 1e-3, 1e9, True])
@pytest.mark.parametrize("method", [HeatMethod, VectorHeatMethod])
def test_smoothing_out_of_range_is_refused(method, smoothing):
    with pytest.raises(DomainError, match=r"between 0\.1 and 1000"):
        method(SPHERE, smoothing)


# Directions -----------------------------------------------------------------------------------------------------------


def test_logarithm_has_the_length_of_the_distance():
    logarithm = log_map(SPHERE, 0)
    near = ANGLE < 2
    # Discretisation; nearer to the antipode, where directions have no limit, the map is not meaningful.
    assert_within(logarithm.norm(dim=1)[near], ANGLE[near], 0.005 * math.pi)


def test_logarithm_in_the_plane_is_the_difference_turned_into_the_frame():
    mesh = grid(15, 15)
    middle = 7 * 15 + 7
    vector_heat = VectorHeatMethod(mesh)
    difference = mesh.vertices - mesh.vertices[middle]
    inside = difference.norm(dim=1) < 0.4
    expected = difference @ vector_heat.frames[middle, :2].T
    # Discretisation, 3 % of the diameter; at the boundary the angles, and with them the directions, are scaled.
    assert_within(vector_heat.log_map(middle)[inside], expected[inside], 0.03 * math.sqrt(2))


def test_frames_are_orthonormal():
    frames = VectorHeatMethod(SPHERE).frames
    assert_within(frames @ frames.mT, torch.eye(3, dtype=torch.float64), 1e-12)
    assert (torch.linalg.det(frames) > 0).all()


def test_transport_keeps_the_length_and_is_linear_in_scale():
    vector_heat = VectorHeatMethod(SPHERE)
    carried = vector_heat.transport(0, [0.6, 0.8])
    assert_within(carried.norm(dim=1), 1.0, 1e-9)
    assert_within(carried[0], torch.tensor([0.6, 0.8], dtype=torch.float64), 1e-6)
    assert_within(vector_heat.transport(0, [6e9, 8e9]), 1e10 * carried, 1e-2)
    assert (vector_heat.transport(0, [0.0, 0.0]) == 0).all()


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_transport_of_a_tiny_or_huge_vector_is_that_of_its_direction(size):
    heat = VectorHeatMethod(icosphere(1))
    plain = heat.transport(0, [0.6, 0.8])
    assert_within(heat.transport(0, [0.6 * size, 0.8 * size]) / size, plain, 1e-13)


def test_vectors_on_other_components_are_infinite_or_zero():
    pair, n = twice(SPHERE), SPHERE.num_nodes
    vector_heat = VectorHeatMethod(pair)
    assert torch.isinf(vector_heat.log_map(n + 1)[:n]).all()
    assert torch.isfinite(vector_heat.log_map(n + 1)[n:]).all()
    assert (vector_heat.transport(0, [1.0, 0.0])[n:] == 0).all()


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan], [1.0, 2.0, 3.0], torch.zeros(2, 1)])
def test_bad_tangent_vectors_are_refused(bad):
    with pytest.raises(DomainError, match="two finite components"):
        VectorHeatMethod(SPHERE).transport(0, bad)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (BOW_TIE, "two fans of faces meet"),
        (TriangleMesh(SPHERE.vertices, torch.cat([SPHERE.faces[:1].flip(1), SPHERE.faces[1:]])), "disagree in orientation"),
        (
            TriangleMesh(
                torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0.5], [-1, -1, 0.25]]),
                torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4]]),
            ),
            "more than two faces",
        ),
    ],
)
def test_directions_need_an_oriented_manifold_and_distance_does_not(mesh, message):
    for call in (lambda: log_map(mesh, 0), lambda: geodesic_path(mesh, 0, 1)):
        with pytest.raises(DomainError, match=message):
            call()
    assert torch.isfinite(geodesic_distance(mesh, 0)).all()


@settings(max_examples=15)
@given(data=st.data())
def test_log_map_of_any_mesh_is_an_answer_or_a_named_defect(data):
    mesh = data.draw(meshes(slivers=False))
    source = data.draw(st.integers(0, mesh.num_nodes - 1))
    try:
        logarithm = log_map(mesh, source)
    except DomainError as error:
        assert "manifold" in str(error) or "orientation" in str(error)  # noqa: PT017
    else:
        assert torch.equal(torch.isfinite(logarithm).all(1), torch.isfinite(geodesic_distance(mesh, source)))


# Paths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [7, 100, 2000])
def test_path_on_the_sphere_is_as_long_as_the_angle_and_ends_at_its_ends(end):
    path = geodesic_path(SPHERE, 0, end)
    # A chord of an edge h is shorter than its arc by h²/24: 2e-4 relative here; the path may also cross edges slightly longer.
    assert length(path) == pytest.approx(float(ANGLE[end]), rel=1e-3)
    assert_within(path[[0, -1]], SPHERE.vertices[[0, end]], 1e-14)


def test_path_in_the_plane_is_straight():
    mesh = grid(9, 7)
    path = geodesic_path(mesh, 0, mesh.num_nodes - 1)
    assert length(path) == pytest.approx(math.sqrt(2), rel=1e-12)


def test_path_to_itself_is_one_point_and_to_another_component_is_refused():
    assert torch.equal(geodesic_path(SPHERE, 4, 4), SPHERE.vertices[[4]])
    assert geodesic_path(TRIANGLE, 1, 2).shape == (2, 3)
    with pytest.raises(DomainError, match="different components"):
        geodesic_path(twice(SPHERE), 0, SPHERE.num_nodes)
