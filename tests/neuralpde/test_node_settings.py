"""Every graph has every method, and the published settings are the published ones."""

from typing import get_args

import pytest
import torch

from neuralpde.node_data import Dataset
from neuralpde.node_methods import Beltrami, Joint, ProductKernel
from neuralpde.node_positions import SparsePageRank
from neuralpde.node_settings import BLEND, methods_of
from neuralpde.reproduce_blend import Name
from operators.attention import ScaledDotProduct
from operators.deepwalk import DeepWalk
from operators.encodings import PageRank
from operators.normalisation import Over
from operators.similarity import Pearson

PUBLISHED = {
    # T, tol_scale, heads, attention dim, columns, squareplus, channels, positions, source, loops, dropouts, rate, decay, epochs
    Dataset.CORA: (18.3, 822, 8, 128, True, True, 64, 16, True, 1, 0.5, 0.047, 0.0229, 0.0051, 100),
    Dataset.CITESEER: (7.87, 2.9, 8, 32, True, True, 64, 16, True, 1, 0.68, 0.75, 0.0086, 0.1, 250),
    Dataset.CS: (3.13, 9349, 4, 8, True, True, 128, 32, False, 0, 0.53, 0.69, 0.00093, 0.0047, 250),
    Dataset.COMPUTERS: (3.25, 127, 4, 64, False, False, 64, 32, False, 1.71, 0.6, 0.087, 0.0035, 0.0077, 100),
    Dataset.PHOTO: (3.58, 2087, 4, 64, False, False, 64, 16, False, 0.058, 0.43, 0.47, 0.0056, 0.0047, 100),
}


@pytest.mark.parametrize("dataset", Dataset)
@pytest.mark.parametrize("split", ["planetoid", "random"])
def test_all_methods_are_there(dataset, split):
    assert tuple(methods_of(dataset, split)) == get_args(Name)


SCORES = {
    Dataset.CORA: (Joint(ScaledDotProduct), PageRank(restart=0.05, tolerance=None), torch.optim.Adamax),
    Dataset.CITESEER: (ProductKernel(), DeepWalk(64), torch.optim.Adam),
    Dataset.CS: (Joint(ScaledDotProduct), SparsePageRank(restart=0.05, tolerance=1e-4), torch.optim.RMSprop),
    Dataset.COMPUTERS: (Joint(ScaledDotProduct), DeepWalk(128), torch.optim.Adam),
    Dataset.PHOTO: (Joint(Pearson), DeepWalk(128), torch.optim.Adam),
}


@pytest.mark.parametrize("dataset", SCORES)
def test_scores_positions_and_optimisers_are_as_published(dataset):
    s = BLEND[dataset]
    assert (s.score, s.positions, s.schedule.optimiser) == SCORES[dataset]
    assert s.frozen
    assert s.schedule.patience is None


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_blend_is_as_published(dataset):
    s = BLEND[dataset]
    squareplus = type(s.normalise).__name__ == "Squareplus"
    assert (
        s.time, s.tol_scale, s.heads, s.heads * s.width, s.normalise.over is Over.COLUMNS, squareplus, s.channels,
        s.position_channels, s.source, s.self_loops, s.input_dropout, s.dropout, s.schedule.rate, s.schedule.decay,
        s.schedule.epochs,
    ) == PUBLISHED[dataset]  # fmt: skip


def test_grand_has_no_positions_and_one_of_them_no_frozen_attention():
    methods = methods_of(Dataset.CORA, "planetoid")
    linear, nonlinear = methods["grand-l"], methods["grand-nl"]
    assert isinstance(linear, Beltrami)
    assert linear.positions is nonlinear.positions is None
    assert (linear.frozen, nonlinear.frozen) == (True, False)
    assert methods["blend-knn"].rewire is not None
    assert methods["blend"].schedule.optimiser is torch.optim.Adamax
