"""What is packed comes back to the last bit through JSON text; short things stay readable; the rest is refused by name."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing_fields import Profile, fields
from neuralpde.testing_graphs import graphs
from neuralpde.testing_grids import grids
from neuralpde.testing_meshes import damaged_meshes, meshes
from neuralpde.testing_packing import DTYPES, READABLE, laid_out, packed, unpacked
from neuralpde.testing_points import point_clouds
from operators import Graph, Grid, PointCloud, SparseOperator, TriangleMesh, robust_laplacian


def again(value):
    return unpacked(json.loads(laid_out(packed(value, "value"))))


def bits(tensor):
    flat = tensor.detach().contiguous().reshape(-1)
    return (torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat).view(torch.uint8)


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (2, 3, 2), (READABLE + 2,)])
def test_any_bits_of_any_dtype_come_back(name, shape):
    """Every pattern of bits: also infinities, signed zeros, denormal numbers and NaN of every payload."""
    size = math.prod(shape) * DTYPES[name].itemsize
    noise = torch.randint(0, 2 if name == "bool" else 256, (max(size, 1),), dtype=torch.uint8)[:size]
    value = noise.view(DTYPES[name]).reshape(shape)
    assert same(again(value), value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_special_numbers_come_back(dtype):
    least = torch.tensor([1], dtype={2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]).view(dtype)
    value = torch.cat([torch.tensor([math.inf, -math.inf, math.nan, -math.nan, 0.0, -0.0], dtype=dtype), least, -least])
    assert same(again(value), value)


@settings(max_examples=30)
@given(
    domain=st.one_of(graphs(), meshes(), grids(), point_clouds()),
    x=fields(4, profiles=[Profile.HUGE, Profile.TINY, Profile.ROUGH], dtype=torch.complex64),
)
def test_drawn_domains_and_fields_come_back(domain, x):
    loaded = again({"domain": domain, "x": (x,)})
    assert type(loaded["domain"]) is type(domain)
    for key, value in vars(domain).items():
        if key in domain.__dataclass_fields__:
            there = getattr(loaded["domain"], key)
            assert same(there, value) if isinstance(value, torch.Tensor) else there == value
    assert same(loaded["x"][0], x)


@settings(max_examples=15)
@given(case=damaged_meshes())
def test_damaged_arrays_come_back(case):
    _, points, faces, added = case
    loaded = again([points, faces, added])
    assert np.array_equal(loaded[0], points)
    assert np.array_equal(loaded[1], faces)
    assert loaded[2] == added


def test_plain_values_come_back():
    payload = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
    for value in (
        None,
        True,
        3,
        10**30,
        -0.0,
        0.1,
        math.inf,
        "Möbius \ud800 \n",
        1 + 2j,
        [],
        (),
        {},
        [1, (2.0, {"a": None})],
        torch.float32,
    ):
        assert repr(again(value)) == repr(value)
    assert struct.pack("<d", again(payload)) == struct.pack("<d", payload)
    for value in (np.float32(1.5), np.int64(3), np.bool_(True)):
        assert type(again(value)) is type(value)
        assert again(value) == value
    big_endian = np.array([1.5, 2.5], dtype=">f8")
    assert np.array_equal(again(big_endian), big_endian)


def test_views_parameters_and_gradients():
    x = torch.randn(4, 3, dtype=torch.complex64)
    for view in (x.T, x[:, :1].expand(4, 5), x.conj(), x.imag, x[::2]):
        assert same(again(view), view.resolve_conj().resolve_neg())
    assert again(torch.ones(2, requires_grad=True)).requires_grad
    parameter = again(torch.nn.Parameter(torch.ones(2)))
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.requires_grad
    assert not again(torch.ones(2)).requires_grad


def test_sparse_operators_come_back():
    A = SparseOperator.from_entries(torch.tensor([1, 0]), torch.tensor([2, 1]), torch.tensor([0.1, 0.2]), (2, 3))
    assert same(again(A).matrix(), A.matrix())


def test_short_things_are_one_line_and_rows_are_lines():
    mesh = TriangleMesh(torch.tensor([[0.0, 0.1], [1, 0], [0, 1]], dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    text = laid_out(packed(mesh, "mesh"))
    assert '"rows": [[0.0, 0.1], [1.0, 0.0], [0.0, 1.0]]' in text
    wide = laid_out(packed(torch.arange(60.0).reshape(10, 6) + 0.125, "x"))
    assert "[18.125, 19.125, 20.125, 21.125, 22.125, 23.125],\n" in wide


def test_what_cannot_be_held_is_refused_with_its_name():
    L = robust_laplacian(TriangleMesh(torch.eye(3), torch.tensor([[0, 1, 2]])))
    for value, told in (
        (L, "x is a Laplacian.*state_dict"),
        ({"a": object()}, r"x\['a'\] is a object"),
        ({1: 2}, "keys that are no text"),
        (torch.eye(2).to_sparse(), "to_dense"),
        (torch.ones(2, device="meta"), "no dense tensor"),
        (np.array(["a"]), "save numbers"),
        ({1, 2}, "x is a set"),
    ):
        with pytest.raises(TypeError, match=told):
            packed(value, "x")


@pytest.mark.parametrize(
    "foreign",
    [
        {"nonsense": 1},
        {},
        {"tensor": {"dtype": "float64", "shape": [3], "rows": [[1.0]]}},
        {"tensor": {"dtype": "object", "shape": [1], "rows": [[1.0]]}},
        {"tensor": {"dtype": "int8", "shape": [1], "rows": [[1000]]}},
        {"tensor": {"dtype": "float64", "shape": [1], "rows": [["x"]]}},
        {"tensor": {"dtype": "float64", "shape": [1], "rows": [["nan zz"]]}},
        {"tensor": {"dtype": "float64", "shape": [2], "base64": "AAAA"}},
        {"tensor": {"dtype": "float64", "shape": [10**30], "base64": ""}},
        {"graph": {"nodes": 1}},
        {"grid": {"shape": [2], "spacing": 1.0, "boundary": ["__class__"]}},
        {"complex": [1.0]},
        {"dtype": "nothing"},
        {"float": "one"},
    ],
)
def test_foreign_json_raises_what_replay_catches(foreign):
    with pytest.raises(
        (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, StopIteration, struct.error)
    ):
        unpacked(foreign)


def test_kinds_of_domain():
    graph = again(Graph(torch.tensor([[0], [1]]), 3, torch.tensor([0.1])))
    assert graph.nodes == 3
    assert same(graph.edge_weight, torch.tensor([0.1]))
    assert again(Grid((2, 3), 0.1)).shape == (2, 3)
    assert isinstance(again(PointCloud(torch.zeros(2, 2))), PointCloud), "coincident points are no reason to warn again"
