"""The problems of the integrator benchmark: their references are right, and cheap at a small size."""

import math

import pytest
import torch

from integrators import Exponential, RadauIIA5, integrate
from neuralpde.bench_problems import Problem, allen_cahn, cahn_hilliard, grand, heat, wave

SIZE = (14, 10, 2)


def end(problem: Problem, solver: object) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        final = integrate(problem.fresh(), problem.x0, [0.0, problem.horizon], solver).final
    return final if isinstance(final, tuple) else (final,)


@pytest.mark.parametrize("make", [heat, wave, grand], ids=lambda make: make.__name__)
def test_references_of_linear_problems_agree_with_the_taylor_exponential(make):
    problem = make(*SIZE)
    reference = problem.reference()
    parts = reference if isinstance(reference, tuple) else (reference,)
    for ours, theirs in zip(end(problem, Exponential()), parts, strict=True):
        # Thousands of products for ‖G‖T = 4e4, each with its round-off.
        assert float((ours - theirs).norm() / theirs.norm()) <= 1e-10


@pytest.mark.parametrize("make", [allen_cahn, cahn_hilliard], ids=lambda make: make.__name__)
def test_references_of_nonlinear_problems_agree_with_another_method(make):
    """The references are exponential and explicit; RadauIIA5 with Newton's method on f alone shares nothing with them."""
    problem = make(9, 7, 2)
    f, theirs = problem.fresh(), problem.reference()
    with torch.no_grad():
        ours = integrate(f.forward, problem.x0, [0.0, problem.horizon], RadauIIA5(1e-9, 1e-11)).final
    assert float((ours - theirs).norm() / theirs.norm()) <= 1e-7


def test_the_energy_of_the_wave_is_conserved_by_its_reference():
    problem = wave(*SIZE)
    assert problem.energy is not None
    assert math.isclose(problem.energy(problem.reference()), problem.energy(problem.x0), rel_tol=1e-11)


@pytest.mark.parametrize("make", [heat, wave, grand, allen_cahn, cahn_hilliard], ids=lambda make: make.__name__)
def test_the_stiffness_is_the_spectral_radius_times_the_horizon(make):
    problem = make(*SIZE)
    f = problem.fresh()
    v = problem.x0
    v = tuple(torch.randn_like(part) for part in v) if isinstance(v, tuple) else torch.randn_like(v)
    for _ in range(60):
        w = f.linear @ v
        size = math.sqrt(sum(float(part.square().sum()) for part in (w if isinstance(w, tuple) else (w,))))
        v = tuple(part / size for part in w) if isinstance(w, tuple) else w / size
    w = f.linear @ (f.linear @ v)
    size = math.sqrt(sum(float(part.square().sum()) for part in (w if isinstance(w, tuple) else (w,))))
    # The attention's spectral radius lies between its mean row and 2.
    assert 0.3 <= math.sqrt(size) * problem.horizon / problem.stiffness <= 1.2
