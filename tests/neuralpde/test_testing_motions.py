"""Motions are permutations and isometries, exact where promised, move what the laws move, and shrink to none."""

import pytest
import torch
from drawing import drawn, least
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing_bounds import assert_within
from neuralpde.testing_fields import fields
from neuralpde.testing_graphs import graphs
from neuralpde.testing_motions import moved, permutations, permuted, rigid_motions
from operators import DomainError, Grid, PointCloud, combinatorial_laplacian, cotangent_laplacian, icosphere


@given(data=st.data(), graph=graphs())
def test_a_permuted_graph_has_the_permuted_laplacian(data, graph):
    p = data.draw(permutations(graph.nodes))
    here, there = combinatorial_laplacian(graph).matrix(), combinatorial_laplacian(permuted(graph, p)).matrix()
    assert_within(there, here[p][:, p], 1e-12 * float(here.abs().max()))


def test_meshes_and_clouds_are_permuted_with_their_fields():
    mesh = icosphere(0)
    p = torch.randperm(12)
    there = permuted(mesh, p)
    x = torch.randn(12, 1, dtype=torch.float64)
    assert_within(cotangent_laplacian(there) @ x[p], (cotangent_laplacian(mesh) @ x)[p], 1e-12)
    assert torch.equal(permuted(PointCloud(mesh.vertices), p).points, mesh.vertices[p])
    with pytest.raises(DomainError, match="Grid cannot be renumbered"):
        permuted(Grid((2, 3)), torch.arange(6))
    with pytest.raises(ValueError, match="holds each of"):
        permuted(mesh, torch.zeros(12, dtype=torch.int64))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_motions_keep_distances(dimensions):
    for R, s in drawn(rigid_motions(dimensions), 60):
        assert_within(R @ R.T, torch.eye(dimensions, dtype=torch.float64), 1e-14)
        assert float(torch.linalg.det(R)) == pytest.approx(1)
        assert s.shape == (dimensions,)
        assert float(s.abs().max()) <= 8


def test_reflections_and_wild_turns_occur():
    seen = drawn(rigid_motions(reflections=True, furthest=2.0), 80)
    assert 10 < sum(float(torch.linalg.det(R)) < 0 for R, _ in seen) < 70
    assert sum(bool((R.round() != R).any()) for R, _ in seen) > 20
    assert sum(bool((s != 0).any()) for _, s in seen) > 20
    assert all(float(s.abs().max()) <= 2 for _, s in seen)


@given(motion=rigid_motions(exact=True), points=fields(5, 3, exact=True, dtype=torch.float32))
def test_exact_motions_move_small_dyadic_positions_and_back_without_round_off(motion, points):
    R, s = motion
    there = moved(PointCloud(points), R, s)
    assert torch.equal((there.points.double() - s) @ R, points.double())


def test_what_has_no_positions_cannot_be_moved():
    R, s = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for domain in (icosphere(0).graph(), Grid((2, 3))):
        with pytest.raises(DomainError, match="no positions"):
            moved(domain, R, s)
    with pytest.raises(ValueError, match="two dimensions or more"):
        drawn(rigid_motions(1), 1)


def test_shrinking_leaves_one_swap_or_one_quarter_turn():
    assert least(permutations(5), lambda p: True).tolist() == [0, 1, 2, 3, 4]
    swap = least(permutations(5), lambda p: p.tolist() != [0, 1, 2, 3, 4])
    assert int((swap != torch.arange(5)).sum()) == 2
    R, s = least(rigid_motions(), lambda motion: True)
    assert torch.equal(R, torch.eye(3, dtype=torch.float64))
    assert s.tolist() == [0, 0, 0]
    R, s = least(rigid_motions(), lambda motion: bool((motion[0] != torch.eye(3)).any()))
    assert int((R == 0).sum()) == 6, "a quarter turn"
    assert s.tolist() == [0, 0, 0]
