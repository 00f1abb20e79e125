"""Penalties along a path are those of the dense Jacobian, and gradients through them those of finite differences."""

import copy
import pickle

import pytest
import torch
from torch import nn

from integrators import RK4, Adjoint, Checkpointed, Direct, Dopri5, Interpolated, integrate
from integrators.state import parts_of
from neuralpde.beltrami import BeltramiFlow
from neuralpde.heat import Heat
from neuralpde.path_regularisers import (
    DirectionalPenalty,
    JacobianPenalty,
    KineticEnergy,
    PathRegulariser,
    Regularised,
    half_square,
)
from neuralpde.rewired import Rewired, features
from neuralpde.rhs import RightHandSide
from neuralpde.testing import assert_within
from operators import NearestNeighbours, ScaledDotProduct, icosphere, robust_laplacian

NOW = torch.tensor(0.3, dtype=torch.float64)
N, C = 4, 2


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Bent(RightHandSide):
    """dx/dt = tanh(A x W) + t x."""

    def __init__(self):
        super().__init__()
        self.A, self.W = nn.Parameter(noise(N, N)), nn.Parameter(noise(C, C, seed=1))

    def forward(self, t, x):
        return torch.tanh(self.A @ x @ self.W) + t.to(x.dtype) * x


class Pair(RightHandSide):
    """(du, dx)/dt = (sin x₁, u ⊙ x)."""

    def forward(self, t, state):
        u, x = state
        return x[..., :1].sin(), u * x


def rates(f, regularisers, x):
    flow = Regularised(f, regularisers).starting_at(Regularised(f, regularisers).start(x))
    return flow(NOW, Regularised(f, regularisers).start(x))[-1].squeeze(-2)


def jacobian(f, x):
    return torch.autograd.functional.jacobian(lambda z: f(NOW, z), x).reshape(x.numel(), x.numel())


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_the_dense_jacobian(seed):
    f, x, e = Bent(), noise(N, C, seed=seed), noise(N, C, seed=seed + 1)
    kinetic, size, along = rates(f, [KineticEnergy(), JacobianPenalty(e), DirectionalPenalty()], x).detach()
    J, slope = jacobian(f, x), f(NOW, x).detach().flatten()
    expected = [slope.square().sum(), (J.T @ e.flatten()).square().sum(), (J.T @ slope).square().sum()]
    for found, square in zip((kinetic, size, along), expected, strict=True):
        assert_within(found, square / (2 * N), 1e-12 * (1 + float(square)))


def test_the_mean_over_signs_is_the_frobenius_norm():
    f, x = Bent(), noise(N, C)
    # Every sign pattern once: the mean is exact.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * (N * C))
    found = rates(f, [JacobianPenalty(signs.reshape(-1, N, C))], x.expand(len(signs), N, C)).mean()
    assert_within(found, jacobian(f, x).square().sum() / (2 * N), 1e-12)


def test_drawn_signs_stay_for_the_solve_and_follow_the_seed():
    f, x = Regularised(Bent(), [JacobianPenalty()]), noise(3, N, C)
    torch.manual_seed(4)
    begun = f.starting_at(f.start(x))
    drawn = begun.regularisers[0].direction
    assert drawn.shape == x.shape
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    assert torch.equal(begun(NOW, f.start(x))[-1], begun(NOW, f.start(x))[-1])
    assert begun.starting_at(f.start(x)).regularisers[0].direction is drawn
    torch.manual_seed(4)
    assert torch.equal(f.starting_at(f.start(x)).regularisers[0].direction, drawn)
    assert not torch.equal(f.starting_at(f.start(x)).regularisers[0].direction, drawn)
    assert f.regularisers[0].direction is None


def test_batches_tuples_and_several_parts():
    f, x = Bent(), noise(3, N, C)
    kinds = [KineticEnergy(), JacobianPenalty(noise(N, C, seed=5)), DirectionalPenalty()]
    together = rates(f, [kinds[0], JacobianPenalty(kinds[1].direction.expand(3, N, C)), kinds[2]], x)
    assert together.shape == (3, 3)
    assert_within(together[1], rates(f, kinds, x[1]), 1e-12)
    pair = (noise(N, 1), noise(N, C, seed=1))
    flow = Regularised(Pair(), [KineticEnergy(), DirectionalPenalty()])
    slopes = flow(NOW, flow.start(pair))
    (state, gathered) = flow.split(slopes)
    u, v = Pair()(NOW, pair)
    assert torch.equal(state[0], u)
    assert torch.equal(state[1], v)
    assert_within(gathered[0], (u.square().sum() + v.square().sum()) / (2 * N), 1e-13)
    # Jᵀ (a, b) = (Σ_c x_c b_c, u b + cos(x₁) a on the first channel).
    back_x = pair[0] * v
    back_x = torch.cat([back_x[:, :1] + pair[1][:, :1].cos() * u, back_x[:, 1:]], dim=1)
    back_u = (pair[1] * v).sum(1, keepdim=True)
    assert_within(gathered[1], (back_u.square().sum() + back_x.square().sum()) / (2 * N), 1e-13)


def test_linear_decay_in_closed_form():
    """dx/dt = −k x: r₁ = k |x₀|² (1 − e^(−2kT))/4n and r₃ = k² r₁; ½ |J|² T for the Jacobian, whatever the signs."""
    k, T, x = 0.7, 2.0, noise(N, C)
    flow = Regularised(lambda t, x: -k * x, [KineticEnergy(), JacobianPenalty(), DirectionalPenalty()])
    solution = integrate(flow, flow.start(x), [0.0, T], Dopri5(rtol=1e-10, atol=1e-12))
    end, gathered = flow.split(solution.final)
    first = k * x.square().sum() * (1 - torch.exp(torch.tensor(-2 * k * T, dtype=torch.float64))) / (4 * N)
    assert_within(gathered, torch.stack([first, first.new_tensor(k**2 * C * T / 2), k**2 * first]), 1e-9)
    assert_within(end, x * torch.exp(torch.tensor(-k * T)), 1e-8)
    path, penalties = flow.split(solution.x)
    assert path.shape == (2, N, C)
    assert penalties.shape == (2, 3)
    assert float(penalties[0].abs().max()) == 0


def loss(flow, x, solver):
    path, penalties = flow.split(integrate(flow, flow.start(x), [0.0, 0.2], solver).x)
    return path[-1].square().sum() + (penalties[-1] * penalties.new_tensor([1.0, 0.5, 0.25])).sum()


def test_gradients_through_every_mode():
    f, x = Bent(), noise(N, C).requires_grad_()
    flow = Regularised(f, [KineticEnergy(), JacobianPenalty(noise(N, C, seed=3)), DirectionalPenalty()])
    wanted = (x, f.A, f.W)

    def of(solver):
        return torch.autograd.grad(loss(flow, x, solver), wanted)

    exact = of(RK4(dt=0.05, gradient=Direct()))
    for one, other in zip(exact, of(RK4(dt=0.05, gradient=Checkpointed(snapshots=2))), strict=True):
        assert_within(other, one, 1e-12 * float(1 + one.abs().max()))
    for mode in (Interpolated(rtol=1e-7, atol=1e-9), Adjoint(rtol=1e-8, atol=1e-10)):
        for one, other in zip(exact, of(Dopri5(rtol=1e-8, atol=1e-10, gradient=mode)), strict=True):
            assert_within(other, one, 1e-3 * float(one.abs().max()))
    h = 1e-6
    for tensor, gradient in zip(wanted, exact, strict=True):
        way = noise(*tensor.shape, seed=8)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor += sign * h * way
                values.append(float(loss(flow, x, RK4(dt=0.05))))
                tensor -= sign * h * way
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float((gradient * way).sum()), rel=1e-6)


def test_without_gradients_nothing_is_recorded_and_the_numbers_are_the_same():
    f, x = Bent(), noise(N, C)
    flow = Regularised(f, [KineticEnergy(), JacobianPenalty(noise(N, C)), DirectionalPenalty()])
    with torch.no_grad():
        quiet = flow(NOW, flow.start(x))
    assert not any(part.requires_grad for part in quiet)
    for one, other in zip(quiet, flow(NOW, flow.start(x)), strict=True):
        assert torch.equal(one, other.detach())


def test_a_flow_without_x_in_it_has_no_jacobian():
    flow = Regularised(lambda t, x: torch.ones_like(x), [KineticEnergy(), JacobianPenalty(noise(N, C)), DirectionalPenalty()])
    assert flow(NOW, flow.start(noise(N, C)))[-1].tolist() == [[C / 2, 0.0, 0.0]]


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_is_trained_with_penalties(frozen):
    """GRAND's own use: frozen or not, with a source, every parameter has a gradient, second derivatives included."""
    laplacian = robust_laplacian(icosphere(1))
    torch.manual_seed(0)
    attention = BeltramiFlow(ScaledDotProduct(laplacian, 3, heads=2).double(), source=0.3, frozen=frozen)
    flow = Regularised(attention, [KineticEnergy(), JacobianPenalty(), DirectionalPenalty()])
    x = noise(42, 3)
    _, penalties = flow.split(integrate(flow, flow.start(x), [0.0, 0.5], RK4(dt=0.25)).final)
    assert bool((penalties > 0).all())
    penalties.sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert float(attention.log_rate.grad.abs()) > 0


@pytest.mark.parametrize("how", [{"source": 0.3}, {"frozen": True}], ids=str)
def test_what_a_flow_remembers_of_its_start_is_no_part_of_the_jacobian(how):
    """At t = 0 the state is the very tensor that the source and the frozen attention hold."""
    laplacian = robust_laplacian(icosphere(1))
    torch.manual_seed(0)
    attention = ScaledDotProduct(laplacian, 3).double()
    with torch.no_grad():
        attention.query.weight.normal_()
    flow = Regularised(BeltramiFlow(attention, **how), [JacobianPenalty(noise(42, 3, seed=2)), DirectionalPenalty()])
    x = noise(42, 3)
    constant, learned = (flow.start(z) for z in (x, x.clone().requires_grad_()))
    wanted, found = (flow.starting_at(state)(NOW, state)[-1].detach() for state in (constant, learned))
    assert_within(found, wanted, 1e-13)


def test_a_flow_made_anew_on_the_way_is_so_with_penalties():
    graph = icosphere(1).graph()
    bare = Rewired(BeltramiFlow(ScaledDotProduct(graph, 3).double()), NearestNeighbours(4), [0.3], of=features)
    flow = Regularised(bare, [KineticEnergy(), JacobianPenalty()])
    assert flow.restarts == bare.restarts == (0.3,)
    x, t, solver = noise(42, 3), [0.0, 0.3, 2.0], Dopri5(rtol=1e-9, atol=1e-11)
    path, _ = flow.split(integrate(flow, flow.start(x), t, solver).x)
    assert_within(path, integrate(bare, x, t, solver).x.detach(), 1e-7)
    once = integrate(Rewired(bare.flow, bare.rewiring, of=features), x, t, solver).x
    assert float((path[-1] - once[-1]).detach().abs().max()) > 1e-4


def test_laws_jumps_copies_and_precision():
    heat = Heat(robust_laplacian(icosphere(1)))
    flow = Regularised(heat, [KineticEnergy(), JacobianPenalty()])
    path = integrate(flow, flow.start(noise(42, 2)), [0.0, 0.1, 0.2], Dopri5(rtol=1e-9)).x
    assert len(flow.invariants) == len(heat.invariants) > 0
    for invariant in flow.invariants:
        assert invariant.violation(path) < 1e-8, invariant.name
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert type(twin) is Regularised
    single = copy.deepcopy(flow).to(torch.float32)
    state = single.start(noise(42, 2).float())
    assert {part.dtype for part in parts_of(single.starting_at(state)(NOW, state))} == {torch.float32}
    moved = flow.on(icosphere(2))
    state = moved.start(noise(162, 1))
    assert moved.starting_at(state)(NOW, state)[0].shape == (162, 1)


def test_inference_mode_is_refused_where_a_jacobian_is_wanted():
    # Without a graph of f every Jacobian would pass for zero.
    f, x = Bent(), noise(N, C)
    with torch.inference_mode():
        quick, slow = Regularised(f, [KineticEnergy()]), Regularised(f, [DirectionalPenalty()])
        assert float(quick(NOW, quick.start(x))[-1]) > 0
        with pytest.raises(RuntimeError, match=r"torch.no_grad\(\) instead"):
            slow(NOW, slow.start(x))


def test_half_a_square_of_complex_fields():
    z = torch.complex(noise(N, C), noise(N, C, seed=1))
    assert_within(half_square(z), z.abs().square().sum() / (2 * N), 1e-13)


def test_refusals_name_the_cure():
    with pytest.raises(TypeError, match=r"give regularisers such as \[KineticEnergy"):
        Regularised(Bent(), [])
    with pytest.raises(TypeError, match="give regularisers"):
        Regularised(Bent(), [KineticEnergy])
    for wrong in (noise(N + 1, C), noise(2, N, C), (noise(N, C), noise(N, C))):
        flow = Regularised(Bent(), [JacobianPenalty(wrong)])
        with pytest.raises(ValueError, match=r"direction.*\(4, 2\)"):
            integrate(flow, flow.start(noise(N, C)), [0.0, 0.1])
    flow = Regularised(Bent(), [JacobianPenalty()])
    with pytest.raises(ValueError, match=r"begin with flow.start\(x0\)"):
        integrate(flow, noise(N, C), [0.0, 1.0], RK4(dt=0.5))
    with pytest.raises(ValueError, match=r"begin with flow.start\(x0\)"):
        flow(NOW, (noise(N, C), noise(1, 2)))
    with pytest.raises(ValueError, match=r"call starting_at\(x0\)"):
        flow(NOW, flow.start(noise(N, C)))
    with pytest.raises(ValueError, match=r"a state has shape \(\.\.\., n, c\)"):
        flow.start(noise(N))
    with pytest.raises(TypeError, match="complex state"):
        JacobianPenalty().starting_at(torch.complex(noise(N, C), noise(N, C)))
    assert isinstance(KineticEnergy().starting_at(noise(N, C)), PathRegulariser)
