"""Learning through a solver: residuals in units of persistence, and Gauss and Newton's steps."""

import pytest
import torch

from integrators import Exponential, integrate
from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_linear import Dissipative
from neuralpde.mesh_ours_search import Window, _normal, learn, loss, windows
from neuralpde.metriplectic import MetriplecticFlow
from operators import icosphere, torus
from operators.checks import ConvergenceError

SCENES = [
    Scene("ball", icosphere(1).to(torch.float32), 0.02, Truth.SURFACE),
    Scene("ring", torus(10, 6, radius=3.0, tube=1.0).to(torch.float32), 0.1, Truth.SURFACE),
]
TRUE = (1.0, 0.3)


@pytest.fixture(scope="module")
def cases():
    made = []
    for k, scene in enumerate(SCENES):
        flow = MetriplecticFlow(scene.laplacian, scene.dt, TRUE)
        x = torch.randn(2, scene.laplacian.shape[0], 1, generator=torch.Generator().manual_seed(k))
        with torch.no_grad():
            path = integrate(flow, x, scene.dt * torch.arange(30, dtype=torch.float64), Exponential()).x.transpose(0, 1)
        made.append(Case(scene, path, path))
    return made


def test_windows_begin_at_the_beginning_and_repeat_with_the_seed(cases):
    one, two, other = (windows(cases, seed) for seed in (3, 3, 4))
    assert torch.equal(one[0].given.frames[:2], cases[0].frames[:, :5])
    assert torch.equal(one[1].given.frames, two[1].given.frames)
    assert not torch.equal(one[1].given.frames, other[1].given.frames)
    assert one[0].targets.shape == (4, 2, 42, 1)
    assert windows([case.first(2, 8) for case in cases], 0) == []


def test_persistence_has_an_error_of_one(cases):
    window = windows(cases, 0)[0]

    class Still(Dissipative):
        def evolved(self, given, frames):
            return given.frames[:, -1:].expand(-1, len(frames), -1, -1)

    assert float(window.residual(Still(SCENES[0], [1.0], False)).square().sum()) == pytest.approx(1.0, rel=1e-5)


def test_the_normal_equations_are_those_of_finite_differences(cases):
    form = Dissipative(SCENES[0], [0.8, 0.2], False)
    seen = windows(cases, 0)
    learned = [form.flow.root]
    gram, slope = _normal(form, seen, learned)
    columns, at = [], form.flow.root.detach().clone()
    for k in range(2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                form.flow.root.copy_(at)
                form.flow.root[k] += sign * 1e-2
                ends.append(torch.cat([window.residual(form) for window in seen]))
        columns.append((ends[0] - ends[1]) / 2e-2)
    with torch.no_grad():
        form.flow.root.copy_(at)
        r = torch.cat([window.residual(form) for window in seen])
    J = torch.stack(columns, dim=1)
    assert torch.allclose(gram, J.T @ J, rtol=2e-2)
    assert torch.allclose(slope, J.T @ r, rtol=2e-2)


def test_the_coefficients_are_learned(cases):
    form, told = Dissipative(SCENES[0], [0.5, 0.1], False), []
    seen = windows(cases, 0)
    before = loss(form, seen)
    after = learn(form, seen, 8, lambda step, error: told.append(error))
    assert form.flow.dissipation.tolist() == pytest.approx(TRUE, rel=1e-2)
    assert after <= 1e-6 * before
    assert told == sorted(told, reverse=True)


def test_at_a_minimum_nothing_changes(cases):
    form = Dissipative(SCENES[0], TRUE, False)
    kept = form.flow.root.detach().clone()
    learn(form, windows(cases, 0), 3, lambda step, error: None)
    assert torch.allclose(form.flow.root, kept, rtol=1e-3)


def test_a_form_that_cannot_be_solved_is_infinitely_wrong(cases):
    form = Dissipative(SCENES[0], [1.0], False)
    with torch.no_grad():
        form.flow.root.fill_(float("nan"))
    assert loss(form, windows(cases, 0)) == float("inf")
    assert isinstance(windows(cases, 0)[0], Window)


def test_a_form_whose_gradient_fails_stays_as_it_is(cases, monkeypatch):
    def fails(*given):
        raise ConvergenceError("more products than there are")

    monkeypatch.setattr("neuralpde.mesh_ours_search._normal", fails)
    form = Dissipative(SCENES[0], [0.8, 0.2], False)
    before, seen = form.flow.root.detach().clone(), windows(cases, 0)
    assert learn(form, seen, 3, lambda iteration, error: None) == loss(form, seen)
    assert torch.equal(form.flow.root, before)
