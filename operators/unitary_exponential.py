"""The exact flow of x ↦ A x W: W is diagonalised once, and one Chebyshev recurrence in A serves every channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.chebyshev import MAX_DEGREE, coefficients_of, spectral_interval
from operators.checks import ConvergenceError, DomainError, FieldError, real_dtype
from operators.laplacian import Complement, Laplacian
from operators.operator import Operator
from operators.recurrence import PlainAdjoint


class UnitaryExponential(Operator):
    """x ↦ exp(t (A ⊗ W + α A + β)) x, the solution at time t of dx/dt = A x W + α A x + β x.

    With i W = Q diag(λ) Qᴴ, channel k of x Q is multiplied by f_k(A) = exp(t ((α − iλ_k) A + β)), by one Clenshaw recurrence
    in A for all channels. A real W has pairs ±λ_k, so that real fields take real products of their own width. There are as many
    products as the Chebyshev coefficients 2 e^(tβ + cw) I_m(r w), w = t (α − iλ_k), of f_k on [c − r, c + r] ask: a few more
    than ‖A‖‖W‖t / 2 for a Laplacian. The relaxation α, β costs none. Without it ‖x‖ and ⟨x, A x⟩ are kept to the
    tolerance, and what is cut off adds up over many steps: the quarter ulp that it then has by default leaves round-off alone.

    Gradients flow to x, t, W, α, β and what A is made of. First order keeps x and the result only: in x it is the adjoint
    flow, in W it comes from both flows by divided differences (so that repeated λ do no harm), in A from the recurrence run
    backwards. Higher orders, forward mode and torch.func take scaled Taylor products under plain autograd.

    Args:
        A: self-adjoint in its `inner`, (n, n).
        W: (d, d), skew-Hermitian. Only the skew part of a gradient in it has a meaning, and only that is given.
        t: a number or a scalar tensor, of any sign.
        damping: (α, β), numbers or scalar tensors; the relaxation −γ L is (−γ, 0) where A = L, and (γ, −γ) where A = I − L.
        tolerance: of the error, relative to ‖x‖ times the largest |f_k|; if absent a quarter ulp (1e-15 in double
            precision), with damping 16 ulp.
        interval: containing the spectrum of A; from `norm_bound()` if absent.

    Raises:
        DomainError: W is not square and skew-Hermitian, or something is not finite.
        ConvergenceError: more than MAX_DEGREE products are needed.
    """

    def __init__(
        self,
        A: Operator,
        W: Tensor,
        t: Tensor | float = 1.0,
        *,
        damping: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
        tolerance: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if W.ndim != 2 or W.shape[0] != W.shape[1] or not W.numel() or not (W.is_floating_point() or W.is_complex()):
            raise DomainError(f"W must be a square matrix of numbers, not {tuple(W.shape)} {W.dtype}")
        size = float(W.detach().abs().max())
        if not float((W + W.mH).detach().abs().max()) <= 64 * torch.finfo(W.dtype).eps * size:
            raise DomainError("W must be skew-Hermitian and finite, or its flow is no isometry: take (V − V.mH) / 2")
        if tolerance is not None and not 0 < tolerance < 1:
            raise DomainError(f"tolerance must lie in (0, 1), not {tolerance}")
        self.operator, self.shape, self.width = A, A.shape, W.shape[0]
        self.interval = spectral_interval(A, interval)
        self.real = not (W.is_complex() or any(tensor.is_complex() for _, tensor in _tensors(A)))
        t, alpha, beta = (torch.as_tensor(s, dtype=torch.float64, device="cpu") for s in (t, *damping))
        # exp(t G) is the flow of t G over the time 1, so a gradient in t is one in these.
        self.K = t.to(W.device, real_dtype(W.dtype)) * W
        if self.real and self.width % 2:  # A real skew matrix of odd width has a zero direction: with one more, a pair.
            self.K = torch.nn.functional.pad(self.K, (0, 1, 0, 1))
        self.alpha, self.beta = t * alpha, t * beta
        self.strict = not (alpha.requires_grad or beta.requires_grad or bool(alpha) or bool(beta))
        ulp = torch.finfo(real_dtype(A.dtype)).eps
        # What a strict flow cuts off adds up over many steps; the coefficients themselves are sums in double precision.
        self.tolerance = tolerance or (max(ulp / 4, 1e-15) if self.strict else 16 * ulp)
        self.Q, self.angles, self.frame, channels = _diagonalised(self.K, self.real)
        self.coefficients = self._series(channels)

    @property
    def degree(self) -> int:
        """M, the number of products with A."""
        return self.coefficients.shape[0] - 1

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.width:
            raise FieldError(f"x has {x.shape[-1]} channels but W acts on {self.width}: pad with pad_channels(x, {self.width})")
        if not self.real and not x.is_complex():
            raise FieldError("W or A is complex, so the flow of a real field is complex: pass x.to(torch.complex64)")
        if self.real and x.is_complex():
            parts = self(torch.stack([x.real, x.imag]))
            return torch.complex(parts[0], parts[1])
        wide = self.K.shape[0]
        if wide > self.width:
            x = torch.nn.functional.pad(x, (0, wide - self.width))
        # nn.Module would take K for a parameter where it is one: it is passed along instead.
        K = self.K.to(x.dtype)
        learned = [tensor for _, tensor in _tensors(self.operator) if tensor.requires_grad]
        if _transformed():
            y = self._taylor(x, K, self.alpha, self.beta)
        else:
            y = _Flow.apply(self, x, K, self.alpha, self.beta, *learned)  # type: ignore[no-untyped-call]
        return y[..., : self.width]

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """The inner product of A."""
        return self.operator.inner(x, y)

    def norm_bound(self) -> float:
        """The largest |f_k|."""
        return self._peak()

    def _reference(self) -> Tensor:
        return self.operator._reference()

    def _peak(self) -> float:
        exponents = [float(self.alpha.detach()) * end + float(self.beta.detach()) for end in self.interval]
        return math.exp(min(max(exponents), 709.0))

    def _series(self, angles: Tensor) -> Tensor:
        """(M + 1, k), with the smallest M whose tail is within the tolerance."""
        low, high = self.interval
        alpha, beta = float(self.alpha.detach()), float(self.beta.detach())
        rho = abs(complex(alpha, float(angles.abs().max()))) * (high - low) / 2
        if not math.isfinite(rho):
            raise DomainError(f"the angle ‖A‖‖W‖t is {rho}: look for NaN or overflow in A, W, t or the damping")
        # |I_m(z)| ≤ (|z|/2)^m/m! e^|Re z|: from here on nothing is left, and before it the coefficients themselves are summed.
        m = max(4, math.ceil(rho))
        while m <= 2 * MAX_DEGREE and m * math.log(max(rho, 1e-300) / 2) - math.lgamma(m + 1) > math.log(self.tolerance * 1e-3):
            m += 1 + m // 16
        w = torch.complex(torch.full_like(angles, alpha), -angles)
        c = coefficients_of(lambda a: torch.exp(a[:, None] * w + beta), min(m, 2 * MAX_DEGREE), self.interval)
        tails = c.abs().amax(1).flip(0).cumsum(0).flip(0)
        enough = (tails[1:] <= self.tolerance * self._peak()).nonzero()
        # One product at least, which carries the gradients where the angle is zero.
        degree = max(1, int(enough[0]) if len(enough) else m)
        if degree > MAX_DEGREE:
            raise ConvergenceError(
                f"exp(t A ⊗ W) needs more than {MAX_DEGREE} products at ‖A‖‖W‖t = {rho:.3g}: take a shorter time or eigenpairs"
            )
        return c[: degree + 1]

    def _in_channels(self, x: Tensor, recur: Callable[[Tensor, Tensor], Tensor], conjugate: bool) -> Tensor:
        """x in the basis of W, through a recurrence, and back."""
        frame = self.frame.to(x.device, x.dtype)
        if self.strict:
            # x + (f_k − 1)(A) x: what rounding the coefficients and the frame costs is the same in every step and would add up,
            # but is now relative to a change that is smaller than x.
            c = torch.cat([self.coefficients[:1] - 1, self.coefficients[1:]]).to(x.device, x.dtype.to_complex())
            return x + recur(c.conj().resolve_conj() if conjugate else c, x @ frame) @ frame.mH
        c = self.coefficients.to(x.device, x.dtype.to_complex())
        return recur(c.conj().resolve_conj() if conjugate else c, x @ frame) @ frame.mH

    def _clenshaw(self, acting: Callable[[Tensor], Tensor], c: Tensor, z: Tensor) -> Tensor:
        """Σ_m T_m(S) (c_m ⊙ z) for S = (A − centre) / radius."""
        centre, factor = sum(self.interval) / 2, 2 / (self.interval[1] - self.interval[0])
        now, before = _times(c[-1], z), None
        for m in range(len(c) - 2, -1, -1):
            twice = 2 * factor if m else factor
            y = (acting(now) * twice).sub_(now, alpha=twice * centre)
            if before is not None:
                y.sub_(before)
            now, before = _add_times(y, c[m], z), now
        return now

    def _flow(self, x: Tensor) -> Tensor:
        return self._in_channels(x, lambda c, z: self._clenshaw(self.operator, c, z), False)

    def _adjoint_flow(self, g: Tensor) -> Tensor:
        """The adjoint in the plain inner product."""
        mass = _mass(self.operator)
        if mass is None:
            acting: Any = PlainAdjoint(self.operator, g @ self.frame.to(g.device, g.dtype))
            return self._in_channels(g, lambda c, z: self._clenshaw(acting, c, z), True)
        # A is its own adjoint in the inner product of the masses.
        return self._in_channels(g / mass, lambda c, z: self._clenshaw(self.operator, c, z), True) * mass

    def _adjoint_with_gradients(self, x: Tensor, g: Tensor, learned: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The adjoint flow of g, and the gradients in A's tensors: T_m(S) z is run through once more, and back again."""
        centre, factor = sum(self.interval) / 2, 2 / (self.interval[1] - self.interval[0])
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in learned.items()}
        totals = [torch.zeros_like(leaf) for leaf in leaves.values()]
        frame = self.frame.to(x.device, x.dtype)
        z = x @ frame
        before, now = z, (self.operator(z) - centre * z) * factor
        for _ in range(self.degree - 1):
            before, now = now, (self.operator(now) - centre * now) * (2 * factor) - before

        def back(c: Tensor, weight: Tensor) -> Tensor:
            nonlocal before, now
            adjoint, later = _times(c[-1], weight), torch.zeros_like(weight)
            for m in range(self.degree, 0, -1):
                # T_m = 2 S T_{m−1} − T_{m−2} (S T_0 for m = 1): `adjoint` is what depends on T_m.
                twice = 2 * factor if m > 1 else factor
                with torch.enable_grad():
                    term = before.detach().requires_grad_()
                    product = torch.func.functional_call(self.operator, leaves, (term,))
                pulled, *parts = torch.autograd.grad(product, (term, *leaves.values()), adjoint * twice)
                for total, part in zip(totals, parts, strict=True):
                    total.add_(part)
                fresh = _add_times(pulled - (twice * centre) * adjoint - later, c[m - 1], weight)
                adjoint, later = fresh, adjoint
                if m > 1:
                    before, now = (product.detach() - centre * before) * (2 * factor) - now, before
            return adjoint

        return self._in_channels(g, back, True), totals

    def _gradient_in_K(self, x: Tensor, y: Tensor, g: Tensor, h: Tensor, Ay: Tensor) -> Tensor:
        """Γ with dloss = Re tr Γᴴ dK, by the divided differences of e^{μ a} in the eigenbasis of K = Q diag(μ) Qᴴ."""
        Q, angles = self.Q.to(x.device), self.angles.to(x.device)
        gap = angles[None, :] - angles[:, None]
        # Where they almost coincide, the trapezoid rule over the segment between them loses less.
        near = gap.abs() * max(map(abs, self.interval)) <= torch.finfo(x.dtype).eps ** (1 / 3)
        inside = Q.mH @ (_overlap(y, g) - _overlap(x, h)) @ Q / (-1j * torch.where(near, 1.0, gap))
        mean = _overlap(Ay, g)
        if int(near.sum()) > len(angles):
            mean = (mean + _overlap(self.operator(x), h)) / 2
        gamma = Q @ torch.where(near, Q.mH @ mean @ Q, inside) @ Q.mH
        gamma = (gamma - gamma.mH) / 2
        return (gamma.real if self.real else gamma).to(x.dtype)

    def _taylor(self, x: Tensor, K: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """The same by scaled Taylor products, which plain autograd can follow to any order."""
        widest = max(map(abs, self.interval))
        bound = widest * float(self.angles.abs().max()) + widest * abs(float(alpha.detach())) + abs(float(beta.detach()))
        pieces = max(1, math.ceil(bound / 4))
        order, remainder = 1, bound / pieces
        while remainder > self.tolerance / (4 * pieces):
            order += 1
            remainder *= bound / (pieces * order)
        a, b = alpha.to(x.device, real_dtype(x.dtype)), beta.to(x.device, real_dtype(x.dtype))
        for _ in range(pieces):
            term = x
            # Two more orders: derivatives in K, α and β converge a little later.
            for k in range(1, order + 3):
                slope = self.operator(term)
                term = (slope @ K + a * slope + b * term) / (pieces * k)
                x = x + term
        return x


class _Flow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flow: UnitaryExponential, x: Tensor, *rest: Tensor) -> Tensor:
        y = flow._flow(x)
        ctx.flow = flow
        ctx.save_for_backward(x, y, *rest)  # K, α, β, and what A learns.
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flow: UnitaryExponential = ctx.flow
        x, y, K, alpha, beta, *learned = ctx.saved_tensors
        (g,) = grads
        wanted = ctx.needs_input_grad[1:]
        inputs = [x, K, alpha, beta, *learned]
        if torch.is_grad_enabled():
            again = flow._taylor(x, K, alpha, beta)
            asked = [part for part, want in zip(inputs, wanted, strict=True) if want]
            found = iter(torch.autograd.grad(again, asked, g, create_graph=True, allow_unused=True))
            return (None, *(next(found) if want else None for want in wanted))
        results: list[Tensor | None] = [None] * len(inputs)
        if learned:
            names = [name for name, tensor in _tensors(flow.operator) if tensor.requires_grad]
            h, results[4:] = flow._adjoint_with_gradients(x, g, dict(zip(names, learned, strict=True)))
        else:
            h = flow._adjoint_flow(g)
        results[0] = h
        if any(wanted[1:4]):
            Ay = flow.operator(y)
            results[1] = flow._gradient_in_K(x, y, g, h, Ay)
            results[2], results[3] = (_real_dot(g, part).to(alpha) for part in (Ay, y))
        return (None, *results)


def _diagonalised(K: Tensor, real: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q and λ with i K = Q diag(λ) Qᴴ; the frame that turns fields into channels, and the λ of each channel.

    The frame of real fields has a pair of columns √2 (Re q, Im q) for each of the larger half of the λ.
    """
    wide = K.detach().to("cpu", torch.complex128)
    angles, Q = torch.linalg.eigh(1j * wide)
    if not real:
        return Q, angles, Q, angles
    half = len(angles) // 2
    top = Q[:, half:].flip(1)
    # Orthonormal, but for λ = 0, where Re q and Im q may be anything that QR can complete.
    R = torch.linalg.qr(math.sqrt(2) * torch.stack([top.real, top.imag], dim=-1).flatten(1)).Q
    turned = R.T @ wide.real @ R
    pair = torch.arange(half)
    return Q, angles, R, turned[2 * pair + 1, 2 * pair]


def _times(c: Tensor, z: Tensor) -> Tensor:
    """c ⊙ z, where two columns of a real z are one complex channel."""
    return c * z if z.is_complex() else torch.view_as_real(c * _pairs(z)).flatten(-2)


def _add_times(y: Tensor, c: Tensor, z: Tensor) -> Tensor:
    """y + c ⊙ z, in place."""
    y = y if y.stride(-1) == 1 else y.contiguous()
    (y if z.is_complex() else _pairs(y)).addcmul_(z if z.is_complex() else _pairs(z), c)
    return y


def _pairs(z: Tensor) -> Tensor:
    return torch.view_as_complex(z.view(*z.shape[:-1], -1, 2))


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """aᴴ b over everything but the channels, in complex double precision."""
    return (a.flatten(0, -2).mH @ b.flatten(0, -2)).to(torch.complex128)


def _real_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum() if a.is_complex() else (a * b).sum()


def _tensors(A: Operator) -> list[tuple[str, Tensor]]:
    return [*A.named_parameters(), *A.named_buffers()]


def _mass(A: Operator) -> Tensor | None:
    """m, (n, 1), where A is self-adjoint in Σ m x̄ y and real; None where that is not known."""
    laplacian = A.laplacian if isinstance(A, Complement) else A
    if isinstance(laplacian, Laplacian) and not laplacian.dtype.is_complex:
        return laplacian.mass[..., :, None]
    return None


def _transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0
