"""A cache of expensive products on disk, addressed by the content that they were computed from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from operators.domains import Domain
from operators.laplacian import Laplacian
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

Tensors = dict[str, Tensor]

# Part of every key. Raise it when what is stored, or how a key is made, changes its meaning.
FORMAT = 1
# Raise it when a Laplacian of ours would come out different.
LAPLACIAN_VERSION = 1
SUFFIX = ".entry"
DIGEST_BYTES = 32
# safetensors knows no complex128: such tensors are stored as pairs, under a marked name.
COMPLEX = "\N{MULTIPLICATION SIGN}i"
ABANDONED_SECONDS = 3600


class Cache:
    """Tensors on disk under a key made of everything that they depend on, so that nothing is ever out of date.

    Nothing is cached unless a Cache is asked. Any number of processes may share the folder: an entry appears whole or
    not at all, also when a process is killed; one that was damaged later is computed anew. No pickle is ever read.

    Args:
        folder: made if absent.
        max_bytes: beyond it, the entries that were used least recently are removed.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 4 * 2**30) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ValueError(f"max_bytes must be a positive integer, not {max_bytes!r}")
        self.folder, self.max_bytes = Path(folder).expanduser(), max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"the cache folder {self.folder} cannot be made ({error}): give Cache a folder that is yours"
            ) from error

    @classmethod
    def default(cls, max_bytes: int = 4 * 2**30) -> Cache:
        """In the user's cache folder of this platform ($XDG_CACHE_HOME or ~/.cache on Linux)."""
        home = Path.home()
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = home / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        return cls(base / "neuralpde", max_bytes)

    def get(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        compute: Callable[[], Mapping[str, Tensor]],
        *,
        version: int = 1,
        libraries: Sequence[str] = (),
    ) -> Tensors:
        """The stored result for these inputs, or compute(), stored.

        Args:
            kind: what is computed, such as "eigenbasis".
            inputs: everything that the result depends on: tensors, arrays, numbers, strings, None, and lists and
                mappings of these. The device and the memory layout of a tensor do not count; its dtype, shape and bytes do.
            compute: gives named tensors of the result.
            version: of the algorithm; raise it when `compute` changes.
            libraries: distributions whose version the result depends on, such as "robust_laplacian".

        Returns:
            The named tensors, on the CPU.

        Raises:
            ValueError: a tensor that requires a gradient, which a stored number has lost.
        """
        path = self.folder / f"{self.key(kind, inputs, version=version, libraries=libraries)}{SUFFIX}"
        stored = _read(path)
        if stored is not None:
            return stored
        result = {}
        for name, tensor in compute().items():
            if name.endswith(COMPLEX):
                raise ValueError(f"the result {name!r} ends in {COMPLEX!r}, which marks complex tensors here: call it otherwise")
            if tensor.requires_grad:
                raise ValueError(
                    f"the result {name!r} requires a gradient, which a cache would lose: compute it without the cache"
                )
            result[name] = tensor.detach().cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        self._write(path, result)
        return result

    def key(self, kind: str, inputs: Mapping[str, Any], *, version: int = 1, libraries: Sequence[str] = ()) -> str:
        """The address of an entry: the kind, and a BLAKE2b hash of everything that `get` lists."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        versions = {name: importlib.metadata.version(name) for name in libraries}
        for value, name in (([FORMAT, kind, version, versions], "kind"), (inputs, "inputs")):
            for piece in _canonical(value, name):
                digest.update(piece)
        readable = "".join(letter if letter.isalnum() else "-" for letter in kind)[:40]
        return f"{readable}-{digest.hexdigest()}"

    def laplacian(self, build: Callable[[Any], Laplacian], domain: Domain) -> Laplacian:
        """build(domain), from the cache if it is there; `build` is a function of `operators`, or a partial of one.

        Raises:
            ValueError: a function of your own, or an input that requires a gradient.
        """
        function, settings = build, []
        while isinstance(function, functools.partial):
            settings.append([list(function.args), dict(function.keywords)])
            function = function.func
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '<object>')}"
        if not name.startswith("operators.") or "<" in name:
            raise ValueError(
                f"the cache knows a Laplacian by the name of its function and the version of this library, which do not tell "
                f"when {name} changes: use get(kind, inputs, compute, version=...) for a function of your own"
            )
        fields = {field.name: getattr(domain, field.name) for field in dataclasses.fields(domain)}  # type: ignore[arg-type]
        inputs = {"build": name, "settings": settings, "domain": type(domain).__name__, **fields}

        def compute() -> Tensors:
            built = build(domain)
            pattern = built.stiffness.pattern
            return {"row": pattern.row, "col": pattern.col, "values": built.stiffness.values, "mass": built.mass}

        found = self.get("laplacian", inputs, compute, version=LAPLACIAN_VERSION, libraries=("robust_laplacian",))
        nodes = domain.num_nodes
        stiffness = SparseOperator(SparsityPattern(found["row"], found["col"], (nodes, nodes)), found["values"])
        device = next(value.device for value in fields.values() if isinstance(value, Tensor))
        return Laplacian(stiffness, found["mass"], build).to(device=device)

    def size(self) -> int:
        """The bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> None:
        """Remove every entry."""
        for _, _, path in self._entries():
            path.unlink(missing_ok=True)

    def _write(self, path: Path, tensors: Tensors) -> None:
        payload = save({name: value for key, tensor in tensors.items() for name, value in [_storable(key, tensor)]})
        if len(payload) + DIGEST_BYTES > self.max_bytes:
            warnings.warn(f"a result of {len(payload)} bytes is larger than the whole cache: raise max_bytes", stacklevel=3)
            return
        name = ""
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".part", delete=False) as file:
                name = file.name
                file.write(hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
            self._evict()
        except OSError as error:
            # A full disk or a folder that is read-only costs the next run some time; it must not cost this one its result.
            warnings.warn(f"the cache in {self.folder} could not be written ({error}): the result is not kept", stacklevel=3)
            with contextlib.suppress(OSError):
                os.unlink(name)

    def _evict(self) -> None:
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        for part in self.folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                    part.unlink()

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(last use, bytes, path) of every entry."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime_ns, status.st_size, path


def _read(path: Path) -> Tensors | None:
    """The tensors of an entry, or None if it is absent, damaged or unreadable."""
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload = content[DIGEST_BYTES:]
    if hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest() != content[:DIGEST_BYTES]:
        return None
    try:
        tensors = load(payload)
    except (SafetensorError, KeyError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return dict(_restored(name, tensor) for name, tensor in tensors.items())


def _storable(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    return (name + COMPLEX, torch.view_as_real(tensor).contiguous()) if tensor.is_complex() else (name, tensor)


def _restored(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    return (name.removesuffix(COMPLEX), torch.view_as_complex(tensor)) if name.endswith(COMPLEX) else (name, tensor)


def _canonical(value: Any, name: str) -> Iterator[bytes]:
    """Bytes that are equal only for equal values: every piece says its type and its length."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} requires a gradient, which a cached result would not carry: compute it without the cache")
        plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        yield _piece("tensor", f"{plain.dtype} {tuple(plain.shape)}".encode())
        yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"{name} is an array of Python objects, which have no bytes to hash: give numbers")
        yield _piece("array", f"{value.dtype.descr} {value.shape}".encode())
        yield np.ascontiguousarray(value).tobytes()
    elif value is None or isinstance(value, (bool, int, str)):
        yield _piece(type(value).__name__, str(value).encode())
    elif isinstance(value, (float, complex)):
        yield _piece(type(value).__name__, repr(value).encode())
    elif isinstance(value, (list, tuple)):
        yield _piece("list", str(len(value)).encode())
        for place, item in enumerate(value):
            yield from _canonical(item, f"{name}[{place}]")
    elif isinstance(value, Mapping):
        yield _piece("mapping", str(len(value)).encode())
        for key in sorted(value, key=repr):
            yield from _canonical(key, f"the key {key!r} of {name}")
            yield from _canonical(value[key], f"{name}[{key!r}]")
    else:
        raise TypeError(f"{name} is a {type(value).__name__}, which has no canonical bytes: give tensors, numbers or strings")


def _piece(kind: str, content: bytes) -> bytes:
    return f"{kind}:{len(content)}:".encode() + content
