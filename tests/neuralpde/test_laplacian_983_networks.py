"""The difference layer in the table of Laplacians."""

import pytest
import torch

from neuralpde.laplacian_983 import periodic_functions, relative_error, relaxed_points
from neuralpde.laplacian_983_method import MeshOperator, Samples
from neuralpde.laplacian_983_networks import DifferenceLayer, GraphDifferenceLayer, _ExpectedError, _Geometry, _Layer, _OfLayer


@pytest.fixture(scope="module")
def torus():
    return relaxed_points(150, 0)


def samples(torus, count, seed):
    return Samples(*periodic_functions(count, seed, 3, 1.0).at(torus.points))


def quiet(*told):
    pass


def test_untrained_it_is_the_cotangent_laplacian(torus):
    test = samples(torus, 10, 1)
    mesh = MeshOperator().fit(torus, test, test, 0, None, quiet).estimate(torus, test.values)
    found = _OfLayer(_Layer(8), on_mesh=True).estimate(torus, test.values)
    torch.testing.assert_close(found, mesh, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("on_mesh", [True, False], ids=["mesh", "graph"])
def test_the_expected_error_is_the_relative_squared_error_over_all_functions(torus, on_mesh):
    # More than one chunk of them.
    many = samples(torus, 700, 1)
    geometry = _Geometry(torus, on_mesh)
    torch.manual_seed(0)
    layer = _Layer(8)
    torch.nn.init.normal_(layer.network.output.weight, std=0.1)
    with torch.no_grad():
        expected = relative_error(_OfLayer(layer, on_mesh).estimate(torus, many.values), many.laplacians) ** 2
        found = float(_ExpectedError(geometry, many)(*layer(geometry)))
    assert abs(found - expected) < 1e-9 * max(expected, 1)


@pytest.mark.parametrize("method", [DifferenceLayer, GraphDifferenceLayer], ids=lambda method: method.name)
def test_it_learns_from_functions_and_moves_to_another_placement(torus, method, tmp_path):
    train, validation, test = (samples(torus, count, seed) for count, seed in ((200, 0), (40, 1), (40, 2)))
    begun = method(steps=1, width=16).fit(torus, train, validation, 0, tmp_path / "a.safetensors", quiet)
    learned = method(steps=40, width=16).fit(torus, train, validation, 0, tmp_path / "b.safetensors", quiet)
    with torch.no_grad():
        before, after = (relative_error(one.estimate(torus, test.values), test.laplacians) for one in (begun, learned))
        elsewhere = relaxed_points(150, 5)
        there = samples(elsewhere, 40, 2)
        moved = relative_error(learned.estimate(elsewhere, there.values), there.laplacians)
    assert after < 0.9 * before
    assert moved < 1
