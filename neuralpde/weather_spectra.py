"""How much of a field lies in waves of each length: whether forecasts keep their detail or blur."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from neuralpde.shallow_water import EARTH_RADIUS
from operators import FieldError
from operators.lat_lon import LatLon


def zonal_spectrum(field: Tensor, grid: LatLon) -> Tensor:
    """The energy of the waves that go k times around each parallel, E_k = 2πR cos φ |x̂_k|² (2 − [k = 0] − [k = columns / 2]).

    x̂_k = Σ_j x_j e^{−2πijk / columns} / columns, so that Σ_k E_k = 2πR cos φ · mean x² (Parseval). A forecast that blurs has
    too little at large k.

    Args:
        field: (..., rows, columns, c) on a grid that runs around the globe, with columns evenly spaced.
        grid: of the field.

    Returns:
        (..., rows, columns // 2 + 1, c), in squared units of the field times metres; zero at the poles, which have no length.

    Raises:
        FieldError: a regional grid or uneven columns, which have no such waves; another shape.

    As in WeatherBench 2 (Rasp et al. 2024, J. Adv. Model. Earth Syst. 16), which counts k = columns / 2 twice.
    """
    rows, columns = grid.shape
    if not isinstance(field, Tensor) or field.ndim < 3 or field.shape[-3:-1] != grid.shape:
        shape = tuple(field.shape) if isinstance(field, Tensor) else type(field).__name__
        raise FieldError(f"field must have shape (..., {rows}, {columns}, c), not {shape}")
    steps = np.mod(np.diff(grid.longitude.numpy(), append=grid.longitude.numpy()[:1]), 360.0)
    if not grid.wraps or np.abs(np.minimum(steps, 360 - steps) - 360 / columns).max() > 1e-3:
        raise FieldError("waves around the globe need columns that run around it, evenly spaced: this grid does not")
    power = torch.fft.rfft(field, dim=-2).abs().square() / columns**2
    twice = torch.full((columns // 2 + 1, 1), 2.0, dtype=power.dtype, device=power.device)
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    around = 2 * math.pi * EARTH_RADIUS * torch.cos(torch.deg2rad(grid.latitude)).clamp(min=0)
    energy: Tensor = around[:, None, None].to(power) * twice * power
    return energy
