"""Gradient flows are found in the frames of known schemes, with the scheme's own splitting."""

import pytest
import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_phase import Phase
from operators import bumpy, icosphere, torus

SCENES = [
    Scene("ball", bumpy(icosphere(1), 0.2).to(torch.float32), 0.05, Truth.SURFACE),
    Scene("ring", torus(10, 6, radius=3.0, tube=1.0).to(torch.float32), 0.4, Truth.SURFACE),
]


def simulated(scene, conserved, split=2.0, frames=20):
    """(I + K(σ + b)) u' = u − K (u³ − (1 + b) u) by dense matrices."""
    laplacian = scene.laplacian
    n = laplacian.shape[0]
    sigma = scene.dt * torch.from_numpy(laplacian.stiffness.to_scipy().toarray()).double() / laplacian.mass.double()[:, None]
    eye = torch.eye(n, dtype=torch.float64)
    K = sigma if conserved else 0.2 * eye
    u = 0.3 * torch.randn(2, n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    path = [u]
    for _ in range(frames - 1):
        u = torch.linalg.solve(eye + K @ (sigma + split * eye), u - K @ (u**3 - (1 + split) * u))
        path.append(u)
    frames_ = torch.stack(path, dim=1).float()
    return Case(scene, frames_, frames_)


@pytest.mark.parametrize("conserved", [True, False])
def test_the_scheme_is_found(conserved):
    truth = [simulated(scene, conserved) for scene in SCENES]
    form = Phase.fitted(truth, conserved=conserved)
    # With K = I the rate 0.2 is in the coefficients, and the split only divides them by 1 + 0.2 b: the steps are the same.
    rate, split = (1.0, 2.0) if conserved else (0.2 / 1.4, 0.0)
    assert float(form.flow.stiffness.detach()) == pytest.approx(rate, rel=1e-2)
    assert form.flow.potential.tolist() == pytest.approx([-rate, 0.0, rate], abs=1e-2 * rate)
    assert float(form.flow.stabilization.detach()) == pytest.approx(split, abs=2e-2)
    for case in truth:
        with torch.no_grad():
            rolled = form.evolved(case.given, range(1, 16))
        assert float((rolled - case.frames[:, 5:]).abs().max()) <= 1e-2


def test_solved_accurately_it_has_no_split():
    form = Phase.fitted([simulated(SCENES[0], True)], frame_by_frame=False)
    assert not form.flow.root_split.requires_grad
    assert float(form.flow.stabilization.detach()) == 0.0
    assert form.flow.root_cubic.requires_grad


def test_titles_tell_them_apart():
    kinds = [(conserved, frame) for conserved in (True, False) for frame in (True, False)]
    assert len({Phase(SCENES[0], 1.0, (-1.0, 0.0, 1.0), 1.0, *kind).title for kind in kinds}) == 4
