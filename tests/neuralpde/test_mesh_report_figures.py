"""Every picture is drawn, also of what diverged."""

import math

import torch

from neuralpde.mesh_report_figures import error_curves, error_map, loss_curves, rayleigh_curves
from neuralpde.mesh_results import METRICS, Result
from neuralpde.report import PNG_SIGNATURE
from neuralpde.testing_mesh_cases import small_case


def results():
    made = {}
    for name, value in (("zero", 1.0), ("stencil-rate", 0.1), ("gcn", math.inf), ("ours", 1e-9)):
        curves = {metric: [value] * 7 for metric in (*METRICS, "rayleigh")}
        made[name] = [Result(name, 0, 1, 1.0, {}, {"ball": curves}, [1.0, 0.5] if name == "gcn" else [])]
    return made


def test_pictures(tmp_path):
    case = small_case()
    loss_curves(tmp_path / "loss.png", results())
    rayleigh_curves(tmp_path / "rayleigh.png", results(), [case])
    error_curves(tmp_path / "error.png", results(), [case, case])
    fields = {"ours": case.clean[0, 5:, :, 0], "gcn": torch.full((7, 42), math.nan)}
    error_map(tmp_path / "map.png", fields, case)
    for name in ("loss", "rayleigh", "error", "map"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG_SIGNATURE)
