"""A small training loop that survives being killed: resuming gives the weights of an uninterrupted run, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.files import RunFolderError, read_tensors, write_tensors

Loss = Callable[[int, torch.Generator], Tensor]


@dataclass
class Training:
    """What training did.

    Args:
        losses: the loss of each step so far.
        seconds: wall-clock time spent training, over all sessions.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return len(self.losses)


def train(
    model: nn.Module,
    loss: Loss,
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    seed: int = 0,
    save_seconds: float = 5.0,
    notes: dict[str, Any] | None = None,
    progress: Callable[[Training], None] = lambda training: None,
) -> Training:
    """Adam with a cosine schedule, from the checkpoint if there is one.

    Every step draws from a generator seeded by (seed, step) alone, and the checkpoint holds weights, moments and losses,
    so a run that was killed anywhere continues exactly as if it had not been.

    Args:
        loss: step, generator ↦ scalar loss; all its randomness must come from the generator.
        learning_rate: at the start; falls to a hundredth by a half cosine.
        checkpoint: a safetensors file, written atomically every `save_seconds` and at the end.
        notes: what identifies this training; a checkpoint with other notes is refused.

    Raises:
        FloatingPointError: the loss is not finite; the checkpoint keeps the last good step.
        RunFolderError: a damaged checkpoint, or one of another training.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    identity = {"steps": steps, "learning_rate": learning_rate, "seed": seed, **(notes or {})}
    training = _restore(checkpoint, model, optimizer, identity)
    saved = time.perf_counter()
    began, before = saved, training.seconds
    for step in range(training.step, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (0.505 + 0.495 * math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        try:
            value = loss(step, generator(seed, step))
        except BaseException:
            # Weights and moments are still those of the last finished step, so nothing of it need be lost.
            _save(checkpoint, model, optimizer, training, identity)
            raise
        if not bool(torch.isfinite(value.detach())):
            _save(checkpoint, model, optimizer, training, identity)
            raise FloatingPointError(
                f"the loss is {float(value.detach())} at step {step} of {checkpoint.stem}: lower the learning rate "
                f"({learning_rate}); the weights of step {step - 1} are kept in {checkpoint}"
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        training.losses.append(float(value.detach()))
        now = time.perf_counter()
        training.seconds = before + now - began
        if step == steps - 1 or now - saved > save_seconds:
            _save(checkpoint, model, optimizer, training, identity)
            saved = now
        progress(training)
    return training


def generator(*key: int) -> torch.Generator:
    """A generator that depends on the key alone."""
    state = 0
    for part in key:
        state = (state * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(state)


def load_weights(checkpoint: Path, model: nn.Module) -> Training:
    """Load a model's weights from a checkpoint, strictly."""
    tensors, notes = read_tensors(checkpoint)
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunFolderError(f"{checkpoint} holds the weights of another model: {error}") from error
    return Training(tensors["losses"].tolist(), float(notes["seconds"]))


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Adam, training: Training, identity: dict[str, Any]) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for k, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{k}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["losses"] = torch.tensor(training.losses, dtype=torch.float64)
    write_tensors(path, tensors, {"identity": identity, "seconds": training.seconds, "step": training.step})


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Adam, identity: dict[str, Any]) -> Training:
    if not path.exists():
        return Training()
    tensors, notes = read_tensors(path)
    if notes.get("identity") != identity:
        raise RunFolderError(
            f"{path} belongs to another training ({notes.get('identity')}), not to {identity}: use another folder, or "
            "resume with the settings it was started with"
        )
    training = load_weights(path, model)
    state = optimizer.state_dict()
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "adam":
            index, moment = rest.split(".")
            state["state"].setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict(state)
    return training
