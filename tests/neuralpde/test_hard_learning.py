"""The laws that made some trajectories are learned back from noisy frames of them."""

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.hard_data import conductivity, hard_case, of_area_one, source
from neuralpde.hard_flow import Form
from neuralpde.hard_law import MaterialLaw, SourceLaw
from neuralpde.hard_learning import learn
from operators import bumpy, icosphere

CASE = hard_case("bumpy", of_area_one(bumpy(icosphere(2), seed=1)), 2, seed=0)
HORIZONS = (8, 8, 24, 24)


def test_laws_are_learned_back() -> None:
    form, misfits = Form(False, SourceLaw(3, -0.15, 1.15), MaterialLaw(4)), []
    laws = learn(form, 6, [CASE], HORIZONS, lambda step, steps, misfit: misfits.append(misfit))
    assert laws.misfit == misfits[-1] < 1.5
    assert misfits[0] > 4
    c, gamma = torch.split(laws.shared, [form.source.size, form.material.size])
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert (form.source(u, c)[0] - source(u)).abs().max() < 0.3
    m = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    ratio = form.material(m, gamma)[0] / conductivity(m)
    # g is known up to a factor, which A holds.
    assert (ratio / ratio.mean() - 1).abs().max() < 0.25
    assert laws.belief.mean.shape == (6,)
    assert (laws.belief.variance > 0).all()
    assert not laws.belief.mean[1:].any()


def test_an_equation_without_a_source_does_not_fit() -> None:
    laws = learn(Form(True, SourceLaw(-1), MaterialLaw(0)), 0, [CASE], (8, 8))
    assert laws.misfit > 3
    assert laws.shared.shape == (1,)
    assert laws.belief.mean.numel() == 0


def test_nothing_to_learn_from() -> None:
    with pytest.raises(RunFolderError, match="at least one training case"):
        learn(Form(True, SourceLaw(-1), MaterialLaw(0)), 1, [])
