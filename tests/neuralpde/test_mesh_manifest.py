"""A manifest knows its files, and says which have changed."""

import hashlib
import json

import pytest

from neuralpde.files import RunFolderError
from neuralpde.mesh_manifest import MANIFEST, Manifest


def test_files_are_known_by_their_sums(tmp_path):
    manifest, path = Manifest(tmp_path), tmp_path / "a.bin"
    assert manifest.entries() == {}
    assert manifest.fits(path)
    assert not manifest.lists(path)
    path.write_bytes(b"one")
    manifest.record(path, mesh="sphere")
    assert manifest.entries() == {"a.bin": {"sha256": hashlib.sha256(b"one").hexdigest(), "mesh": "sphere"}}
    assert manifest.lists(path)
    assert manifest.fits(path)
    assert manifest.faults() == []
    path.write_bytes(b"two")
    assert not manifest.fits(path)
    assert manifest.faults() == ["a.bin has changed since it was made"]
    manifest.record(path)
    assert manifest.faults() == []
    other = tmp_path / "b.bin"
    other.write_bytes(b"three")
    manifest.record(other)
    manifest.forget([other])
    assert list(manifest.entries()) == ["a.bin"]
    path.unlink()
    assert not manifest.fits(path)
    assert manifest.faults() == ["a.bin is missing"]


def test_the_list_does_not_depend_on_the_order_of_work(tmp_path):
    written = []
    for k, names in enumerate(("ab", "ba")):
        folder = tmp_path / str(k)
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
            Manifest(folder).record(folder / name)
        written.append((folder / MANIFEST).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"format": 9, "files": {}}), '{"format": 1, "files": {"a": {}}}'])
def test_damaged(text, tmp_path):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(RunFolderError, match="damaged"):
        Manifest(tmp_path).entries()
