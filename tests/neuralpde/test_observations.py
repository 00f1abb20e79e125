"""Observations: whitened residuals, synthetic noise, and errors before anything is solved."""

import pytest
import torch

from neuralpde.observations import Observations
from operators import FieldError

PATH = torch.arange(3 * 2 * 5, dtype=torch.float64).reshape(3, 2, 5, 1)
NODES = torch.tensor([1, 4])


def test_residual_by_hand() -> None:
    seen = PATH[1:, :, NODES] + 0.5
    observations = Observations([1.0, 2.0], NODES, seen, 0.25)
    assert observations.solve_times == [0.0, 1.0, 2.0]
    assert observations.count == 8
    torch.testing.assert_close(observations.residual(PATH), torch.full((8,), -2.0, dtype=torch.float64))
    # With the start observed too, and a noise of its own at each time.
    noise = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    whole = Observations([0.0, 1.0, 2.0], NODES, PATH[:, :, NODES] - 1, noise)
    assert whole.solve_times == [0.0, 1.0, 2.0]
    torch.testing.assert_close(whole.residual(PATH).reshape(3, 4), (1 / noise).reshape(3, 1).expand(3, 4))


def test_complex_fields_and_parts() -> None:
    path = torch.complex(PATH, 2 * PATH)
    observations = Observations([1.0, 2.0], NODES, path[1:, :, NODES] - 1j, 0.5, part=1)
    residual = observations.residual((PATH, path))
    torch.testing.assert_close(residual, torch.tensor([0.0, 2.0], dtype=torch.float64).repeat(8))
    assert observations.count == 16


def test_synthetic_noise_is_the_generators() -> None:
    path = torch.zeros(2, 4000, 1, dtype=torch.float64)
    nodes = torch.arange(4000)
    one, other = (Observations.of(path, [1.0, 2.0], nodes, 0.3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one.values, other.values)
    assert float(one.values.std()) == pytest.approx(0.3, rel=0.05)


def test_infinite_noise_leaves_a_value_out() -> None:
    noise = torch.tensor([[0.25], [torch.inf]], dtype=torch.float64)
    observations = Observations([1.0, 2.0], NODES, PATH[1:, :, NODES] + 0.5, noise)
    assert observations.count == 4
    torch.testing.assert_close(observations.residual(PATH), torch.full((4,), -2.0, dtype=torch.float64))


def test_complex_noise_has_its_level_in_both_parts() -> None:
    path = torch.zeros(1, 4000, 1, dtype=torch.complex128)
    observations = Observations.of(path, [1.0], torch.arange(4000), 0.3, torch.Generator().manual_seed(1))
    # Of 8000 squares the mean is off by √(2/8000).
    assert float(observations.residual(torch.cat([path, path])).square().mean()) == pytest.approx(1, abs=0.05)
    assert float(observations.values.real.std()) == pytest.approx(0.3, rel=0.05)


def test_gradient_reaches_the_path() -> None:
    path = PATH.clone().requires_grad_()
    Observations([1.0, 2.0], NODES, PATH[1:, :, NODES] + 1, 1.0).residual(path).square().sum().backward()
    assert path.grad is not None
    assert set(path.grad.nonzero()[:, 2].tolist()) == {1, 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [2.0, 1.0]}, "increasing"),
        ({"times": [-1.0, 1.0]}, "increasing from start"),
        ({"nodes": torch.tensor([1, 1])}, "distinct"),
        ({"nodes": torch.tensor([True, False])}, "mask"),
        ({"values": torch.zeros(2, 2)}, "shape"),
        ({"values": torch.full((2, 2, 1), torch.nan)}, "not finite"),
        ({"noise": 0.0}, "positive"),
        ({"noise": torch.ones(3)}, "broadcast"),
        ({"noise": torch.inf}, "nothing was observed"),
        ({"nodes": [1, 4]}, "tensors"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"times": [1.0, 2.0], "nodes": NODES, "values": torch.zeros(2, 2, 1), "noise": 1.0}
    with pytest.raises(ValueError, match=message):
        Observations(**(good | change))  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="node 4"):
        Observations([1.0, 2.0], NODES, torch.zeros(2, 2, 1), 1.0).residual(torch.zeros(3, 3, 1))
    with pytest.raises(FieldError, match="node 4"):
        Observations.of(torch.zeros(2, 3, 1), [1.0, 2.0], NODES, 1.0, torch.Generator())
    with pytest.raises(FieldError, match="part 1 is observed"):
        Observations([1.0, 2.0], NODES, torch.zeros(2, 2, 1), 1.0, part=1).residual(PATH)
