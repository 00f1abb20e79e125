"""One seed: the test set decides nothing, the best epoch is chosen on validation, and losses are what they say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralpde.node_models import NodeModel
from neuralpde.node_splits import Split
from neuralpde.node_training import (
    Best,
    Consistency,
    CrossEntropy,
    EntropicConsistency,
    Schedule,
    SelfTraining,
    accuracy,
    forget_peak,
    peak_mb,
    train_nodes,
)
from neuralpde.testing_nodes import node_blocks
from operators import DomainError

DATA = node_blocks()


class Linear(NodeModel):
    """A linear classifier of the features, with dropout."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.x = torch.as_tensor(DATA.features.to_scipy().toarray()).float()
        self.layer, self.nfe, self.dropout = nn.Linear(24, 3), 1, dropout

    def forward(self):
        return self.layer(F.dropout(self.x, self.dropout, self.training))


def trained(labels=DATA.labels, split=DATA.split, seed=0, progress=lambda epoch, best: None, **options):
    return train_nodes(Linear, labels, split, Schedule(**{"epochs": 30, **options}), seed, progress)


def test_it_learns_and_tells_what_it_cost():
    result = trained(epochs=60)
    assert result.accuracy > 42  # one in three by chance
    assert result.parameters == 75
    assert result.nfe == 1
    assert result.seconds_per_epoch > 0
    assert 50 < result.peak_mb < 1e5
    assert result.epochs == 60


def test_a_seed_decides_everything_and_leaves_torch_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = trained(seed=1), trained(seed=1), trained(seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert (one.accuracy, one.validation, one.epoch) == (same.accuracy, same.validation, same.epoch)
    assert (one.accuracy, one.validation, one.epoch) != (other.accuracy, other.validation, other.epoch)


def test_the_test_labels_change_nothing_but_the_test_accuracy():
    spoilt = torch.where(DATA.split.test, (DATA.labels + 1) % 3, DATA.labels)
    one, other = trained(), trained(labels=spoilt)
    assert (one.validation, one.epoch) == (other.validation, other.epoch)
    assert one.accuracy != other.accuracy


def test_training_reads_no_label_but_those_of_the_training_set():
    """A constant model but for the training loss: other labels give the same weights."""
    spoilt = torch.where(DATA.split.train, DATA.labels, (DATA.labels + 1) % 3)
    seen = []
    for labels in (DATA.labels, spoilt):
        models = []
        train_nodes(lambda m=models: m.append(Linear()) or m[0], labels, DATA.split, Schedule(epochs=5), 0)
        seen.append(models[0].layer.weight.detach())
    assert torch.equal(*seen)


def test_the_best_epoch_is_by_accuracy_then_by_loss():
    labels, validation = torch.tensor([0, 1, 0]), torch.tensor([True, True, False])
    best = Best(labels, validation)
    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    unsure = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    wrong = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    for epoch, p in enumerate([wrong, unsure, sure, unsure, wrong], start=1):
        best.see(p, epoch)
    assert (best.epoch, best.accuracy) == (3, 100.0)
    assert torch.equal(best.predictions, sure)
    assert accuracy(best.predictions, labels, torch.tensor([False, False, True])) == 100.0


def test_averaged_predictions_forget_at_their_rate():
    best = Best(torch.tensor([0, 1]), torch.tensor([True, True]), averaging=0.75)
    one, other = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    best.see(one, 1)
    best.see(other, 2)
    assert torch.allclose(best.averaged, 0.75 * one + 0.25 * other)


def test_patience_ends_what_no_longer_improves():
    result = trained(epochs=400, patience=3, rate=0.5)
    assert result.epochs < 400
    assert trained(epochs=40, patience=None).epochs == 40


def test_progress_and_looks():
    told = []
    trained(epochs=7, check_every=3, progress=lambda epoch, best: told.append((epoch, best)))
    assert [epoch for epoch, _ in told] == list(range(1, 8))
    assert told[1][1] == -math.inf
    assert told[2][1] == told[3][1] > 0
    # The last epoch is always looked at.
    assert trained(epochs=2, check_every=5).epoch == 2


def test_a_loss_that_is_not_finite_is_named():
    class Broken(CrossEntropy):
        def __call__(self, model, labels, train, epoch):
            return super().__call__(model, labels, train, epoch) * math.nan

    with pytest.raises(FloatingPointError, match="in epoch 1: lower the learning rate"):
        trained(objective=Broken())


def test_a_split_of_another_graph_is_refused():
    with pytest.raises(DomainError, match="different graphs"):
        trained(labels=DATA.labels[:-1])
    everything = torch.ones(DATA.nodes, dtype=torch.bool)
    one = DATA.labels == 1
    order = torch.arange(DATA.nodes)
    split = Split(~one & (order < 50), ~one & (order >= 50), one & everything)
    with pytest.raises(DomainError, match=r"no training node is of class \[1\]"):
        trained(split=split)


@pytest.mark.parametrize("kind", [Consistency, EntropicConsistency])
def test_without_dropout_draws_agree_up_to_sharpening(kind):
    model = Linear()
    plain = CrossEntropy()(model, DATA.labels, DATA.split.train, 0)
    loss = kind(draws=3, weight=0.0)(model, DATA.labels, DATA.split.train, 0)
    assert torch.allclose(loss, plain)
    spread = kind(draws=3, temperature=1.0).spread(model().expand(3, -1, -1))
    p = model().softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    assert torch.allclose(spread, entropy if kind is EntropicConsistency else torch.zeros(()), atol=1e-6)


def test_consistency_is_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 3, dtype=torch.float64)
    p = logits.softmax(-1)
    q = p.mean(0) ** 2
    q = q / q.sum(-1, keepdim=True)
    expected = ((p - q) ** 2).sum(-1).mean()
    assert torch.allclose(Consistency(temperature=0.5).spread(logits), expected)
    sure = p.mean(0).amax(-1) > 0.6
    expected = (((p - q) ** 2).sum(-1).mean(0) * sure).mean()
    assert torch.allclose(Consistency(temperature=0.5, threshold=0.6).spread(logits), expected)
    entropy = -(q * p.log()).sum(-1).mean()
    assert torch.allclose(EntropicConsistency(temperature=0.5).spread(logits), entropy)


def test_consistency_rises_over_its_warmup_and_may_sample_nodes():
    model = Linear(0.5)
    torch.manual_seed(0)
    losses = []
    for epoch in (0, 9):
        torch.manual_seed(0)
        objective = Consistency(weight=10.0, warmup=10, sample=50)
        losses.append(objective(model, DATA.labels, DATA.split.train, epoch).item())
    torch.manual_seed(0)
    none = Consistency(weight=0.0, sample=50)(model, DATA.labels, DATA.split.train, 0).item()
    assert math.isclose((losses[1] - none) / (losses[0] - none), 10, rel_tol=1e-4)


def test_peak_memory_sees_an_allocation():
    forget_peak()
    before = peak_mb(torch.device("cpu"))
    held = torch.ones(50_000_000)
    assert peak_mb(torch.device("cpu")) - before > 150
    del held


def test_the_most_confident_of_each_class_become_lessons():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45], [0.3, 0.7], [0.01, 0.99]])
    labels, train = torch.tensor([1, 1, 1, 1, 0, 0]), torch.tensor([True, False, False, False, False, True])
    taught, chosen = SelfTraining((1,), share=0.5)(p, labels, train)
    # Of nodes 1, 2, 3, predicted to be of class 0, the first; of node 4 alone, none; what is known stays as it is known.
    assert chosen.tolist() == [True, True, False, False, False, True]
    assert taught[chosen].tolist() == [1, 0, 0]
    assert not torch.equal(labels, taught)


def test_self_training_reads_no_other_label():
    spoilt = torch.where(DATA.split.train, DATA.labels, (DATA.labels + 1) % 3)
    seen = []
    for labels, lesson in ((DATA.labels, SelfTraining((4, 8))), (spoilt, SelfTraining((4, 8))), (DATA.labels, None)):
        models = []
        schedule = Schedule(epochs=12, self_training=lesson)
        train_nodes(lambda m=models: m.append(Linear()) or m[0], labels, DATA.split, schedule, 0)
        seen.append(models[0].layer.weight.detach())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
