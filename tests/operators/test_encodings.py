"""Encodings by closed forms; the cache tells graphs and settings apart, and finds out what is no entry."""

import dataclasses
import math
from dataclasses import dataclass, field

import pytest
import torch

from operators.cache import SUFFIX, Cache
from operators.checks import DomainError
from operators.deepwalk import DeepWalk
from operators.domains import Graph
from operators.encodings import Cached, Eigenvectors, PageRank, eigenvector_encoding
from operators.laplacian import combinatorial_laplacian, symmetric_laplacian
from operators.magnetic import magnetic_laplacian
from operators.page_rank import page_rank
from operators.poincare_embedding import PoincareEmbedding

CALLS = []


def path(n, dtype=torch.float64):
    index = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Graph(torch.cat([index, index.flip(0)], 1), n, torch.ones(2 * n - 2, dtype=dtype))


@dataclass(frozen=True)
class Counted:
    """An encoding of a user."""

    shift: float = 0.0
    rows: int = 0
    loud: bool = field(default=False, compare=False)

    def __call__(self, graph):
        CALLS.append(self)
        return graph.edge_weight.new_full((graph.nodes + self.rows, 2), self.shift)


@pytest.fixture(autouse=True)
def _forget():
    CALLS.clear()


def test_eigenvectors_of_a_path_are_cosines():
    n, k = 12, 4
    x = eigenvector_encoding(combinatorial_laplacian(path(n)), k)
    place = torch.arange(n, dtype=torch.float64) + 0.5
    for j in range(k):
        wave = torch.cos(math.pi * (j + 1) * place / n)
        torch.testing.assert_close(x[:, j].abs(), (wave / wave.norm()).abs(), rtol=1e-9, atol=1e-11)
    large = x.abs() >= 0.9 * x.abs().max(0).values
    assert bool((x[large.int().argmax(0), torch.arange(k)] > 0).all())
    everything = eigenvector_encoding(combinatorial_laplacian(path(n)), n, skip=0)
    torch.testing.assert_close(everything[:, 1 : k + 1], x)
    torch.testing.assert_close(Eigenvectors(k, laplacian=combinatorial_laplacian)(path(n)), x)
    torch.testing.assert_close(Eigenvectors(k)(path(n)), eigenvector_encoding(symmetric_laplacian(path(n)), k))


def test_page_rank_as_positions():
    graph = path(9)
    torch.testing.assert_close(PageRank(0.2)(graph), page_rank(graph, 0.2))
    pushed = PageRank(0.2, 1e-4, progress=False)(graph)
    assert float((page_rank(graph, 0.2) - pushed).abs().max()) <= 1e-4 * 3**0.5
    assert PageRank(progress=False) == PageRank()


@pytest.mark.parametrize("encoding", [
    PageRank(), PageRank(0.1, 1e-3), Eigenvectors(3), DeepWalk(4, walks=1, length=5, context=3, epochs=1, progress=False),
    PoincareEmbedding(2, epochs=2, progress=False), Counted(1.5),
], ids=lambda e: type(e).__name__)  # fmt: skip
def test_what_comes_from_the_cache_is_what_was_computed(encoding, tmp_path):
    graph = path(8, torch.float32)
    cached = Cached(encoding, tmp_path)
    first, again = cached(graph), cached(graph)
    assert torch.equal(first, encoding(graph))
    assert torch.equal(first, again)
    assert first.dtype == again.dtype == torch.float32
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 1
    assert type(encoding).__name__ in repr(cached)


def test_graphs_and_settings_are_told_apart(tmp_path):
    graph = path(5)
    others = [
        Graph(graph.edge_index, 6, graph.edge_weight),
        Graph(graph.edge_index, 5, 2 * graph.edge_weight),
        Graph(graph.edge_index.roll(1, 1), 5, graph.edge_weight),
        graph.to(torch.float32),
    ]
    for other in (graph, *others):
        Cached(Counted(), tmp_path)(other)
    assert len(CALLS) == 5
    Cached(Counted(1.0), tmp_path)(graph)
    Cached(Counted(), tmp_path, version=2)(graph)
    assert len(CALLS) == 7
    # What is no setting, and a graph of the same content, change nothing.
    Cached(Counted(loud=True), Cache(tmp_path))(Graph(graph.edge_index.clone(), 5, graph.edge_weight.clone()))
    assert len(CALLS) == 7


@pytest.mark.parametrize("damage", ["cut", "bit", "foreign", "empty", "folder"])
def test_damaged_and_foreign_files_are_computed_anew(damage, tmp_path):
    graph, cached = path(5), Cached(Counted(3.0), tmp_path)
    wanted = cached(graph)
    (entry,) = tmp_path.glob(f"*{SUFFIX}")
    content = entry.read_bytes()
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
        with pytest.warns(UserWarning, match="could not be written"):
            assert torch.equal(cached(graph), wanted)
        return
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    entry.write_bytes({"cut": content[:-1], "bit": flipped, "foreign": b"not ours" * 20, "empty": b""}[damage])
    assert torch.equal(cached(graph), wanted)
    assert len(CALLS) == 2
    assert entry.read_bytes() == content


def test_an_entry_of_another_size_is_refused(tmp_path):
    for rows in (-1, 1):
        with pytest.raises(DomainError, match="one row a node"):
            Cached(Counted(rows=rows), tmp_path)(path(5))
    assert list(tmp_path.glob(f"*{SUFFIX}")) == []


def test_refusals(tmp_path):
    for encoding in (lambda graph: graph, page_rank, Counted):
        with pytest.raises(DomainError, match="dataclass"):
            Cached(encoding, tmp_path)
    for setting in (object(), torch.float64, Eigenvectors(1), path(3).undirected, torch.ones(1, requires_grad=True)):
        with pytest.raises(DomainError, match=r"Counted|shift is"):
            Cached(Counted(setting), tmp_path)(path(4))
    with pytest.raises(DomainError, match="over the 8 GiB allowed"):
        PageRank(tolerance=0.1)(Graph(torch.tensor([[0, 1], [1, 0]]), 100_000))
    own = dataclasses.replace(Eigenvectors(2), laplacian=lambda graph: combinatorial_laplacian(graph))
    with pytest.raises(DomainError, match="laplacian"):
        Cached(own, tmp_path)(path(4))
    laplacian = combinatorial_laplacian(path(4))
    for k in (0, 4, 1.5, True):
        with pytest.raises(DomainError, match="k must"):
            eigenvector_encoding(laplacian, k)
    with pytest.raises(DomainError, match="skip"):
        eigenvector_encoding(laplacian, 1, skip=-1)
    with pytest.raises(DomainError, match="real"):
        eigenvector_encoding(magnetic_laplacian(path(4)), 2)
    directed = Graph(torch.tensor([[0, 1], [1, 2]]), 3)
    for encoding in (PageRank(), Eigenvectors(1)):
        with pytest.raises(DomainError, match="undirected"):
            encoding(directed)
