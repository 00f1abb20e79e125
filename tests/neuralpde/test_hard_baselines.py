"""The cubic stencil finds the coefficients of a scheme of its own kind."""

from pathlib import Path

import torch

from neuralpde.hard_baselines import Cubic, OwnCubic
from neuralpde.hard_data import of_area_one
from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Scene
from operators import bumpy, icosphere


def test_its_own_coefficients_are_found(tmp_path: Path) -> None:
    mesh = of_area_one(bumpy(icosphere(2), seed=1))
    scene = Scene("bumpy", mesh.to(torch.float32), 1 / 200, Truth.SURFACE)
    coefficients = torch.tensor([0.5, -9.0, 38.0, -29.0, 0.02], dtype=torch.float64)
    stencil = Cubic()
    terms = stencil.terms(scene)
    u = torch.rand(2, mesh.num_nodes, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frames = [u]
    for _ in range(24):
        base, r = terms(frames[-1], frames[-1])
        frames.append(base + (r * coefficients).sum(-1, keepdim=True))
    path = torch.stack(frames, dim=1)
    case = Case(scene, path, path)
    for method in (stencil, OwnCubic()):
        fitted = method.fit([case], 0, tmp_path / "none", lambda step, steps, loss: None)
        rollout = fitted.rollout(case.given, 20)
        assert (rollout - path[:, 5:]).abs().max() < 1e-4
    fitted = stencil.fit([case], 0, tmp_path / "none", lambda step, steps, loss: None)
    assert fitted.coefficients is not None
    assert (fitted.coefficients - coefficients).abs().max() < 1e-4
