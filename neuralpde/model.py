"""Encode, solve, decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from integrators import Integrator, Solution, integrate
from neuralpde.rhs import RightHandSide
from operators import FieldError, Movable, TriangleMesh, pad_channels


class NeuralPDE(Movable):
    """y(t) = decode(x(t)), where dx/dt = f(t, x) and x(t₀) = encode(y₀).

    Args:
        rhs: the right-hand side f.
        solver: how time advances and how gradients are taken; if absent, `integrate` chooses for each solve.
        encode, decode: modules from the observed field (..., n, c) to the state and back; identities if absent.
    """

    def __init__(
        self,
        rhs: RightHandSide,
        solver: Integrator | None = None,
        encode: nn.Module | None = None,
        decode: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.rhs = rhs
        self.solver = solver
        self.encode = nn.Identity() if encode is None else encode
        self.decode = nn.Identity() if decode is None else decode

    def solve(self, y0: Tensor, t: Tensor | Sequence[float]) -> Solution:
        """The solution in the state's own coordinates, with its statistics."""
        return integrate(self.rhs, self.encode(y0), t, self.solver)

    def forward(self, y0: Tensor, t: Tensor | Sequence[float]) -> Tensor:
        """The observed field at every time; y0 (..., n, c) → (T, ..., n, c)."""
        decoded: Tensor = self.decode(self.solve(y0, t).x)
        return decoded


class PadChannels(nn.Module):
    """Append zero channels up to `width`: keeps norm and Rayleigh quotient."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return pad_channels(x, self.width)


class AttachPositions(Movable):
    """x ↦ (x, u): the field joined with the vertex positions, centred and scaled to unit mean distance.

    Args:
        mesh: where the positions come from.
        scale: a learned factor of the positions, ψ of BLEND reduced to one number.
    """

    def __init__(self, mesh: TriangleMesh, scale: float = 1.0) -> None:
        super().__init__()
        self.positions = _Positions(mesh)
        self.scale = nn.Parameter(torch.tensor(scale, dtype=mesh.vertices.dtype))

    def forward(self, x: Tensor) -> Tensor:
        u = self.positions.u
        if x.shape[-2] != u.shape[0]:
            raise FieldError(f"the field has {x.shape[-2]} nodes but the mesh {u.shape[0]}")
        return torch.cat([x, (self.scale * u).expand(*x.shape[:-1], -1)], dim=-1)


class _Positions(nn.Module):
    u: Tensor

    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        centred = mesh.vertices.detach() - mesh.vertices.detach().mean(0)
        self.register_buffer("u", centred / centred.norm(dim=1).mean(), persistent=False)

    def on(self, mesh: Any) -> _Positions:
        return _Positions(mesh).to(device=self.u.device, dtype=self.u.dtype)


class KeepChannels(nn.Module):
    """Keep the first `channels` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.channels]
