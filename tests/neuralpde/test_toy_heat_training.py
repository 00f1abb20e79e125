"""Training in the toy experiment: reproducible, continued after a kill, started several times."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from neuralpde.toy_heat import TRAINED_STEPS, GridHeat, first, parted, toy_heat
from neuralpde.toy_heat_methods import Schedule, adjacency
from neuralpde.toy_heat_training import Fitted, Trained
from neuralpde.uni_graph import GraphConvolution
from operators import Movable


class TwoNumbers(Movable):
    """a x + b Ã x."""

    def __init__(self, graph):
        super().__init__()
        self.operator = adjacency(graph)
        self.weights = torch.nn.Parameter(torch.randn(2))

    def forward(self, x):
        return self.weights[0] * x + self.weights[1] * self.operator(x)


@dataclass(frozen=True)
class ByAdam(Trained):
    name: ClassVar[str] = "adam"

    def build(self, graph):
        return TwoNumbers(graph)


@dataclass(frozen=True)
class ByNewton(Fitted):
    name: ClassVar[str] = "newton"

    def build(self, graph):
        return TwoNumbers(graph)


@dataclass(frozen=True)
class Complex(Trained):
    name: ClassVar[str] = "complex"

    def build(self, graph):
        class Turned(Movable):
            def __init__(self):
                super().__init__()
                self.layer = GraphConvolution(adjacency(graph), 1, 1)

            def forward(self, x):
                return torch.complex(self.layer(x), 100 * x)

        return Turned()


@pytest.fixture(scope="module")
def seen():
    return first(parted(toy_heat(200, 0))[0], 8)


def quiet(*told):
    pass


def test_both_ways_find_the_least_squares_fit(seen, tmp_path):
    told = []
    newton = ByNewton().fit(seen, Schedule(1), 0, tmp_path / "n", lambda *what: told.append(what))
    assert newton.parameters == 2
    assert all(0 < step <= steps and loss > 0 for step, steps, loss in told)
    adam = ByAdam(learning_rate=0.1).fit(seen, Schedule(150), 0, tmp_path / "a.safetensors", quiet)
    item = seen[2]
    x = item.frames[:, 1]
    torch.testing.assert_close(adam.predict(item, x), newton.predict(item, x), atol=5e-3, rtol=0.0)
    # And on a graph of no training: parameters move.
    other = GridHeat(6, torch.rand(1, 5, 36, 1))
    assert adam.predict(other, other.frames[:, 0]).shape == (1, 36, 1)


def test_the_seed_alone_decides(seen, tmp_path):
    x = seen[0].frames[:, 0]
    state = torch.random.get_rng_state()
    results = [
        ByAdam(starts=2).fit(seen, Schedule(10), seed, tmp_path / f"{k}.safetensors", quiet).predict(seen[0], x)
        for k, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_killed_training_continues(seen, tmp_path):
    x = seen[0].frames[:, 0]

    def killed(step, steps, loss):
        if steps == 12 and step == 5:
            raise KeyboardInterrupt

    whole = ByAdam().fit(seen, Schedule(12), 0, tmp_path / "whole.safetensors", quiet).predict(seen[0], x)
    path = tmp_path / "killed.safetensors"
    # The checkpoint is written every few seconds: here by the interruption of a later session, and at the end.
    with pytest.raises(KeyboardInterrupt):
        ByAdam().fit(seen, Schedule(12), 0, path, killed)
    assert torch.equal(ByAdam().fit(seen, Schedule(12), 0, path, quiet).predict(seen[0], x), whole)


def test_the_best_of_several_starts_goes_on(seen, tmp_path):
    method, path = ByAdam(learning_rate=1e-6, starts=4), tmp_path / "best.safetensors"
    learned = method.fit(seen, Schedule(10), 3, path, quiet)
    assert len(list(tmp_path.glob("best-start-*.safetensors"))) == 4
    views = [method.drawn(seen, 3 * 4 + k) for k in range(4)]
    x, y = seen[0].frames[:, 0], seen[0].frames[:, 1]
    with torch.no_grad():
        errors = [float((view.on(seen[0].graph)(x) - y).square().mean()) for view in views]
        found = float((learned.predict(seen[0], x) - y).square().mean())
    assert found == pytest.approx(min(errors), rel=1e-2)
    assert max(errors) > 2 * min(errors)


def test_only_real_parts_are_trained(seen, tmp_path):
    learned = Complex(learning_rate=0.05).fit(seen, Schedule(60), 0, tmp_path / "c.safetensors", quiet)
    z = learned.predict(seen[2], seen[2].frames[:, 1]).detach()
    assert float(z.imag.abs().max()) > 10
    assert float((z.real - seen[2].frames[:, 2]).square().mean()) < float(seen[2].frames[:, 2].square().mean())


def test_published_settings_override_rate_and_length(seen, tmp_path):
    steps = []
    method = ByAdam(lengths=3)
    method.fit(seen, Schedule(2), 0, tmp_path / "a.safetensors", lambda step, of, loss: steps.append(of))
    assert set(steps) == {6}
    steps.clear()
    method.fit(seen, Schedule(2, published=True), 0, tmp_path / "b.safetensors", lambda step, of, loss: steps.append(of))
    assert set(steps) == {2}
    assert TRAINED_STEPS == 3
