"""Descriptors of the points of a shape that its isometries leave alone: the heat and the wave kernel signature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.checks import DomainError
from operators.spectrum import Eigenpairs


def heat_kernel_signature(pairs: Eigenpairs, times: Tensor | None = None) -> Tensor:
    """h_t(i) = Σ_k e^(−λ_k t) |φ_k(i)|², the heat that stays at i after the time t (Sun, Ovsjanikov and Guibas 2009, eq. 3).

    Enlarging the shape by s gives h_{s²t} / s². A repeated eigenvalue of which only some copies are among the pairs
    makes the terms of that eigenvalue depend on the basis: cut the spectrum at a gap.

    Args:
        pairs: the smallest eigenpairs of a Laplacian; the paper takes 300.
        times: (T,), positive; by default 100, evenly spaced in log t from 4 ln 10 / λ_max to 4 ln 10 / λ_1 (the
            largest of the pairs, and the smallest positive eigenvalue), as in the paper.

    Returns:
        (n, T).
    """
    positive = _positive(pairs, 1)
    if times is None:
        first, last = (math.log(4 * math.log(10) / float(positive[k])) for k in (-1, 0))
        times = torch.linspace(first, last, 100, dtype=torch.float64, device=positive.device).exp().to(positive.dtype)
    _check(times, "times", positive)
    if not bool((times > 0).all()):
        raise DomainError("times must be positive: at t = 0 every point keeps all its heat, and before that heat explodes")
    decay = torch.exp(-pairs.values.detach().clamp(min=0)[:, None] * times)
    return _squares(pairs) @ decay


def wave_kernel_signature(pairs: Eigenpairs, energies: Tensor | None = None, width: float | None = None) -> Tensor:
    """w_e(i) = Σ_k |φ_k(i)|² e^(−(e − ln λ_k)²/2σ²) / Σ_k e^(−(e − ln λ_k)²/2σ²) (Aubry, Schlickewei and Cremers 2011).

    The chance of finding at i a quantum particle whose energy is e up to the width σ; zero eigenvalues are left out.
    Enlarging the shape by s moves the energies by −2 ln s and divides by s². Repeated eigenvalues as for
    `heat_kernel_signature`.

    Args:
        pairs: the smallest eigenpairs of a Laplacian; the paper takes 300.
        energies: (E,), logarithms of eigenvalues; by default 100, evenly spaced by δ from ln λ_1 + 2σ to ln λ_max − 2σ
            with σ = 7δ, as in the paper.
        width: σ; by default seven times the spacing of the energies.

    Returns:
        (n, E).
    """
    positive = _positive(pairs, 2)
    logarithms = positive.log()
    if energies is None:
        span = float(logarithms[-1] - logarithms[0])
        # 99 steps and twice 2σ = 14 steps at each end.
        step = span / (99 + 28)
        if not step > 0:
            raise DomainError("all positive eigenvalues are equal, so there is no range of energies: ask for more eigenpairs")
        low = float(logarithms[0]) + 14 * step
        energies = torch.linspace(low, low + 99 * step, 100, dtype=positive.dtype, device=positive.device)
        width = 7 * step if width is None else width
    _check(energies, "energies", positive)
    if width is None and len(energies) > 1:
        width = 7 * float((energies[1:] - energies[:-1]).abs().min())
    if width is None or not (math.isfinite(width) and width > 0):
        raise DomainError(f"width must be positive and finite, not {width}: give it where there is one energy or a repeated one")
    # A softmax: the ratio is finite even where every Gaussian underflows.
    weights = torch.softmax(-((energies - logarithms[:, None]) ** 2) / (2 * width**2), dim=0)
    return _squares(pairs)[:, -len(positive) :] @ weights


def _positive(pairs: Eigenpairs, count: int) -> Tensor:
    """The eigenvalues that are not zero up to round-off."""
    values = pairs.values.detach()
    positive: Tensor = values[values > 1e-8 * values[-1]]
    if len(positive) < count:
        raise DomainError(
            f"only {len(positive)} of the {len(values)} eigenvalues are positive (each component of a domain has a zero one): "
            "ask eigenpairs for more"
        )
    return positive


def _check(samples: Tensor, name: str, like: Tensor) -> None:
    if samples.ndim != 1 or samples.dtype != like.dtype or samples.device != like.device or not bool(samples.isfinite().all()):
        raise DomainError(
            f"{name} must be a finite tensor (T,) of {like.dtype} on {like.device}, not {tuple(samples.shape)} of "
            f"{samples.dtype} on {samples.device}"
        )


def _squares(pairs: Eigenpairs) -> Tensor:
    return (pairs.vectors.conj() * pairs.vectors).real
