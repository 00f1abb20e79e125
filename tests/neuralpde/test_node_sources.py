"""Data sets are read from files of the published formats, untouched; what is missing or damaged is named."""

import os
import sys

import numpy as np
import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.node_data import Dataset
from neuralpde.node_sources import SOURCES, RawFiles, load_nodes, read_arrays
from neuralpde.node_splits import PARTS
from neuralpde.testing_nodes import node_blocks, write_arrays, write_benchmark, write_citations
from operators import DomainError

BLOCKS = node_blocks(800)


def snapshot(root):
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


def same(one, other):
    """Equal content, whatever the order of the edges."""
    dense = [x if isinstance(x, torch.Tensor) else x.to_scipy().toarray() for x in (one.features, other.features)]
    assert torch.equal(*(torch.as_tensor(x).double() for x in dense))
    assert torch.equal(one.labels, other.labels)
    assert {tuple(e) for e in one.graph.edge_index.T.tolist()} == {tuple(e) for e in other.graph.edge_index.T.tolist()}


@pytest.mark.parametrize(
    ("dataset", "name", "folder"),
    [
        (Dataset.CORA, "Cora", "Cora"),
        (Dataset.CORA, "Cora", "cora"),
        (Dataset.CORA, "Cora", "CORA"),
        (Dataset.PUBMED, "PubMed", "PubMed"),
        (Dataset.CITESEER, "CiteSeer", "Citeseer"),
    ],
)
def test_citations_are_read_and_nothing_is_written(tmp_path, dataset, name, folder):
    write_citations(BLOCKS, tmp_path, name)
    (tmp_path / name).rename(tmp_path / folder)
    before = snapshot(tmp_path)
    data = load_nodes(dataset, tmp_path)
    assert snapshot(tmp_path) == before
    same(data, BLOCKS)
    assert repr(data.split) == "Split(train=12, validation=500, test=266)"


@pytest.mark.parametrize(
    ("dataset", "folder", "file"),
    [
        (Dataset.PHOTO, "Photo", "amazon_electronics_photo.npz"),
        (Dataset.COMPUTERS, "Computers", "amazon_electronics_computers.npz"),
        (Dataset.CS, "CS", "ms_academic_cs.npz"),
    ],
)
def test_arrays_are_read_and_have_no_published_split(tmp_path, dataset, folder, file):
    write_arrays(BLOCKS, tmp_path, folder, file)
    before = snapshot(tmp_path)
    data = load_nodes(dataset, tmp_path)
    assert snapshot(tmp_path) == before
    same(data, BLOCKS)
    assert data.split is None


def test_the_benchmark_is_read_without_its_package(tmp_path):
    write_benchmark(BLOCKS, tmp_path)
    before = snapshot(tmp_path)
    data = load_nodes(Dataset.OGBN_ARXIV, tmp_path)
    assert snapshot(tmp_path) == before
    same(data, BLOCKS)
    assert all(torch.equal(getattr(data.split, part), getattr(BLOCKS.split, part)) for part in PARTS)


def test_another_file_in_the_folder_is_not_read_instead(tmp_path):
    raw = write_arrays(BLOCKS, tmp_path, "Photo", "amazon_electronics_photo.npz")
    other = write_arrays(node_blocks(100), tmp_path / "other", "Computers", "amazon_electronics_computers.npz")
    (other / "amazon_electronics_computers.npz").rename(raw / "amazon_electronics_computers.npz")
    same(load_nodes(Dataset.PHOTO, tmp_path), BLOCKS)


def test_edges_to_nodes_that_are_not_there_are_damage(tmp_path):
    raw = write_arrays(BLOCKS, tmp_path, "CS", "ms_academic_cs.npz")
    with np.load(raw / "ms_academic_cs.npz") as held:
        arrays = dict(held)
    arrays["adj_indices"][0], arrays["adj_shape"] = 900, np.array([800, 1000])
    np.savez(raw / "ms_academic_cs.npz", **arrays)
    with pytest.raises(DomainError, match="damaged"):
        load_nodes(Dataset.CS, tmp_path)


def test_a_missing_file_is_named(tmp_path):
    raw = write_citations(BLOCKS, tmp_path, "PubMed")
    (raw / "ind.pubmed.allx").unlink()
    with pytest.raises(RunFolderError, match=r"lacks ind\.pubmed\.allx"):
        load_nodes(Dataset.PUBMED, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80garbage", b"not an archive"])
def test_damaged_files_are_named(tmp_path, content):
    raw = write_citations(BLOCKS, tmp_path, "Cora")
    (raw / "ind.cora.allx").write_bytes(content)
    with pytest.raises(DomainError, match="damaged"):
        load_nodes(Dataset.CORA, tmp_path)
    arrays = write_arrays(BLOCKS, tmp_path, "CS", "ms_academic_cs.npz")
    (arrays / "ms_academic_cs.npz").write_bytes(content)
    with pytest.raises(DomainError, match="damaged"):
        load_nodes(Dataset.CS, tmp_path)


def test_what_is_not_there_is_fetched_and_a_failed_fetch_is_explained(tmp_path):
    def fetch(root):
        write_arrays(BLOCKS, tmp_path, "Town", "town.npz")

    def no_network(root):
        raise OSError("no network")

    def no_processing(root):
        fetch(root)
        raise OSError("the downloader cannot read what it has written")

    same(RawFiles("Town", ("raw/town.npz",), read_arrays, fetch).load(tmp_path), BLOCKS)
    # What PyG leaves behind where a download failed is an empty folder: it is no reason not to try again.
    (tmp_path / "Village" / "raw").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"downloading it failed .*no network.*Village/raw/village.npz with --data"):
        RawFiles("Village", ("raw/village.npz",), read_arrays, no_network).load(tmp_path)
    (tmp_path / "Town" / "raw" / "town.npz").unlink()
    (tmp_path / "Town" / "raw").rmdir()
    same(RawFiles("Town", ("raw/town.npz",), read_arrays, no_processing).load(tmp_path), BLOCKS)


def test_every_data_set_has_a_source_of_the_published_name():
    assert set(SOURCES) == set(Dataset)
    assert SOURCES[Dataset.CITESEER].files[0] == "raw/ind.citeseer.x"


@pytest.mark.skipif("ogb" in sys.modules, reason="ogb is installed")
def test_without_ogb_its_graph_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", None)
    with pytest.raises(RunFolderError, match="pip install ogb"):
        load_nodes(Dataset.OGBN_ARXIV, tmp_path)


@pytest.mark.skipif(not os.environ.get("NEURALPDE_DATA"), reason="NEURALPDE_DATA is not set")
def test_the_published_graphs_have_their_published_sizes():
    from pathlib import Path

    root = Path(os.environ["NEURALPDE_DATA"]) / "graphs"
    assert load_nodes(Dataset.CORA, root).largest_component().nodes == 2485
    assert load_nodes(Dataset.CITESEER, root).isolated == 48
