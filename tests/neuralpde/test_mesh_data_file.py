"""What is written is read; half files and foreign ones are refused; sums tell contents."""

import os
import sys
from pathlib import Path

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.mesh_data_file import DataFormat, SafetensorsFile, ZarrFile, digest, file_of

TENSORS = {
    "vertices": torch.rand(5, 3, dtype=torch.float64),
    "faces": torch.tensor([[0, 1, 2], [2, 3, 4]]),
    "frames": torch.rand(2, 4, 5, 1),
}
NOTES = {"mesh": "x", "dt": 0.5}


@pytest.fixture(params=list(DataFormat), ids=lambda form: form.value)
def form(request):
    if request.param is DataFormat.ZARR:
        pytest.importorskip("zarr")
    return request.param.file


def test_what_is_written_is_read(form, tmp_path):
    path = tmp_path / f"x{form.suffix}"
    form.check()
    for tensors in (TENSORS | {"frames": TENSORS["frames"] + 1}, TENSORS):
        form.write(path, tensors, NOTES)
        read, notes = form.read(path)
        assert notes == NOTES
        assert set(read) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(read[name], tensor)
            assert read[name].dtype == tensor.dtype
    assert [inner.name for inner in tmp_path.iterdir()] == [path.name]
    assert type(file_of(path)) is type(form)


def test_damaged_and_missing(form, tmp_path):
    path = tmp_path / f"x{form.suffix}"
    with pytest.raises(FileNotFoundError):
        form.read(path)
    form.write(path, TENSORS, NOTES)
    for inner in [path] if path.is_file() else list(path.rglob("*")):
        if inner.is_file():
            inner.write_bytes(inner.read_bytes()[:7])
    with pytest.raises(RunFolderError, match="damaged"):
        form.read(path)


def test_a_failed_write_leaves_nothing(form, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunFolderError, match="cannot write"):
        form.write(tmp_path / "file" / f"x{form.suffix}", TENSORS, NOTES)
    assert [inner.name for inner in tmp_path.iterdir()] == ["file"]


def test_digest(form, tmp_path):
    first, second = (tmp_path / name / f"x{form.suffix}" for name in "ab")
    form.write(first, TENSORS, NOTES)
    form.write(second, TENSORS, NOTES)
    assert digest(first) == digest(second)
    form.write(second, TENSORS, {**NOTES, "dt": 0.25})
    assert digest(first) != digest(second)


def test_xarray_finds_the_axes(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    ZarrFile().write(tmp_path / "x.zarr", TENSORS, NOTES)
    data = xarray.open_zarr(str(tmp_path / "x.zarr"))
    assert data.frames.dims == ("condition", "time", "vertex", "channel")
    assert data.sizes["vertex"] == 5


def test_without_zarr(monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(RunFolderError, match=r"neuralpde-toolkit\[weather\]"):
        ZarrFile().check()
    SafetensorsFile().check()


def test_a_lost_chunk_is_damage_and_not_zeros(tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "x.zarr"
    tensors = {**TENSORS, "frames": TENSORS["frames"].clone()}
    tensors["frames"][-1] = 0
    ZarrFile().write(path, tensors, NOTES)
    read, _ = ZarrFile().read(path)
    # Zeros that were written are no damage.
    assert torch.equal(read["frames"], tensors["frames"])
    chunk = max(inner for inner in (path / "frames").iterdir() if inner.name[0].isdigit())
    chunk.unlink()
    with pytest.raises(RunFolderError, match="a part of frames is missing"):
        ZarrFile().read(path)


def test_what_was_there_stays_where_the_new_cannot_be_put(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    path = tmp_path / "x.zarr"
    ZarrFile().write(path, TENSORS, NOTES)
    replace = os.replace

    def fails(source, target):
        if str(source).endswith(".tmp") and Path(target) == path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(RunFolderError, match="No space left"):
        ZarrFile().write(path, {**TENSORS, "frames": TENSORS["frames"] + 1}, NOTES)
    read, _ = ZarrFile().read(path)
    assert torch.equal(read["frames"], TENSORS["frames"])
    assert [inner.name for inner in tmp_path.iterdir()] == ["x.zarr"]
