"""A split that overlaps, misses a class or belongs to another graph is refused; random splits follow their protocol."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.node_splits import PARTS, Split, random_split
from operators import DomainError


def mask(n, *nodes):
    return torch.zeros(n, dtype=torch.bool).index_fill_(0, torch.tensor(nodes, dtype=torch.int64), True)


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), each=st.integers(1, 8))
def test_a_random_split_is_a_partition_with_so_many_a_class(seed, classes, each):
    labels = torch.arange(400) % classes
    split = random_split(labels, seed, development=150, each=each)
    parts = torch.stack([getattr(split, name) for name in PARTS])
    assert torch.equal(parts.sum(0), torch.ones(400, dtype=torch.int64))
    assert torch.equal(torch.bincount(labels[split.train]), torch.full((classes,), each))
    assert int(split.train.sum() + split.validation.sum()) == 150


def test_the_same_seed_draws_the_same_split_and_another_another():
    labels = torch.arange(300) % 3
    one, same, other = (random_split(labels, seed, 100) for seed in (4, 4, 5))
    assert torch.equal(one.train, same.train)
    assert torch.equal(one.test, same.test)
    assert not torch.equal(one.train, other.train)


def test_a_rare_class_keeps_a_node_to_select_on():
    labels = torch.zeros(100, dtype=torch.int64)
    labels[:8] = 1
    split = random_split(labels, 0, development=90, each=20)
    assert int((labels[split.validation] == 1).sum()) >= 1


def test_a_development_set_without_a_class_is_refused():
    labels = torch.zeros(1000, dtype=torch.int64)
    labels[0] = 1
    seed = next(s for s in range(50) if not random_development_has(labels, s))
    with pytest.raises(DomainError, match="no training node is of class"):
        random_split(labels, seed, development=50)


def random_development_has(labels, seed):
    try:
        random_split(labels, seed, development=50)
    except DomainError:
        return False
    return True


@pytest.mark.parametrize("development", [0, 100, 101])
def test_a_development_set_that_leaves_no_test_set_is_refused(development):
    with pytest.raises(DomainError, match="leaves no test set"):
        random_split(torch.arange(100) % 2, 0, development)


def test_no_training_nodes_are_refused():
    with pytest.raises(DomainError, match="at least 1 training node"):
        random_split(torch.arange(100) % 2, 0, 50, each=0)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(DomainError, match="2 nodes are in both train and test"):
        Split(mask(6, 0, 1, 2), mask(6, 3), mask(6, 1, 2))
    with pytest.raises(DomainError, match="in both validation and test"):
        Split(mask(6, 0), mask(6, 3), mask(6, 3))
    with pytest.raises(DomainError, match="of one length"):
        Split(mask(6, 0), mask(5, 3), mask(6, 1))
    with pytest.raises(DomainError, match="validation set is empty"):
        Split(mask(6, 0), mask(6), mask(6, 1))
    with pytest.raises(DomainError, match="bool of shape"):
        Split(torch.tensor([0, 1]), mask(2, 0), mask(2, 1))
    with pytest.raises(DomainError, match="bool of shape"):
        Split([True, False], mask(2, 0), mask(2, 1))
    with pytest.raises(DomainError, match="names nodes 1 to 9 of a graph with 4"):
        Split.from_nodes(4, torch.tensor([0]), torch.tensor([1, 9]), torch.tensor([2]))


def test_labels_that_do_not_fit_are_refused():
    split = Split(mask(4, 0), mask(4, 1), mask(4, 2))
    with pytest.raises(DomainError, match="the masks have 4 nodes, labels 5"):
        split.check(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(DomainError, match=r"no training node is of class \[1\]"):
        split.check(torch.tensor([0, 1, 0, 0]))
    assert "train=1" in repr(split)
