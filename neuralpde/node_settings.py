"""Every setting of every method on every graph, as published or as found by us on validation.

grand-l and grand-nl are BLEND's settings without positions, not those of a search of their own. GCN and GAT have their
authors' settings for Cora on every graph.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from neuralpde.node_data import Dataset
from neuralpde.node_methods import Attention, Beltrami, Convolutions, Joint, Method, ProductKernel
from neuralpde.node_ours import KernelFlow, Propagation
from neuralpde.node_positions import DeepWalkLimit, SparsePageRank
from neuralpde.node_training import Consistency, EntropicConsistency, Schedule, SelfTraining
from operators.deepwalk import DeepWalk
from operators.encodings import PageRank
from operators.normalisation import Over, Softmax, Squareplus
from operators.rewiring import PageRankTopK
from operators.similarity import Pearson

# Chamberlain et al. 2021 (BLEND): the settings that the authors' search found.
CORA = Beltrami(
    Schedule(torch.optim.Adamax, rate=0.0229, decay=0.0051, epochs=100),
    time=18.3,
    tol_scale=822,
    heads=8,
    width=128 // 8,
    normalise=Squareplus(Over.COLUMNS),
    channels=64,
    position_channels=16,
    positions=PageRank(),
    source=True,
    self_loops=1.0,
    input_dropout=0.5,
    dropout=0.047,
)
CITESEER = Beltrami(
    Schedule(torch.optim.Adam, rate=0.0086, decay=0.1, epochs=250),
    time=7.87,
    tol_scale=2.9,
    heads=8,
    width=32 // 8,
    normalise=Squareplus(Over.COLUMNS),
    channels=64,
    position_channels=16,
    positions=DeepWalk(64, progress=False),
    source=True,
    self_loops=1.0,
    input_dropout=0.68,
    dropout=0.75,
    score=ProductKernel(),
)
CS = Beltrami(
    Schedule(torch.optim.RMSprop, rate=0.00093, decay=0.0047, epochs=250),
    time=3.13,
    tol_scale=9349,
    heads=4,
    width=8 // 4,
    normalise=Squareplus(Over.COLUMNS),
    channels=128,
    position_channels=32,
    positions=SparsePageRank(),
    source=False,
    self_loops=0.0,
    input_dropout=0.53,
    dropout=0.69,
)
COMPUTERS = Beltrami(
    Schedule(torch.optim.Adam, rate=0.0035, decay=0.0077, epochs=100),
    time=3.25,
    tol_scale=127,
    heads=4,
    width=64 // 4,
    normalise=Softmax(Over.ROWS),
    channels=64,
    position_channels=32,
    positions=DeepWalk(128, progress=False),
    source=False,
    self_loops=1.71,
    input_dropout=0.60,
    dropout=0.087,
)
PHOTO = Beltrami(
    Schedule(torch.optim.Adam, rate=0.0056, decay=0.0047, epochs=100),
    time=3.58,
    tol_scale=2087,
    heads=4,
    width=64 // 4,
    normalise=Softmax(Over.ROWS),
    channels=64,
    position_channels=16,
    positions=DeepWalk(128, progress=False),
    source=False,
    self_loops=0.058,
    input_dropout=0.43,
    dropout=0.47,
    score=Joint(Pearson),
)
# No settings are known for these two: Cora's and CS's, with positions that scale.
PUBMED = replace(CORA, positions=SparsePageRank())
OGBN_ARXIV = replace(CS, positions=None)
BLEND = {
    Dataset.CORA: CORA,
    Dataset.CITESEER: CITESEER,
    Dataset.CS: CS,
    Dataset.COMPUTERS: COMPUTERS,
    Dataset.PHOTO: PHOTO,
    Dataset.PUBMED: PUBMED,
    Dataset.OGBN_ARXIV: OGBN_ARXIV,
}

# Ours, found on the validation nodes of splits that the tables do not use.
CONSISTENT = Consistency(draws=2, weight=1.0, temperature=0.3, threshold=0.4, smoothing=0.1)
CORA_OURS = Propagation(Schedule(epochs=300, patience=100, objective=CONSISTENT), time=8.0)
CITESEER_OURS = replace(CORA_OURS, time=4.0, input_dropout=0.0, dropout=0.2)
# With the larger validation sets of random splits more could be told apart.
TAUGHT = SelfTraining((100, 150, 200), share=0.3)
CORA_RANDOM = Propagation(
    Schedule(rate=5e-3, decay=5e-3, epochs=230, patience=100, objective=CONSISTENT, self_training=TAUGHT),
    time=6.0,
    channels=64,
    normalised=False,
)
CITESEER_RANDOM = replace(
    CITESEER_OURS,
    schedule=Schedule(decay=2e-3, epochs=300, patience=100, objective=CONSISTENT),
    time=6.0,
    channels=64,
    sharpness=3.0,
    near=3,
    near_weight=0.5,
)
OURS_RANDOM: dict[Dataset, Method] = {Dataset.CORA: CORA_RANDOM, Dataset.CITESEER: CITESEER_RANDOM}
SAMPLED = EntropicConsistency(draws=2, warmup=50, sample=500)
PHOTO_OURS = KernelFlow(
    Schedule(rate=5e-3, decay=5e-3, epochs=250, check_every=5, objective=SAMPLED), time=1.0, positions=DeepWalkLimit(128)
)
OURS: dict[Dataset, Method] = {
    Dataset.CORA: CORA_OURS,
    Dataset.CITESEER: CITESEER_OURS,
    Dataset.CS: replace(PHOTO_OURS, time=2.0, feature_rank=512, positions=None),
    Dataset.COMPUTERS: replace(PHOTO_OURS, time=1.25),
    Dataset.PHOTO: PHOTO_OURS,
    # Not searched for: those of the graphs most like them.
    Dataset.PUBMED: CORA_OURS,
    Dataset.OGBN_ARXIV: replace(PHOTO_OURS, channels=256, positions=None),
}
GCN = Convolutions(Schedule(torch.optim.Adam, rate=0.01, decay=5e-4, epochs=200))
GAT = Attention(Schedule(torch.optim.Adam, rate=0.005, decay=5e-4, epochs=300, patience=100))


def methods_of(dataset: Dataset, split: str) -> dict[str, Method]:
    """The methods by their names in the table, with their settings for this graph."""
    blend = BLEND[dataset]
    linear = replace(blend, positions=None, position_channels=0)
    return {
        "ours": (OURS_RANDOM if split == "random" else OURS).get(dataset, OURS[dataset]),
        "blend": blend,
        "blend-knn": replace(blend, rewire=PageRankTopK(64, tolerance=1e-5)),
        "grand-l": linear,
        "grand-nl": replace(linear, frozen=False),
        "gcn": GCN,
        "gat": GAT,
    }
