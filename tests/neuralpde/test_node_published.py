"""The paper's numbers, by graph, split and method."""

from neuralpde.node_data import Dataset
from neuralpde.node_published import PUBLISHED, Published


def test_numbers_are_those_of_tables_2_and_3():
    assert PUBLISHED[Dataset.CORA, "planetoid"]["blend"] == Published(84.2, 0.6)
    assert PUBLISHED[Dataset.PHOTO, "random"]["gat"] == Published(85.7, 2.0)
    assert str(PUBLISHED[Dataset.CITESEER, "random"]["gcn"]) == "71.9±1.9"


def test_ours_stands_beside_the_better_of_the_papers_two():
    assert PUBLISHED[Dataset.PHOTO, "random"]["ours"] == Published(93.5, 0.3)
    assert PUBLISHED[Dataset.CORA, "random"]["ours"] == Published(84.8, 0.9)
    assert "blend-knn" not in PUBLISHED[Dataset.OGBN_ARXIV, "planetoid"]
