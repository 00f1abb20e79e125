"""The search: shrunk, saved, refused, flaky; and examples in words."""

import itertools

import pytest
import torch
from hypothesis import strategies as st

from neuralpde.testing_measured import LawBrokenError, Measured, require
from neuralpde.testing_replay import load_counterexample
from neuralpde.testing_search import Search, checked, told, words
from operators import DomainError, Graph, Grid, PointCloud, combinatorial_laplacian, icosphere


def small(n):
    return require(Measured("small", float(n), 6.0, "6"), "numbers")


def test_the_worst_of_all_examples_is_returned(tmp_path):
    assert float(Search(50, folder=tmp_path)("numbers", st.integers(0, 6), small)) == 1.0


def test_a_counter_example_is_the_smallest_and_can_be_replayed(tmp_path):
    with pytest.raises(LawBrokenError, match="replay") as caught:
        Search(200, folder=tmp_path)("numbers", st.integers(0, 1000), small)
    assert caught.value.measured.error == 7.0
    (file,) = tmp_path.glob("*.json")
    assert load_counterexample(file) == {"example": 7}
    assert str(file) in caught.value.replay


def test_nothing_is_saved_where_nobody_asks():
    with pytest.raises(LawBrokenError) as caught:
        Search(50, folder=None)("numbers", st.integers(7, 9), small)
    assert caught.value.replay == ""


def test_refused_domains_do_not_count_and_all_refused_is_told():
    def odd_only(n):
        if n % 2 == 0:
            raise DomainError("even")
        return small(1)

    assert float(Search(20)("numbers", st.integers(), odd_only)) == pytest.approx(1 / 6)
    with pytest.raises(AssertionError, match="refused every domain that was drawn, the last with: even"):
        Search(20)("numbers", st.integers().map(lambda n: 2 * n), odd_only)


def test_a_law_that_breaks_now_and_then_says_so():
    calls = itertools.count()
    with pytest.raises(LawBrokenError, match="not every time"):
        Search(50, folder=None)("numbers", st.just(0), lambda n: small(7 if next(calls) == 0 else 0))


def test_a_crash_breaks_the_law_in_which_it_happened():
    def divides(n):
        raise ZeroDivisionError("by zero")

    with pytest.raises(LawBrokenError, match=r"divides\n.*it raises ZeroDivisionError: by zero") as caught:
        checked("numbers", [divides], 1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert words(divides) == "divides"


def test_examples_are_told_in_words():
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([0.5, 0.5]))
    assert told(graph) == "Graph of 2 nodes, 2 edges: 0→1 (0.5), 1→0 (0.5)"
    assert told(icosphere(0)).startswith("TriangleMesh, vertices [[-0.525731, 0.850651, 0], ")
    assert told(PointCloud(torch.tensor([[0.5, 1.0]]))) == "PointCloud [[0.5, 1]]"
    assert "Neumann" in told(Grid((2,)))
    assert told(combinatorial_laplacian(graph)) == "Laplacian, stiffness [[0.5, -0.5], [-0.5, 0.5]], mass [1, 1]"
    assert told((torch.ones(1), 3)) == "[1]\n3"
