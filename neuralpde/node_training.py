"""Train one classifier of nodes from one seed, selecting on validation alone."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralpde.node_models import NodeModel
from neuralpde.node_splits import Split


class Objective(Protocol):
    """What a training step minimises."""

    def __call__(self, model: NodeModel, labels: Tensor, train: Tensor, epoch: int) -> Tensor:
        """The loss, from labels (n,) of which only those in `train` (n,) may be read."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the training nodes.

    Args:
        smoothing: of the labels, in [0, 1).
    """

    smoothing: float = 0.0

    def __call__(self, model: NodeModel, labels: Tensor, train: Tensor, epoch: int) -> Tensor:
        return F.cross_entropy(model()[train], labels[train], label_smoothing=self.smoothing)


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy of the training nodes, and all nodes' predictions alike whatever dropout draws (Feng et al. 2020, eqs. 3–6).

    Of S draws p⁽ˢ⁾ with the mean p̄ it adds λ mean_i Σ_s |p_i⁽ˢ⁾ − q_i|² / S, where q_i ∝ p̄_i^{1/τ} is the sharpened mean.

    Args:
        draws: S, passes an epoch. Good values: 2 to 4.
        weight: λ, reached by a linear rise over the first `warmup` epochs.
        temperature: τ; smaller is sharper.
        threshold: nodes whose p̄ has no class above it are left alone.
        smoothing: of the labels.
        sample: so many nodes, drawn anew each epoch, stand for all; None for all.
    """

    draws: int = 2
    weight: float = 1.0
    temperature: float = 0.5
    threshold: float = 0.0
    warmup: int = 1
    smoothing: float = 0.0
    sample: int | None = None

    def __call__(self, model: NodeModel, labels: Tensor, train: Tensor, epoch: int) -> Tensor:
        known, n = train.nonzero().squeeze(1), len(labels)
        others = torch.arange(n) if self.sample is None else torch.randint(n, (self.sample,))
        logits = model.draws(self.draws, torch.cat([known, others.to(known.device)]))
        given = logits[:, : len(known)].flatten(0, 1)
        fit = F.cross_entropy(given, labels[known].repeat(self.draws), label_smoothing=self.smoothing)
        return fit + self.weight * min(1.0, (epoch + 1) / self.warmup) * self.spread(logits[:, len(known) :])

    def spread(self, logits: Tensor) -> Tensor:
        """The mean over nodes of how far the draws lie from their sharpened mean; logits (S, n, classes)."""
        mean = logits.detach().softmax(-1).mean(0)
        target = (mean.clamp(min=1e-12).log() / self.temperature).softmax(-1)
        return (self.apart(logits, target).mean(0) * (mean.amax(-1) > self.threshold)).mean()

    def apart(self, logits: Tensor, target: Tensor) -> Tensor:
        """|p − q|², (S, n)."""
        return (logits.softmax(-1) - target).square().sum(-1)


@dataclass(frozen=True)
class EntropicConsistency(Consistency):
    """The same with the cross-entropy −Σ_c q_c log p_c in place of the square: it also draws predictions to certainty."""

    def apart(self, logits: Tensor, target: Tensor) -> Tensor:
        return -(target * logits.log_softmax(-1)).sum(-1)


@dataclass(frozen=True)
class SelfTraining:
    """From some epochs on the nodes predicted with the most confidence are trained on as if that were their label.

    Whose label is known keeps it; no other label is read. Each time all nodes are chosen anew.

    Args:
        epochs: when to choose them.
        share: of the nodes predicted to be of each class.
    """

    epochs: tuple[int, ...]
    share: float = 0.3

    def __call__(self, p: Tensor, labels: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (n,) and nodes (n,) to train on, from probabilities (n, classes) and the known labels in `train`."""
        confidence, guess = p.max(dim=-1)
        confidence = confidence.masked_fill(train, 0)
        labels, chosen = torch.where(train, labels, guess), train.clone()
        for label in range(p.shape[-1]):
            candidates = (guess == label) & (confidence > 0)
            count = int(self.share * int(candidates.sum()))
            chosen[confidence.masked_fill(~candidates, -1).topk(count).indices] = True
        return labels, chosen


PLAIN = CrossEntropy()


@dataclass(frozen=True)
class Schedule:
    """How a model is trained.

    Args:
        optimiser: one of torch's, such as `torch.optim.Adam`.
        rate, decay: learning rate and weight decay.
        epochs: at most; fewer where neither accuracy nor loss on validation has improved for `patience` epochs.
        patience: None to train to the end.
        objective: what is minimised.
        check_every: epochs between two looks at the validation nodes.
        averaging: predictions are a moving average over the epochs with this memory, in [0, 1); 0 for the current weights' alone.
        self_training: what else is trained on, and from when; None for the known labels alone.
    """

    optimiser: type[torch.optim.Optimizer] = torch.optim.Adam
    rate: float = 0.01
    decay: float = 5e-4
    epochs: int = 200
    patience: int | None = None
    objective: Objective = PLAIN
    check_every: int = 1
    averaging: float = 0.0
    self_training: SelfTraining | None = None


@dataclass(frozen=True)
class Trained:
    """What one seed gave. Accuracies in percent, at the epoch of the best validation accuracy (of equal ones, the smallest loss).

    Args:
        seconds_per_epoch: CPU-seconds (wall-clock on an accelerator) of forward, backward and optimiser step.
        peak_mb: the largest resident memory of the whole process in the training, in MB (of the accelerator, on one).
    """

    seed: int
    accuracy: float
    validation: float
    epoch: int
    epochs: int
    parameters: int
    nfe: float
    seconds_per_epoch: float
    peak_mb: float


def train_nodes(
    build: Callable[[], NodeModel],
    labels: Tensor,
    split: Split,
    schedule: Schedule,
    seed: int,
    progress: Callable[[int, float], None] = lambda epoch, best: None,
) -> Trained:
    """Build and train one model. The test set is looked at once, after the last epoch.

    Args:
        build: makes the model; called after the seed is set.
        labels: (n,).
        split: which of them are trained on, selected on, and tested on.
        progress: told the number of finished epochs and the best validation accuracy so far.

    Raises:
        DomainError: a split of another graph, or without a class. FloatingPointError: the loss is not finite.
    """
    split.check(labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        forget_peak()
        model = build()
        optimiser = schedule.optimiser(model.groups(schedule.decay), lr=schedule.rate)  # type: ignore[call-arg]
        best = Best(labels, split.validation, schedule.averaging)
        seconds, nfe, epoch = 0.0, 0.0, 0
        taught, known, lesson = labels, split.train, schedule.self_training
        for epoch in range(1, schedule.epochs + 1):
            if lesson is not None and epoch in lesson.epochs and best.averaged is not None:
                taught, known = lesson(best.averaged, labels, split.train)
            start = _clock(labels)
            model.train()
            optimiser.zero_grad()
            loss = schedule.objective(model, taught, known, epoch - 1)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            seconds += _clock(labels) - start
            nfe += model.nfe
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the loss of seed {seed} is {loss.item()} in epoch {epoch}: lower the learning rate")
            if epoch % schedule.check_every == 0 or epoch == schedule.epochs:
                model.eval()
                with torch.no_grad():
                    best.see(model().softmax(-1), epoch)
            progress(epoch, best.accuracy)
            if schedule.patience is not None and epoch - best.improved > schedule.patience:
                break
        return Trained(
            seed=seed,
            accuracy=accuracy(best.predictions, labels, split.test),
            validation=best.accuracy,
            epoch=best.epoch,
            epochs=epoch,
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            nfe=nfe / epoch,
            seconds_per_epoch=seconds / epoch,
            peak_mb=peak_mb(labels.device),
        )


class Best:
    """The predictions of the best epoch so far, by validation accuracy, of equal ones by validation loss."""

    def __init__(self, labels: Tensor, validation: Tensor, averaging: float = 0.0) -> None:
        self.labels, self.validation, self.averaging = labels, validation, averaging
        self.accuracy, self.loss, self.least, self.epoch, self.improved = -math.inf, math.inf, math.inf, 0, 0
        self.predictions = torch.empty(0)
        self.averaged: Tensor | None = None

    def see(self, p: Tensor, epoch: int) -> None:
        """Take the probabilities (n, classes) of an epoch into account."""
        if self.averaged is not None and self.averaging:
            p = self.averaging * self.averaged + (1 - self.averaging) * p
        self.averaged = p
        score = accuracy(p, self.labels, self.validation)
        chosen = p[self.validation].clamp(min=1e-12).log()
        loss = float(F.nll_loss(chosen, self.labels[self.validation]))
        if (score, -loss) > (self.accuracy, -self.loss):
            self.accuracy, self.loss, self.epoch, self.improved = score, loss, epoch, epoch
            self.predictions = p
        if loss < self.least:
            self.least, self.improved = loss, epoch


def accuracy(p: Tensor, labels: Tensor, nodes: Tensor) -> float:
    """The percentage of the nodes (a mask) whose largest probability is that of their label."""
    return 100 * float((p[nodes].argmax(-1) == labels[nodes]).double().mean())


def _clock(like: Tensor) -> float:
    if like.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(like.device)
    return time.perf_counter()


def forget_peak() -> None:
    """Let the process's peak memory start from what it holds now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: torch.device) -> float:
    """The peak of resident memory since `forget_peak`, in MB of 10⁶ bytes; of the accelerator's own memory, on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    # macOS counts in bytes, and cannot start anew.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
