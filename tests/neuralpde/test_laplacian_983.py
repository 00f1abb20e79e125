"""Random periodic functions on the torus, and the nodes they are seen at."""

import math

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.laplacian_983 import NODES, periodic_functions, relative_error, relaxed_points, wave_numbers
from operators import cotangent_laplacian


def test_laplacians_are_those_of_the_values():
    functions = periodic_functions(2, 3, modes=3)
    points = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, laplacians = functions.at(points)
    for k in range(2):
        for point in range(4):
            hessian = torch.autograd.functional.hessian(lambda x, k=k: functions.at(x[None])[0][k, 0], points[point])
            torch.testing.assert_close(laplacians[k, point], hessian.trace(), rtol=1e-9, atol=1e-9)


def test_functions_are_periodic_of_zero_mean_and_unit_size():
    functions = periodic_functions(1000, 0)
    axis = torch.arange(32, dtype=torch.float64) / 32
    values, _ = functions.at(torch.cartesian_prod(axis, axis))
    shifted, _ = functions.at(torch.cartesian_prod(axis, axis) + torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(values, shifted, rtol=0, atol=1e-9)
    assert float(values.mean(1).abs().max()) < 1e-12
    # A mean over 1,000 functions of some forty waves each.
    assert abs(float(values.square().mean()) - 1) < 0.03
    assert len(wave_numbers(12)) == (25**2 - 1) // 2


def test_nodes_are_even_and_copies_surround_them():
    torus = relaxed_points(150, 1)
    assert torus.num_nodes == 150
    assert bool(((torus.points >= 0) & (torus.points < 1)).all())
    away = torus.padded.points - torus.points[torus.copies]
    torch.testing.assert_close(away, away.round(), rtol=0, atol=1e-15)
    assert torch.equal(torus.copies[:150], torch.arange(150))
    source, target = torus.edges
    # A triangulation of a torus has Euler characteristic zero: three edges a node, each both ways.
    assert len(source) == 6 * 150
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == 900
    assert all((j, i) in pairs for i, j in pairs)
    reach = torus.offsets - (torus.points[source] - torus.points[target])
    torch.testing.assert_close(reach, reach.round(), rtol=0, atol=1e-12)
    assert float(torch.linalg.vector_norm(torus.offsets, dim=1).max()) < 3 / math.sqrt(150)


def test_the_cotangent_laplacian_has_its_published_errors():
    torus, functions = relaxed_points(NODES, 0), periodic_functions(150, 1)
    values, laplacians = functions.at(torus.points)
    found = -(cotangent_laplacian(torus.mesh) @ values[:, torus.copies].mT.contiguous())[:NODES].mT
    assert abs(relative_error(found, laplacians) - 0.138) < 0.01
    assert abs(float((found - laplacians).square().mean()) - 2574) < 600


def test_too_few_nodes_are_refused():
    with pytest.raises(RunFolderError, match="at least 100"):
        relaxed_points(20, 0)
