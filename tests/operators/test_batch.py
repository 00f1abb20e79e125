"""A batch of ragged domains is one domain, on which every operator acts member by member."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    FieldError,
    PointCloud,
    combinatorial_laplacian,
    cotangent_laplacian,
    icosphere,
    random_walk_laplacian,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.batch import batch, block_diagonal
from operators.grids import Grid
from operators.neighbours import Gaussian

ON_GRAPHS = [combinatorial_laplacian, symmetric_laplacian, random_walk_laplacian]
U = roundoff(torch.float64)


def blocks(operators):
    return sp.block_diag([operator.stiffness.to_scipy() for operator in operators]).toarray()


def same_as_singly(build, joined, amplification=1.0):
    """Entrywise: every entry is a sum over the same few numbers, in an order that may differ."""
    L, singly = build(joined.union), [build(member) for member in joined.members]
    expected = torch.from_numpy(blocks(singly))
    bound = 8 * U * amplification * expected.abs().max(1).values
    assert_within(torch.from_numpy(L.stiffness.to_scipy().toarray()), expected, bound[:, None])
    masses = torch.cat([member.mass for member in singly])
    assert_within(L.mass, masses, 8 * U * amplification * masses)


@pytest.mark.parametrize("build", ON_GRAPHS)
@given(members=st.lists(graphs(), min_size=1, max_size=4))
def test_laplacians_of_a_union_of_graphs_are_block_diagonal(build, members):
    same_as_singly(build, batch(members))


@given(members=st.lists(meshes(), min_size=1, max_size=3))
def test_the_cotangent_laplacian_of_a_union_of_meshes_is_block_diagonal(members):
    """Up to what the rounding about another centroid does to the angles of slivers."""
    joined = batch(members)
    L = cotangent_laplacian(joined.union)
    singly = block_diagonal([cotangent_laplacian(member) for member in members])
    reach = max(float(member.vertices.abs().max()) for member in members)
    pattern, other = L.stiffness.pattern, singly.stiffness.pattern
    assert torch.equal(pattern.crow, other.crow)
    assert torch.equal(pattern.col, other.col)
    start = 0
    for member in members:
        rows = (pattern.row >= start) & (pattern.row < start + member.num_nodes)
        expected = singly.stiffness.values[rows]
        # d cot = dθ (1 + cot²) and dθ = 2.5 u max|x| / h; the largest weight stands for the cotangents.
        points, faces = member.arrays
        a, b, c = (points[faces[:, k]] for k in range(3))
        longest = max(np.linalg.norm(e, axis=1).max() for e in (b - a, c - b, a - c))
        height = float((np.linalg.norm(np.cross(b - a, c - a), axis=1) / longest).min())
        bound = 32 * U * reach / height * (1 + float(expected.abs().max()) ** 2)
        assert_within(L.stiffness.values[rows], expected, bound)
        start += member.num_nodes


def test_the_robust_laplacian_of_a_union_of_meshes_of_one_scale_is_block_diagonal():
    joined = batch([icosphere(1), torus(6, 5), icosphere(0), icosphere(1)])
    same_as_singly(robust_laplacian, joined, max(aspect(member) for member in joined.members))


@given(members=st.lists(meshes(), min_size=1, max_size=3))
def test_block_diagonal_keeps_every_bit(members):
    singly = [robust_laplacian(member) for member in members]
    joined = block_diagonal(singly)
    assert np.array_equal(joined.stiffness.to_scipy().toarray(), blocks(singly))
    assert torch.equal(joined.mass, torch.cat([L.mass for L in singly]))


def test_graphs_of_point_clouds_are_built_member_by_member():
    clouds = [PointCloud(torch.rand(n, 2, dtype=torch.float64)) for n in (5, 9, 5)]
    joined = batch(clouds).map(lambda cloud: cloud.knn_graph(2, Gaussian(0.5)))
    same_as_singly(combinatorial_laplacian, joined)
    assert torch.equal(batch(clouds).union.points, torch.cat([cloud.points for cloud in clouds]))


# Fields ---------------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_split_and_join_are_inverse_and_split_gives_views(sizes, data):
    joined = batch([PointCloud(torch.rand(n, 2)) for n in sizes])
    assert joined.pointers.tolist() == [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    assert joined.member_of_node.tolist() == [i for i, n in enumerate(sizes) for _ in range(n)]
    assert len(joined) == len(sizes)
    x = data.draw(fields(sum(sizes), batch=(2,)))
    parts = joined.split(x)
    assert [part.shape[-2] for part in parts] == sizes
    assert torch.equal(joined.join(parts), x)
    parts[-1].fill_(7)
    assert (x[:, joined.pointers[-2] :] == 7).all()


def test_an_operator_on_the_union_acts_on_every_member_by_itself():
    joined = batch([icosphere(1), torus(5, 4)])
    L = cotangent_laplacian(joined.union)
    parts = [torch.randn(3, mesh.num_nodes, 2, dtype=torch.float64) for mesh in joined.members]
    for mesh, part, result in zip(joined.members, parts, joined.split(L @ joined.join(parts)), strict=True):
        torch.testing.assert_close(result, cotangent_laplacian(mesh) @ part, rtol=1e-12, atol=1e-11)


def test_fields_that_do_not_fit_are_refused():
    joined = batch([icosphere(0), icosphere(0)])
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 24, c\), not \(12, 1\)"):
        joined.split(torch.ones(12, 1))
    with pytest.raises(FieldError, match=r"n = \[12, 12\], not \[12\]"):
        joined.join([torch.ones(12, 1)])
    with pytest.raises(FieldError, match=r"not \[12, -1\]"):
        joined.join([torch.ones(12, 1), torch.ones(12)])
    with pytest.raises(FieldError, match="equal leading shapes, channels, dtype and device"):
        joined.join([torch.ones(12, 1), torch.ones(12, 2)])


# Domains --------------------------------------------------------------------------------------------------------------


def test_copies_of_one_mesh_lie_on_each_other_without_a_warning():
    joined = batch([icosphere(1)] * 3)
    assert joined.union.area == pytest.approx(3 * icosphere(1).area)
    assert joined.union.report().components == 3
    assert joined.to(torch.float32).union.vertices.dtype == torch.float32


@pytest.mark.parametrize(
    ("domains", "match"),
    [
        ([], "at least one domain"),
        ([icosphere(0), icosphere(0).graph()], "domains of one kind, not Graph and TriangleMesh"),
        ([icosphere(0), icosphere(0).to(torch.float32)], "3 columns of torch.float32 on cpu and 3 columns of torch.float64"),
        ([PointCloud(torch.ones(1, 2)), PointCloud(torch.ones(1, 3))], "must agree in dimension"),
        ([Grid(3)], "a Grid has no disjoint union"),
    ],
)
def test_what_can_not_be_joined_is_refused(domains, match):
    with pytest.raises(DomainError, match=match):
        batch(domains)
    with pytest.raises(DomainError, match="at least one block"):
        block_diagonal([])


def test_members_are_found_by_index_and_in_turn():
    members = [icosphere(0), icosphere(1)]
    joined = batch(members)
    assert list(joined) == members
    assert joined[-1] is members[-1]


def test_what_is_no_list_of_domains_is_no_batch():
    with pytest.raises(DomainError, match=r"\[domain\]"):
        batch(icosphere(0))
    with pytest.raises(DomainError, match="Laplacians are joined by block_diagonal"):
        batch([icosphere(0), icosphere(1)]).map(robust_laplacian)
