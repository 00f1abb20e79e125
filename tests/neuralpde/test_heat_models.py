"""The compared models are what their names say, share weights between surfaces, and start where they should."""

import pytest
import torch

from neuralpde import Heat, Laplacian, Rayleigh, bumpy, icosphere, robust_laplacian
from neuralpde.heat_data import FRAMES, Surface, Truth, simulate
from neuralpde.heat_models import (
    LEARNED,
    STARTING_RATE,
    T_MAX,
    TITLES,
    GraphConvolutions,
    difference,
    fit_stencil,
    gcn,
    parameters,
    relaxed,
    stencil_rollout,
)
from neuralpde.testing import assert_within

MODELS = pytest.mark.parametrize("learned", LEARNED, ids=lambda learned: learned.name)
SINGLE = torch.float32


def dt_of(laplacian: Laplacian) -> float:
    return 0.25 / laplacian.largest_eigenvalue()


def test_names_and_order():
    assert list(TITLES) == [
        "zero",
        "persistence",
        "stencil",
        "gcn",
        "unitary",
        "truncated",
        "relaxed",
        "beltrami",
        "difference",
    ]
    assert len(set(TITLES.values())) == len(TITLES)


@MODELS
@pytest.mark.parametrize("truth", list(Truth))
def test_a_model_moves_to_another_surface_with_its_weights(learned, truth, surfaces):
    here, there = (surfaces[name].to(SINGLE) for name in ("ball", "ring"))
    model = learned.build(here, truth)
    moved = model.on(there)
    assert [id(p) for p in moved.parameters()] == [id(p) for p in model.parameters()]
    fresh = learned.build(there, truth)
    fresh.load_state_dict(model.state_dict())
    times = dt_of(robust_laplacian(here)) * torch.arange(3, dtype=torch.float64)
    y0 = torch.rand(2, there.num_nodes, 1)
    with torch.no_grad():
        path = moved(y0, times)
        torch.testing.assert_close(path, fresh(y0, times))
    assert path.shape == (3, 2, there.num_nodes, 1)
    assert path.dtype == SINGLE
    assert torch.equal(path[0], y0)


@MODELS
def test_gradients_reach_every_parameter(learned, surfaces):
    mesh = surfaces["ball"].to(SINGLE)
    model = learned.build(mesh, Truth.SURFACE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    times = dt_of(robust_laplacian(mesh)) * torch.arange(3, dtype=torch.float64)
    (model(torch.rand(42, 1), times)[1:] - 1).square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    assert sum(float(p.grad.abs().sum()) > 0 for p in model.parameters()) >= len(list(model.parameters())) - 1


def test_convolutions_start_as_persistence_and_match_the_size(surfaces):
    mesh = surfaces["ball"].to(SINGLE)
    model = gcn(mesh, Truth.SURFACE)
    assert isinstance(model, GraphConvolutions)
    y0 = torch.rand(2, 42, 1)
    assert torch.equal(model(y0, torch.tensor([0.0, 1.0, 3.0])), y0.expand(3, 2, 42, 1))
    sizes = [parameters(model), parameters(difference(mesh, Truth.SURFACE))]
    assert abs(sizes[0] / sizes[1] - 1) < 0.2


def test_flows_start_slow_and_the_strict_one_keeps_its_roughness(surfaces):
    mesh = surfaces["ball"].to(SINGLE)
    built = {learned.name: learned.build(mesh, Truth.SURFACE) for learned in LEARNED}
    rates = [
        built["relaxed"].rhs.dissipation,
        built["beltrami"].rhs.log_rate.exp(),
        built["difference"].rhs.log_rate.exp(),
    ]
    assert [float(rate.detach()) for rate in rates] == pytest.approx([STARTING_RATE] * 3)
    strict, cut = built["unitary"], built["truncated"]
    assert strict.rhs.dissipation is None
    assert cut.solver.order == T_MAX
    t = dt_of(robust_laplacian(mesh)) * torch.arange(40, dtype=torch.float64)
    path = strict.solve(torch.rand(42, 1), t).x
    assert Rayleigh(strict.rhs.laplacian).violation(path) < 1e-5


def test_relaxed_flow_can_be_the_truth(surfaces):
    """With W = 0 and γ = 1 it is the heat equation, so learning can succeed."""
    mesh = surfaces["ball"]
    model = relaxed(mesh, Truth.SURFACE)
    with torch.no_grad():
        model.rhs.mixing.V.zero_()
        model.rhs.log_dissipation.zero_()
    y0 = torch.rand(42, 1, dtype=torch.float64)
    heat = Heat(robust_laplacian(mesh))
    with torch.no_grad():
        assert_within(model(y0, [0.0, 0.05])[1], torch.linalg.matrix_exp(-0.05 * heat.laplacian.matrix()) @ y0, 1e-12)


def test_stencil_finds_the_rate():
    items = []
    for mesh in (icosphere(1), bumpy(icosphere(1), 0.2)):
        laplacian = Truth.PUBLISHED.laplacian(mesh)
        dt = dt_of(laplacian)
        start = torch.rand(2, 42, 1, dtype=torch.float64)
        items.append((Surface("x", mesh, dt, simulate(laplacian, dt, start, Truth.PUBLISHED)), laplacian))
    rate = fit_stencil(items, FRAMES, 2)
    assert rate == pytest.approx(1.0, rel=1e-10)
    item, laplacian = items[0]
    path = stencil_rollout(laplacian, rate, item.frames[:, 0], item.times(FRAMES))
    assert_within(path.transpose(0, 1), item.frames, 1e-9)


def test_parameters_counts_what_is_learned():
    assert parameters(Heat(robust_laplacian(icosphere(0)))) == 0
    assert parameters(Heat(robust_laplacian(icosphere(0)), learn=True)) == 1
