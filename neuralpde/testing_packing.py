"""Objects of a counter-example as JSON that a person can read and that loses no bit."""

from __future__ import annotations

import base64
import json
import math
import struct
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from operators.checks import DomainWarning
from operators.domains import Graph, PointCloud, TriangleMesh
from operators.grids import Boundary, Grid
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

__all__ = ["laid_out", "packed", "unpacked"]

# Longer tensors are base64: nobody reads so many numbers.
READABLE = 5000
# One entry of a floating-point tensor seen as an integer.
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*BITS, *WHOLE, torch.complex128, torch.complex64)}


def packed(value: Any, name: str) -> Any:
    """The value in terms of JSON; of what JSON has no word for, an object with the kind first. `name` is for errors.

    Raises:
        TypeError: a kind of object that cannot be stored, with the cure.
    """
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": _word(value)}
    if type(value) is complex:
        return {"complex": [packed(value.real, name), packed(value.imag, name)]}
    if type(value) is list:
        return [packed(item, name) for item in value]
    if type(value) is tuple:
        return {"tuple": [packed(item, name) for item in value]}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name} is a dictionary with keys that are no text: rename them")
        return {"dictionary": {key: packed(item, f"{name}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Tensor):
        kind = "parameter" if isinstance(value, nn.Parameter) else "tensor"
        return {kind: _numbers(value, name), "gradient": True} if value.requires_grad else {kind: _numbers(value, name)}
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array" if isinstance(value, np.ndarray) else "scalar": _numbers(_as_tensor(value, name), name)}
    if isinstance(value, Graph):
        return {"graph": {"nodes": value.nodes, **_fields(value, "edge_index", "edge_weight")}}
    if isinstance(value, TriangleMesh):
        return {"mesh": _fields(value, "vertices", "faces")}
    if isinstance(value, PointCloud):
        return {"points": _fields(value, "points")}
    if isinstance(value, Grid):
        ends = [end.name for end in value.boundary]
        return {"grid": {"shape": list(value.shape), "boundary": ends, **_fields(value, "spacing")}}
    if type(value) is SparseOperator:
        pattern = value.pattern
        parts = {"rows": pattern.row, "columns": pattern.col, "values": value.values}
        return {"sparse": {"shape": list(value.shape), **{key: packed(part, name) for key, part in parts.items()}}}
    hint = (
        "save its state_dict() and its domain" if isinstance(value, nn.Module) else "save the tensors and numbers it is made of"
    )
    raise TypeError(f"{name} is a {type(value).__name__}, which a counter-example cannot hold: {hint}")


def unpacked(value: Any) -> Any:
    """The inverse of `packed`; raises ValueError, KeyError, TypeError or RuntimeError on anything else."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "float":
        return _from_word(content)
    if kind == "complex":
        real, imaginary = map(unpacked, content)
        return complex(real, imaginary)
    if kind == "tuple":
        return tuple(unpacked(item) for item in content)
    if kind == "dictionary":
        return {key: unpacked(item) for key, item in content.items()}
    if kind == "dtype":
        return DTYPES[content]
    if kind == "tensor":
        return _tensor(content).requires_grad_(value.get("gradient") is True)
    if kind == "parameter":
        return nn.Parameter(_tensor(content), requires_grad=value.get("gradient") is True)
    if kind == "array":
        return _tensor(content).numpy()
    if kind == "scalar":
        return _tensor(content).numpy()[()]
    return _domain(kind, content)


def _domain(kind: str, content: dict[str, Any]) -> Any:
    held = {key: unpacked(part) for key, part in content.items()}
    with warnings.catch_warnings():
        # Such as of coincident vertices: they were told when the domain was built.
        warnings.simplefilter("ignore", DomainWarning)
        if kind == "graph":
            return Graph(held["edge_index"], held["nodes"], held["edge_weight"])
        if kind == "mesh":
            return TriangleMesh(held["vertices"], held["faces"])
        if kind == "points":
            return PointCloud(held["points"])
        if kind == "grid":
            return Grid(held["shape"], held["spacing"], [Boundary[end] for end in held["boundary"]])
        if kind == "sparse":
            rows, columns = held["shape"]
            return SparseOperator(SparsityPattern(held["rows"], held["columns"], (rows, columns)), held["values"])
    raise ValueError(f"there is no kind of object called {kind!r}")


def _fields(value: Any, *names: str) -> dict[str, Any]:
    return {name: packed(getattr(value, name), name) for name in names}


def _as_tensor(value: Any, name: str) -> Tensor:
    array = np.array(value)
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except TypeError:
        raise TypeError(f"{name} is an array of {array.dtype}, which a counter-example cannot hold: save numbers") from None


def _numbers(value: Tensor, name: str) -> dict[str, Any]:
    """dtype, shape, and the entries by rows of the last axis, or as base64."""
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise TypeError(f"{name} is no dense tensor: save value.to_dense()")
    if value.dtype not in DTYPES.values():
        raise TypeError(f"{name} is of {value.dtype}, which a counter-example cannot hold: convert it")
    head = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    # Not conj() or an expanded view, but numbers in a row.
    flat = value.detach().cpu().resolve_conj().resolve_neg().reshape(-1).clone()
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if flat.numel() > READABLE:
        return {**head, "base64": base64.b64encode(flat.view(torch.uint8).numpy().tobytes()).decode()}
    entries = flat.tolist()
    if flat.dtype in BITS:
        bits = flat.view(BITS[flat.dtype]).tolist()
        entries = [
            x if math.isfinite(x) else str(x) if math.isinf(x) else f"nan {b:x}" for x, b in zip(entries, bits, strict=True)
        ]
    row = max((value.shape[-1] if value.ndim else 1) * (2 if value.is_complex() else 1), 1)
    return {**head, "rows": [entries[k : k + row] for k in range(0, len(entries), row)]}


def _tensor(content: dict[str, Any]) -> Tensor:
    dtype, shape = DTYPES[content["dtype"]], [int(size) for size in content["shape"]]
    part = {torch.complex128: torch.float64, torch.complex64: torch.float32}.get(dtype, dtype)
    if "base64" in content:
        flat = torch.frombuffer(bytearray(base64.b64decode(content["base64"], validate=True)), dtype=part)
    else:
        entries = [entry for row in content["rows"] for entry in row]
        if part in BITS:
            odd = {
                k: int(entry[4:], 16) for k, entry in enumerate(entries) if isinstance(entry, str) and entry.startswith("nan ")
            }
            flat = torch.tensor([float(x) if k not in odd else 0.0 for k, x in enumerate(entries)], dtype=torch.float64).to(part)
            for k, bits in odd.items():
                flat.view(BITS[part])[k] = bits
        else:
            flat = torch.tensor(entries, dtype=part)
    return torch.view_as_complex(flat.reshape(*shape, 2)) if dtype != part else flat.reshape(shape)


def _word(value: float) -> str:
    return str(value) if math.isinf(value) else f"nan {struct.unpack('<q', struct.pack('<d', value))[0]:x}"


def _from_word(word: str) -> float:
    if not word.startswith("nan "):
        return float(word)
    number: float = struct.unpack("<d", struct.pack("<q", int(word[4:], 16)))[0]
    return number


def laid_out(value: Any, indent: str = "") -> str:
    """JSON with what is short on one line, and otherwise an item a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(text) <= 100 or not isinstance(value, (list, dict)):
        return text
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {laid_out(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    if not any(isinstance(item, (list, dict)) for item in value):
        return text
    return "[\n" + ",\n".join(deeper + laid_out(item, deeper) for item in value) + f"\n{indent}]"
