"""Radial functions with learnable shape whose interpolants are differentiated, polynomials exactly: RBF-FD, or kriging."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from operators.checks import DomainError
from operators.consistent_fit import batches
from operators.consistent_moments import Moments

# Of the largest value of φ: what keeps the flat limit, in which all increments are lost to rounding, solvable.
FLOOR = 1e-12
# Numbers of pairs of neighbours in one batch.
LARGEST_BATCH = 2**24
TINY = 1e-290


class Kernel(nn.Module):
    """φ(x − y), the covariance of a field up to polynomials; a stencil takes the best linear estimate from the neighbours.

    With the increments u_j − u_i as data, K_jl = φ(ξ_j − ξ_l) − φ(ξ_j) − φ(ξ_l) + φ(0) their covariance and c_j their covariance
    with the derivative, the weights are the minimum of wᵀ(K + noise)w − 2 cᵀw subject to the moment conditions (universal
    kriging, Matheron 1969; with noise 0 this is RBF-FD with polynomials, Fornberg and Flyer 2015). It is solved in the null
    space of the conditions, so these hold for any parameters, however ill-conditioned K.

    Args:
        noise: variance of each value's error over the mean variance of the increments; learned as its logarithm.

    Attributes:
        degree: the degree of the polynomials that φ needs beside it.
    """

    degree = 0

    def __init__(self, noise: float = 1e-6) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.tensor(_log(noise, "noise")))

    def value(self, xi: Tensor, radius: Tensor) -> Tensor:
        """φ at local offsets ξ (..., d) times the radius (...); → (...)."""
        raise NotImplementedError

    def gradient(self, xi: Tensor, radius: Tensor) -> Tensor:
        """∂φ/∂ξ, (..., d)."""
        raise NotImplementedError

    def laplacian(self, xi: Tensor, radius: Tensor) -> Tensor:
        """Σ_a ∂²φ/∂ξ_a², (...)."""
        raise NotImplementedError

    def weights(self, moments: Moments, start: Tensor, covariance: Callable[[Kernel, Tensor, Tensor], Tensor]) -> Tensor:
        """The local weights (n, k, q) that fulfil the conditions as `start` does, and fit this kernel best.

        Args:
            start: (n, k, q), the least-squares weights in local coordinates.
            covariance: of the derivative with the increments, c(kernel, ξ, radius), (n, k, q).
        """
        if moments.order < self.degree:
            raise DomainError(
                f"this kernel needs polynomials of degree {self.degree}, the moments have {moments.order}: raise their order, or "
                "lower the power"
            )
        held = (moments.local, moments.radius, moments.root, moments.basis, moments.valid, start)
        nodes, k = torch.arange(moments.num_nodes, device=start.device), start.shape[1]
        parts = batches(nodes, k * k * self._terms(moments.dimensions), LARGEST_BATCH)
        if len(parts) == 1:
            return self._some_weights(covariance, *held)

        # What each batch of pairs takes is made again for its gradient, not kept: the memory does not grow with the cloud.
        def some(part: Tensor) -> Tensor:
            found: Tensor = checkpoint(self._some_weights, covariance, *(value[part] for value in held), use_reentrant=False)
            return found

        return torch.cat([some(part) for part in parts])

    def _terms(self, dimensions: int) -> int:
        """How many numbers φ takes for a pair."""
        return dimensions

    def _some_weights(
        self,
        covariance: Callable[[Kernel, Tensor, Tensor], Tensor],
        local: Tensor,
        radius: Tensor,
        root: Tensor,
        basis: Tensor,
        valid: Tensor,
        start: Tensor,
    ) -> Tensor:
        # In double also for a float32 stencil: K is far worse conditioned than the moments are.
        xi, radius, root, basis, used = (value.double() for value in (local, radius, root, basis, valid))
        pairs = used[:, :, None] * used[:, None]
        eye = torch.eye(xi.shape[1], dtype=xi.dtype, device=xi.device)
        matrix, floor = self._covariances(xi, radius, used)
        size = (matrix.detach().diagonal(dim1=1, dim2=2).abs().amax(1) + floor).clamp(min=TINY)[:, None, None]
        missing = covariance(self, xi, radius) * used[..., None] - matrix @ start.double()
        weighted = root[:, :, None] * (matrix / size + floor[:, None, None] / size * eye) * root[:, None]
        complement = (eye - basis @ basis.mT) * pairs
        # One outside the complement, so that the whole is positive definite; what is solved for stays within.
        inside = complement @ weighted @ complement + FLOOR * eye + (eye - complement)
        solved: Tensor = torch.linalg.solve((inside + inside.mT) / 2, complement @ (root[..., None] * missing / size))
        return start + (root[..., None] * (complement @ solved)).to(start.dtype)

    def _covariances(self, xi: Tensor, radius: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """K + noise, (n, k, k), zero where padded, and the rounding of K, (n,)."""
        pairs = used[:, :, None] * used[:, None]
        between = self.value(xi[:, :, None] - xi[:, None], radius[:, None, None])
        own = self.value(xi, radius[:, None])
        origin = self.value(torch.zeros_like(xi[:, :1]), radius[:, None])
        matrix = (between - own[:, :, None] - own[:, None] + origin[:, None]) * pairs
        # In absolute value: a φ that needs polynomials is a covariance only where they vanish.
        mean = matrix.diagonal(dim1=1, dim2=2).abs().sum(1) / used.sum(1)
        noise = self.log_noise.double().clamp(-60, 20).exp() * mean
        # An error at the node itself is in every increment.
        shared = torch.eye(xi.shape[1], dtype=xi.dtype, device=xi.device) + 1
        return matrix + noise[:, None, None] * shared * pairs, FLOOR * between.detach().abs().amax((1, 2))


class GaussianKernel(Kernel):
    """φ(x) = exp(−½ Σ_a (x_a/ℓ_a)²), with a learned length along each axis: for smooth fields.

    Args:
        lengths: ℓ, one for each dimension, in the unit of the points.
    """

    def __init__(self, lengths: Sequence[float] | Tensor, noise: float = 1e-6) -> None:
        super().__init__(noise)
        self.log_lengths = nn.Parameter(torch.tensor([_log(float(length), "a length") for length in lengths]))

    def value(self, xi: Tensor, radius: Tensor) -> Tensor:
        return torch.exp(-(self._rate(xi, radius) * xi**2).sum(-1) / 2)

    def gradient(self, xi: Tensor, radius: Tensor) -> Tensor:
        return -self._rate(xi, radius) * xi * self.value(xi, radius)[..., None]

    def laplacian(self, xi: Tensor, radius: Tensor) -> Tensor:
        rate = self._rate(xi, radius)
        return (rate**2 * xi**2 - rate).sum(-1) * self.value(xi, radius)

    def _rate(self, xi: Tensor, radius: Tensor) -> Tensor:
        # Flat to rounding on one side; on the other, neighbours a tenth of the neighbourhood apart tell nothing of each other.
        logs = radius.log()[..., None] - _sized(self.log_lengths, xi)
        return torch.exp(2 * logs.clamp(-15, math.log(10)))


class PolyharmonicKernel(Kernel):
    """φ(x) = ±|x|^β, which knows no length; β is learned between two even integers.

    Args:
        power: β > 1 for gradients, > 2 for Laplacians, not even: 3 needs polynomials of degree 1, 5 of degree 2.
    """

    def __init__(self, power: float = 5.0, noise: float = 1e-6) -> None:
        super().__init__(noise)
        half, rest = divmod(power, 2)
        if not (power > 1 and math.isfinite(power)) or not 0.05 <= rest <= 1.95:
            raise DomainError(
                f"a polyharmonic kernel needs a power over 1 that is not near an even integer, not {power!r}: take 3 or 5"
            )
        self.degree = int(half)
        self.raw = nn.Parameter(torch.logit(torch.tensor((rest - 0.04) / 1.92)))

    @property
    def power(self) -> Tensor:
        """β."""
        return 2 * self.degree + 0.04 + 1.92 * torch.sigmoid(self.raw.double())

    def value(self, xi: Tensor, radius: Tensor) -> Tensor:
        return self._sign * _power(xi, self.power)

    def gradient(self, xi: Tensor, radius: Tensor) -> Tensor:
        return self._sign * self.power * _power(xi, self.power - 2)[..., None] * xi

    def laplacian(self, xi: Tensor, radius: Tensor) -> Tensor:
        if self.degree < 1:
            raise DomainError(
                f"|x|^β has no Laplacian at the origin for β under 2, here {float(self.power.detach()):.3g}: take 3 or 5"
            )
        return self._sign * self.power * (self.power + xi.shape[-1] - 2) * _power(xi, self.power - 2)

    @property
    def _sign(self) -> int:
        return -1 if self.degree % 2 == 0 else 1


class CosineKernel(Kernel):
    """φ(x) = Σ_m s_m cos(k_m · x) / Σ_m s_m: for fields of a few waves, which enough neighbours differentiate exactly.

    Args:
        waves: k, (M, d), learned, in radians over the unit of the points; s is learned too, all alike at the start.
    """

    def __init__(self, waves: Tensor, noise: float = 1e-6) -> None:
        super().__init__(noise)
        if waves.ndim != 2 or not bool(torch.isfinite(waves).all()):
            raise DomainError(f"waves must be finite, of shape (M, d), not {tuple(waves.shape)}")
        self.waves = nn.Parameter(waves.detach().clone().float() if not waves.is_floating_point() else waves.detach().clone())
        self.log_sizes = nn.Parameter(torch.zeros(len(waves), dtype=self.waves.dtype))

    def value(self, xi: Tensor, radius: Tensor) -> Tensor:
        _, phase = self._phases(xi, radius)
        return torch.cos(phase) @ self._sizes

    def gradient(self, xi: Tensor, radius: Tensor) -> Tensor:
        waves, phase = self._phases(xi, radius)
        return -((torch.sin(phase) * self._sizes)[..., None, :] @ waves).squeeze(-2)

    def laplacian(self, xi: Tensor, radius: Tensor) -> Tensor:
        waves, phase = self._phases(xi, radius)
        return -(torch.cos(phase) * self._sizes * waves.square().sum(-1)).sum(-1)

    def _terms(self, dimensions: int) -> int:
        return max(dimensions, len(self.waves))

    @property
    def _sizes(self) -> Tensor:
        return torch.softmax(self.log_sizes.double(), 0)

    def _phases(self, xi: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        waves = _sized(self.waves, xi, 1) * radius[..., None, None]
        return waves, (waves @ xi[..., None]).squeeze(-1)


def _power(xi: Tensor, exponent: Tensor) -> Tensor:
    """|ξ|^exponent, zero at the origin, with gradients in the exponent."""
    square = xi.square().sum(-1)
    some = square > 0
    return torch.where(some, torch.where(some, square, 1.0) ** (exponent / 2), 0.0)


def _sized(parameter: Tensor, xi: Tensor, axis: int = 0) -> Tensor:
    if parameter.shape[axis] != xi.shape[-1]:
        raise DomainError(f"this kernel was made for {parameter.shape[axis]} dimensions, the points have {xi.shape[-1]}")
    return parameter.double()


def _log(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise DomainError(f"{name} of a kernel must be positive and finite, not {value!r}")
    return math.log(value)
