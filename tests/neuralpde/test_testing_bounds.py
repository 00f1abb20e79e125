"""The comparison sees every kind of difference."""

import pytest
import torch

from neuralpde.testing_bounds import aspect, assert_within, heights_of, roundoff
from operators import TriangleMesh, icosphere


def test_assert_within():
    x = torch.tensor([1.0, 2.0])
    assert_within(x, x, 0.0)
    assert_within(x, x + 0.5, torch.tensor([0.5, 0.6]))
    for bad in (torch.tensor([1.0, 2.6]), torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.inf])):
        with pytest.raises(AssertionError, match="1 of 2 entries are off: at flat index 1"):
            assert_within(x, bad, 0.5)
        with pytest.raises(AssertionError, match="1 of 2 entries are off"):
            assert_within(bad, x, 0.5)


def test_roundoff_and_aspect():
    assert roundoff(torch.float32) == roundoff(torch.complex64) == 2.0**-24
    assert roundoff(torch.float64) == roundoff(torch.complex128) == 2.0**-53
    mesh = icosphere(0)
    assert 0.8 < aspect(mesh) < 1
    # Far from the origin the rounding of coordinates weighs more.
    assert aspect(TriangleMesh(mesh.vertices + 100, mesh.faces)) > 50


def test_the_height_of_a_triangle_stands_on_its_longest_side():
    mesh = TriangleMesh(torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 12, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    assert heights_of(*mesh.arrays) == pytest.approx([5 * 12 / 13], rel=1e-15)
