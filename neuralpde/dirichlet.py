"""Dirichlet conditions: an equation whose field is held at some nodes, at given values, still or moving."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart, State
from integrators.solution import Time
from integrators.state import parts_of, state_map
from neuralpde.coefficient import Coefficient, Learned
from neuralpde.coupled import BlockDiagonal, block_diagonal_part
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, LaplacianInvariant, Mass, Norm
from neuralpde.rhs import RightHandSide, as_right_hand_side
from neuralpde.schroedinger import SchroedingerPart
from neuralpde.sources import positions
from neuralpde.waves import DampedWavePart, WavePart
from operators import DirichletLaplacian, FieldError, Laplacian, dirichlet

Values = float | Tensor | Learned | Callable[..., Tensor]


class Dirichlet(RightHandSide):
    """An equation whose field is held at some nodes: there u = g(t), elsewhere du/dt = f(t, u).

        plate = Dirichlet(Heat(L, 0.1), boundary_vertices(mesh), lambda t: 1 + torch.sin(t))
        solution = integrate(plate, plate.impose(0.0, u0), times)

    f sees g(t) at the held nodes whatever the state has there, and the state follows dg/dt: it stays at a constant g to the last
    bit, and at another to the tolerance of the solver; `impose(t, x)` puts it there exactly, also along a path. Where f shows a
    linear part that knows how to be held (heat and other diffusions, waves, Schrödinger's equation, and systems of these),
    that is its block of the free nodes, so that implicit, IMEX and exponential solvers work; any other equation is solved
    through `forward`.

    Invariants: with g = 0 the norm, where f never increases it, and the energies of heat, waves and Schrödinger's equation.

    Args:
        rhs: f.
        nodes: bool (n,) or distinct integers (g,), such as `boundary_vertices(mesh)`; or a function of the domain giving them,
            such as `boundary_vertices` itself: then name the domain, and `.on(domain)` works.
        values: g: a number, (g, 1) or (g, c), `learned(...)`, or a function of t, or of t and the positions (g, d) of the nodes
            (then name the domain). For an equation of several fields a tuple of these, None for one that is free: for a wave
            on a held boundary (g, dg/dt), so (0.0, 0.0).
        rate: dg/dt as a function like g, or a tuple of these; by automatic differentiation where absent.
        domain: the mesh, grid or point cloud.

    Raises:
        ValueError: g depends on t in a way that automatic differentiation does not see; give `rate`.
    """

    fixed: Tensor

    def __init__(
        self,
        rhs: RightHandSide | Callable[[Tensor, Any], Any],
        nodes: Any,
        values: Values | tuple[Values | None, ...] = 0.0,
        *,
        rate: Callable[..., Tensor] | tuple[Callable[..., Tensor] | None, ...] | None = None,
        domain: Any = None,
    ) -> None:
        super().__init__()
        self.rhs = as_right_hand_side(rhs)
        self.nodes = nodes if callable(nodes) else None
        if self.nodes is not None and domain is None:
            raise TypeError("nodes is a function of the domain: name it, as in Dirichlet(f, boundary_vertices, domain=mesh)")
        self.register_buffer("fixed", _indices(nodes if self.nodes is None else self.nodes(domain)), persistent=False)
        given = values if isinstance(values, tuple) else (values,)
        rates = rate if isinstance(rate, tuple) else (rate,) * len(given)
        if len(rates) != len(given) or all(value is None for value in given):
            raise TypeError("values is one g, or a tuple of one for each field, not all None, and rate a tuple of as many")
        self.given = nn.ModuleList(
            Free() if g is None else Held(g, dg, self.fixed, domain) for g, dg in zip(given, rates, strict=True)
        )
        self._kept: tuple[Laplacian, Tensor, Tensor, DirichletLaplacian] | None = None

    def impose(self, t: Time, x: Any) -> Any:
        """The state x with the held values at t; or a path (T, ..., n, c) with those at times t (T,)."""
        if isinstance(t, Tensor) and t.ndim:
            steps = [self.impose(moment, state_map(lambda part: part[k], x)) for k, moment in enumerate(t)]  # noqa: B023
            return state_map(lambda *parts: torch.stack(parts), *steps)
        return self._written(x, lambda held: held(t))

    def forward(self, t: Tensor, x: Any) -> Any:
        return self._written(self.rhs(t, self.impose(t, x)), lambda held: held.rate(t))

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.rhs.jumps

    @property
    def restarts(self) -> tuple[float, ...]:
        return self.rhs.restarts

    def starting_at(self, x0: Any) -> RightHandSide:
        return self._around(self.rhs.starting_at(x0))

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        return self._around(self.rhs.restarting_at(t, x, x0))

    def _around(self, rhs: RightHandSide) -> RightHandSide:
        if rhs is self.rhs:
            return self
        view = copy.copy(self)
        view.__dict__ = {**self.__dict__, "_modules": {**self._modules, "rhs": rhs}, "_kept": None}
        return view

    def _written(self, x: Any, value: Callable[[Held], Tensor]) -> Any:
        """x with values at the held nodes."""
        parts = parts_of(x)
        if len(parts) != len(self.given):
            raise FieldError(f"this holds a state of {len(self.given)} fields, and it has {len(parts)}: None leaves one free")
        new = tuple(
            _with_rows(part, self.fixed, value(held)) if isinstance(held, Held) else part
            for part, held in zip(parts, self.given, strict=True)
        )
        return new if isinstance(x, tuple) else new[0]

    @property
    def _at_zero(self) -> bool:
        return all(held.g.absent for held in self.given if isinstance(held, Held))

    @property
    def linear(self) -> LinearPart | None:
        part = self.rhs.linear
        if isinstance(part, BlockDiagonal) and len(part.parts) == len(self.given):
            blocks = [
                self._held_part(block) if isinstance(held, Held) and block is not None else block
                for block, held in zip(part.parts, self.given, strict=True)
            ]
            lost = any(block is None and before is not None for block, before in zip(blocks, part.parts, strict=True))
            return None if lost else block_diagonal_part(blocks)
        everywhere = all(isinstance(held, Held) for held in self.given)
        return self._held_part(part) if part is not None and everywhere else None

    def _held_part(self, part: Any) -> HeldPart | None:
        if not hasattr(part, "held"):
            return None
        found: list[DirichletLaplacian] = []

        def hold(laplacian: Laplacian) -> DirichletLaplacian:
            found.append(self._block(laplacian))
            return found[-1]

        inner = part.held(hold)
        return (HeldFlow if hasattr(inner, "exponential") else HeldPart)(inner, found[-1].free)

    def _block(self, laplacian: Laplacian) -> DirichletLaplacian:
        """The block of the free nodes, kept with its factors as long as the Laplacian is the same."""
        values, mass = laplacian.stiffness.values, laplacian.mass
        if values.requires_grad or mass.requires_grad:
            return dirichlet(laplacian, self.fixed)
        kept = self._kept
        if kept is None or kept[0] is not laplacian or kept[1] is not values or kept[2] is not mass:
            kept = self._kept = (laplacian, values, mass, dirichlet(laplacian, self.fixed))
        return kept[3]

    @property
    def nonlinear(self) -> Callable[[Tensor, Any], Any] | None:
        """What the held values add: G on them at the free nodes, dg/dt at the held ones, and the nonlinear part of f."""
        part, rest = self.rhs.linear, self.rhs.nonlinear
        if self.linear is None or part is None or (self._at_zero and rest is None):
            return None

        def added(t: Tensor, x: Any) -> Any:
            slope = part @ self.impose(t, state_map(torch.zeros_like, x))
            if rest is not None:
                slope = state_map(torch.add, slope, rest(t, self.impose(t, x)))
            # A field that is free keeps its linear part to itself.
            return self._written(slope, lambda held: held.rate(t))

        return added

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self._at_zero:
            return ()
        declared = [i for i in self.rhs.invariants if isinstance(i, LaplacianInvariant) and not isinstance(i, Mass)]
        whole = self.rhs.nonlinear is None and isinstance(self.rhs.linear, KEEP_ENERGIES)
        # P f(P x) has ⟨x, P f(x)⟩ = ⟨x, f(x)⟩; an energy needs to know what f is.
        return tuple(i for i in declared if whole or isinstance(i, Norm))

    def on(self, domain: Any) -> Dirichlet:
        """The same condition on another domain, if its nodes are a function of it."""
        if self.nodes is None:
            raise NotImplementedError(
                "which nodes are held is not known on another domain: give a function of it, as in "
                "Dirichlet(f, boundary_vertices, values, domain=mesh)"
            )
        moved = super().on(domain)
        moved.fixed = _indices(self.nodes(domain)).to(self.fixed.device)
        moved.given = nn.ModuleList(held.at(moved.fixed, domain) if isinstance(held, Held) else held for held in self.given)
        moved._kept = None
        return moved


KEEP_ENERGIES = (Diffusion, WavePart, DampedWavePart, SchroedingerPart)


class Free(nn.Module):
    """A field that is held nowhere."""


class Held(nn.Module):
    """g of one field: `held(t)` is its value at the nodes, `held.rate(t)` its derivative."""

    def __init__(self, value: Any, rate: Any, fixed: Tensor, domain: Any) -> None:
        super().__init__()
        self.value, self.given_rate = value if callable(value) else None, rate
        self.g = _coefficient("held value", value, fixed, domain)
        self.dg = None if rate is None else _coefficient("rate", rate, fixed, domain)
        self._looked = False

    def forward(self, t: Time) -> Tensor:
        return self.g(t)

    def rate(self, t: Tensor) -> Tensor:
        """dg/dt."""
        if self.g.steady:
            return torch.zeros_like(self.g())
        if self.dg is not None:
            return self.dg(t)
        if not self._looked:
            self._look(t.detach())
            self._looked = True
        return self._slope(t)

    def _slope(self, t: Tensor) -> Tensor:
        slope: Tensor = torch.func.jvp(self.g, (t,), (torch.ones_like(t),))[1]
        return slope

    @torch.no_grad()
    def _look(self, t: Tensor) -> None:
        """Raise ValueError where g moves and its derivative does not say so, as of functions that leave torch."""
        later = t + 1e-3 * max(1.0, float(t.abs()))
        moves = bool((self.g(later) != self.g(t)).any())
        # At two times: cos(t) has no slope at zero.
        if moves and not any(bool((self._slope(time) != 0).any()) for time in (t, later)):
            raise ValueError(
                "the held values change in time, but automatic differentiation gives them the rate zero: write them in torch "
                "functions of t (torch.sin(t), not math.sin(t)), or give Dirichlet(..., rate=...)"
            )

    def at(self, fixed: Tensor, domain: Any) -> Held:
        """The same at the nodes of another domain."""
        if self.value is not None:
            return Held(self.value, self.given_rate, fixed, domain)
        if not self.g.scalar:
            raise NotImplementedError("values for each node belong to one domain: give a number, or a function of positions")
        return self


class AtPositions(nn.Module):
    """g(t, points) as a function of t."""

    points: Tensor

    def __init__(self, function: Callable[..., Tensor], points: Tensor) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("points", points, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        return self.function(t, self.points)


class HeldPart:
    """G on states that are held at some nodes: a part on the free nodes, and zero at the others."""

    def __init__(self, part: Any, free: Tensor) -> None:
        self.part, self.free = part, free

    @property
    def self_adjoint(self) -> bool:
        """Whether the part is self-adjoint and negative semi-definite."""
        return getattr(self.part, "self_adjoint", False) is True

    def _inside(self, x: State) -> State:
        return state_map(lambda part: part.index_select(-2, self.free), x)

    def _outside(self, x: State, inside: State) -> State:
        """x with other values at the free nodes."""
        return state_map(lambda whole, new: whole.to(new.dtype).index_copy(-2, self.free, new), x, inside)

    def __matmul__(self, x: Any) -> Any:
        return self._outside(state_map(torch.zeros_like, x), self.part @ self._inside(x))

    def norm_bound(self) -> float:
        return float(self.part.norm_bound())

    def solve(self, shift: Tensor, b: Any) -> Any:
        return self._outside(b, self.part.solve(shift, self._inside(b)))

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        if hasattr(self.part, "keep_factors"):
            self.part.keep_factors(count)


class HeldFlow(HeldPart):
    """A held part that knows its own exponential."""

    def exponential(self, h: Time, x: Any, tolerance: float | None = None) -> Any:
        """exp(hG) x: the flow of the free nodes, while the others stay."""
        return self._outside(x, self.part.exponential(h, self._inside(x), tolerance))

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products that `exponential` takes."""
        return int(self.part.exponential_products(h, tolerance))


def _with_rows(x: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    if rows.numel() and int(rows.max()) >= x.shape[-2]:
        raise FieldError(f"the held nodes reach {int(rows.max())}, and the field has {x.shape[-2]} nodes")
    wanted = (*x.shape[:-2], rows.numel(), x.shape[-1])
    return x.index_copy(-2, rows, values.to(x.dtype).expand(wanted))


def _coefficient(name: str, value: Any, fixed: Tensor, domain: Any) -> Coefficient:
    """g as a function of t alone, or still."""
    given = value.forward if isinstance(value, nn.Module) else value
    if callable(given) and not isinstance(given, Learned) and _takes_positions(given):
        if domain is None:
            raise TypeError("values take t and positions: name the domain, as in Dirichlet(f, nodes, g, domain=mesh)")
        value = AtPositions(value, positions(domain)[fixed])
    return Coefficient(name, value, torch.float64, fixed.device, positive=False)


def _takes_positions(function: Callable[..., Tensor]) -> bool:
    try:
        arguments = inspect.signature(function).parameters.values()
    except ValueError:
        # Of a builtin such as torch.cos nothing is known.
        return False
    return sum(a.default is a.empty and a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD) for a in arguments) > 1


def _indices(nodes: Any) -> Tensor:
    index = torch.as_tensor(nodes)
    if index.dtype == torch.bool and index.ndim == 1:
        index = index.nonzero()[:, 0]
    if index.ndim != 1 or index.is_floating_point() or index.is_complex() or not index.numel():
        raise FieldError(f"the held nodes are bool (n,) or integers (g,), at least one, not {index.dtype} {tuple(index.shape)}")
    if int(index.min()) < 0 or torch.unique(index).numel() != index.numel():
        raise FieldError("the held nodes must be distinct and not negative: pass torch.unique(nodes)")
    return index.long()
