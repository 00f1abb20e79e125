"""Dissipation and oscillation: least squares finds the coefficients of exact flows and of known schemes."""

import math

import pytest
import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_linear import Dissipative, Oscillating, powers
from operators import icosphere, torus

SCENES = [
    Scene("ball", icosphere(1).to(torch.float32), 0.02, Truth.SURFACE),
    Scene("ring", torus(10, 6, radius=3.0, tube=1.0).to(torch.float32), 0.1, Truth.SURFACE),
]


def spectral(scene, factor, conditions=2, frames=30, seed=0):
    """Frames U f(λ, k) Uᵀ x, from eigenvectors."""
    laplacian = scene.laplacian
    root = laplacian.mass.double().sqrt()[:, None]
    matrix = torch.from_numpy(laplacian.symmetrized().stiffness.to_scipy().toarray()).double()
    values, vectors = torch.linalg.eigh(matrix)
    start = torch.randn(conditions, len(root), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    modes = vectors.T @ (root * start)
    values = values.clamp(min=0)[:, None]
    path = torch.stack([vectors @ (factor(values, k) * modes) / root for k in range(frames)], dim=1).float()
    return Case(scene, path, path)


def cases(factor):
    return [spectral(scene, factor(scene), seed=k) for k, scene in enumerate(SCENES)]


def test_heat_is_found():
    form = Dissipative.fitted(cases(lambda s: lambda lam, k: torch.exp(-k * s.dt * lam)))
    rho = form.flow.dissipation.detach()
    assert float(rho[0]) == pytest.approx(1.0, abs=1e-3)
    assert float(rho[1]) < 0.05


def test_an_explicit_step_is_found_exactly():
    truth = cases(lambda s: lambda lam, k: (1 - s.dt * lam) ** k)
    form = Dissipative.fitted(truth, frame_by_frame=True)
    assert form.flow.dissipation.tolist() == pytest.approx([1.0], abs=1e-5)
    with torch.no_grad():
        rolled = form.evolved(truth[0].given, range(1, 26))
    assert float((rolled - truth[0].frames[:, 5:]).abs().max()) <= 1e-5
    # The exact flow starts with the series of −log(1 − σ).
    assert Dissipative.fitted(truth).flow.dissipation[:2].tolist() == pytest.approx([1.0, 0.5], abs=0.1)


@pytest.mark.parametrize("frame_by_frame", [True, False])
def test_waves_are_found(frame_by_frame):
    def of(scene):
        def factor(lam, k):
            z = scene.dt**2 * 20 * lam
            turn = 2 * torch.asin(z.sqrt() / 2) if frame_by_frame else z.sqrt()
            return torch.cos(k * turn)

        return factor

    truth = cases(of)
    form = Oscillating.fitted(truth, frame_by_frame=frame_by_frame)
    assert float(form.flow.stiffness[0].detach()) == pytest.approx(20.0, rel=1e-3)
    if not frame_by_frame:
        # The powers of 2 − 2 cos Ωτ, 20²/12 and 20³/360, are gone from Ω².
        assert float(form.flow.stiffness[1].detach()) <= 0.05 * 20**2 / 12
        assert float(form.flow.stiffness[2].detach()) <= 0.1 * 20**3 / 360
    for case in truth:
        with torch.no_grad():
            rolled = form.evolved(case.given, range(1, 26))
        error = (rolled - case.frames[:, 5:]).norm() / case.frames[:, 5:].norm()
        assert float(error) <= (1e-4 if frame_by_frame else 0.05)


def test_damping_is_found():
    """u_tt = −5 L u − D u_t with D = 0.05 τ L."""

    def of(scene):
        def factor(lam, k):
            t, square, drag = k * scene.dt, 5 * lam, 0.05 * scene.dt * lam
            turn = (square - drag**2 / 4).clamp(min=1e-12).sqrt()
            return torch.exp(-drag * t / 2) * (torch.cos(turn * t) + drag / 2 * torch.sin(turn * t) / turn)

        return factor

    form = Oscillating.fitted(cases(of))
    assert form.flow.damping.tolist()[0] == pytest.approx(0.05, rel=0.1)
    assert float(form.flow.stiffness[0].detach()) == pytest.approx(5.0, rel=1e-2)


def test_the_state_at_the_last_frame_comes_from_all_five():
    """The momentum is exact for an exact flow, and noise averages out better than in a difference of two frames."""
    truth = cases(lambda s: lambda lam, k: torch.cos(k * s.dt * (3 * lam).sqrt()))[0]
    form = Oscillating(SCENES[0], [3.0], [], False)
    with torch.no_grad():
        q, p = form.begin(truth.given)
    exact = spectral(SCENES[0], lambda lam, k: -(3 * lam).sqrt() * torch.sin((k + 4) * SCENES[0].dt * (3 * lam).sqrt()), frames=1)
    assert float((q - truth.frames[:, 4]).abs().max()) <= 1e-4
    assert float((p - exact.frames[:, 0]).norm() / exact.frames[:, 0].norm()) <= 2e-3


def test_powers():
    scene, x = SCENES[0], torch.randn(42, 1, dtype=torch.float64)
    laplacian = scene.laplacian.to_wide(x)
    found = powers(scene, 2, x, 2)
    assert torch.allclose(found[:, 1:], scene.dt**4 * laplacian(laplacian(x)), rtol=1e-12)
    assert math.isfinite(float(found.sum()))


def test_titles_tell_them_apart():
    titles = {Dissipative(SCENES[0], [1.0], flag).title for flag in (True, False)}
    titles |= {Oscillating(SCENES[0], [1.0], [], flag).title for flag in (True, False)}
    assert len(titles) == 4
