"""A case tells inputs from targets, and refuses what does not fit."""

from dataclasses import replace

import pytest
import torch
from sensor_cases import case

from neuralpde.sensor_case import fingerprint
from operators import DomainError


def test_inputs_and_targets():
    one = case(windows=5)
    assert one.inputs.values.shape == (5, 6, 8, 1)
    assert one.inputs.wanted.shape == (5, 4)
    assert one.inputs.complete
    assert bool((one.inputs.wanted[:, 0] > one.inputs.times[:, -1]).all())
    values, seen = one.targets
    assert torch.equal(values, one.values[:, 6:])
    assert bool(seen.all())
    assert one.horizon == 4
    assert one.some(slice(0, 2)).values.shape[0] == 2


def test_every_number_is_in_the_fingerprint():
    one = case(windows=3)
    values = one.values.clone()
    values[2, 9, 7, 0] += 1e-6
    others = [replace(one, values=values), replace(one, times=one.times + 1), replace(one, scored=torch.arange(8) < 7)]
    assert len({fingerprint([other]) for other in [one, *others]}) == 4
    assert fingerprint([one]) == fingerprint([case(windows=3)])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: {"values": c.values[:, :, :3]}, "values must have shape"),
        (lambda c: {"seen": c.seen.float()}, "must be bool"),
        (lambda c: {"times": c.times.flip(1)}, "increase"),
        (lambda c: {"given": 10}, "some must be forecast"),
        (lambda c: {"values": c.values * torch.inf}, "not infinite or NaN"),
        (lambda c: {"seen": ~c.seen}, "must not leak"),
    ],
)
def test_what_does_not_fit_is_refused(change, text):
    one = case(windows=3)
    with pytest.raises(DomainError, match=text):
        replace(one, **change(one))
