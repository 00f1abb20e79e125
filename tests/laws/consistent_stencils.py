"""Clouds, disturbed parameters, and the law of consistent stencils: exact on polynomials."""

import math

import torch
from hypothesis import strategies as st

from neuralpde.testing import assert_within, roundoff
from operators.consistent import ConsistentStencil
from operators.domains import PointCloud


def scattered(n, d, seed=0, dtype=torch.float64):
    """Random points of the unit cube."""
    return PointCloud(torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype))


@st.composite
def clouds(draw, d=2, n=24):
    """Random points of cubes of several sizes, at the origin or away from it."""
    points = scattered(n, d, draw(st.integers(0, 10**6), label="seed")).points
    shift = draw(st.sampled_from([0.0, 1.0, -16.0]), label="shift")
    return PointCloud((points + shift) * 2.0 ** draw(st.integers(-12, 12), label="log size"))


def disturbed(module, seed, size):
    """The module with all parameters drawn anew, normal with this standard deviation."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return module


def assert_exact_on_polynomials(stencil: ConsistentStencil, x=None, nodes=None):
    """Σ_j w_ij ξ_ij^α r^s is the derivative of ξ^α at the node, for every monomial: the moments in float64, as they are.

    The error is round-off times the condition of the fit for the base weights, times √k for sums, and relative to Σ_j |w_ij ξ^α|.
    """
    moments = stencil.moments
    # From the points, not from the buffers: rounding those to float32 is an error of the stencil.
    points = moments.cloud.points.double()
    offsets = (points[moments.neighbours] - points[:, None]) * moments.valid[..., None]
    local = offsets / torch.linalg.vector_norm(offsets, dim=-1).amax(1)[:, None, None]
    weights = stencil.weights(x).detach().double() * moments.radius.double()[:, None, None] ** stencil.degree
    target = stencil.target(moments)
    slack = 64 * roundoff(stencil.dtype) * moments.condition * math.sqrt(weights.shape[-2])
    keep = slice(None) if nodes is None else nodes
    for monomial, exact in zip(moments.monomials, target, strict=True):
        power = local[..., list(monomial)].prod(-1)[..., None]
        found, size = (weights * power).sum(-2), (weights * power).abs().sum(-2)
        assert_within(found[..., keep, :], exact.expand_as(found[..., keep, :]), slack * (1 + size[..., keep, :]))
