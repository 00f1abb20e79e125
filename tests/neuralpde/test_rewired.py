"""A rewired flow is the chain of flows on the edges of its states: values, gradients, laws, and what it refuses."""

import copy
import math
import pickle

import pytest
import torch

from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.exponential import Exponential
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.sdirk3 import SDIRK3
from neuralpde.averaging import Averaging
from neuralpde.beltrami import BeltramiFlow
from neuralpde.correction import Corrected
from neuralpde.heat import Heat
from neuralpde.model import NeuralPDE
from neuralpde.monitor import Monitor
from neuralpde.rewired import Channels, Rewired, features, positions
from operators.attention import ScaledDotProduct
from operators.checks import DomainError, FieldError
from operators.domains import Graph
from operators.laplacian import combinatorial_laplacian
from operators.neighbours import Gaussian
from operators.normalisation import Over, Softmax
from operators.rewiring import NearestNeighbours, Radius

N, TIMES = 14, (0.3, 0.7)
OUTPUTS = [0.0, 0.5, 0.7, 1.0]


def state(n=N, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    u, x = torch.rand(n, 2, generator=generator, dtype=dtype), torch.randn(n, 3, generator=generator, dtype=dtype)
    return u, x


def empty(n=N, dtype=torch.float64):
    """A graph to build a flow on, whose edges are still to come."""
    return Graph(torch.zeros(2, 0, dtype=torch.int64), n, torch.zeros(0, dtype=dtype))


def flow(*, over=Over.ROWS, dtype=torch.float64, **settings):
    torch.manual_seed(1)
    attention = ScaledDotProduct(empty(dtype=dtype), 5, width=4, heads=2, normalise=Softmax(over))
    torch.nn.init.normal_(attention.query.weight)
    return BeltramiFlow(attention, 1.5, **settings)


def chain(flow, rewiring, z0, solver, of=positions):
    """The three stretches of OUTPUTS and TIMES by hand: the states at OUTPUTS."""
    begin, z, seen = 0.0, z0, [z0]
    for end, wanted in ((0.3, ()), (0.7, (0.5, 0.7)), (1.0, (1.0,))):
        here = flow.on(rewiring(of(z)))
        if flow.frozen_attention:
            source = None if flow.source is None else (flow.source, z0)
            f = Averaging(here.diffusivity(z), here.log_rate.exp() * here.diffusivity.rate, source=source)
        else:
            f = here.starting_at(z0)
        path = integrate(f, z, sorted({begin, *wanted, end}), solver)
        states = [tuple(part[k] for part in path.x) if isinstance(z, tuple) else path.x[k] for k in range(len(path.t))]
        seen += [s for t, s in zip(path.t.tolist(), states, strict=True) if t in wanted]
        begin, z = end, states[-1]
    return seen


def flat(path):
    parts = path if isinstance(path, tuple) else (path,)
    return torch.cat([part.flatten(1) for part in parts], dim=1)


WEIGHTED = NearestNeighbours(3, weight=Gaussian(0.4))
cases = pytest.mark.parametrize("settings", [{}, {"source": 0.4}, {"frozen": True}, {"frozen": True, "source": 0.4}], ids=str)


@cases
@pytest.mark.parametrize("rewiring", [Radius(0.35), WEIGHTED], ids=["radius", "weighted"])
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
def test_it_is_the_chain_with_its_gradients(settings, rewiring, gradient):
    z0, f = tuple(part.requires_grad_() for part in state()), flow(**settings)
    inputs = [*z0, *f.parameters()]
    expected = chain(f, rewiring, z0, RK4(dt=0.1, gradient=Direct()))
    expected = torch.cat([torch.stack(parts).flatten(1) for parts in zip(*expected, strict=True)], dim=1)
    solution = integrate(Rewired(f, rewiring, TIMES), z0, OUTPUTS, RK4(dt=0.1, gradient=gradient))
    found = flat(solution.x)
    assert torch.allclose(found, expected, rtol=1e-12)
    grads = [torch.autograd.grad(path.square().sum(), inputs, allow_unused=True) for path in (found, expected)]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    # Every stretch is repeated once, not once for every piece of the next.
    assert solution.stats.nfe_backward <= 1.1 * solution.stats.nfe


@cases
def test_gradients_are_those_of_finite_differences(settings):
    f = flow(**settings)
    rewired = Rewired(f, WEIGHTED, TIMES)

    def end(u, x, rate):
        f._parameters.pop("log_rate", None)
        f.log_rate = rate
        return integrate(rewired, (u, x), [0.0, 1.0], RK4(dt=0.5, gradient=Direct())).final

    u, x = (part.requires_grad_() for part in state())
    rate = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (u, x, rate), fast_mode=True)


def test_without_times_it_is_the_flow_on_the_edges_of_the_start():
    z0, f, rewiring = state(), flow(), NearestNeighbours(4)
    plain = integrate(f.on(rewiring(z0[0])), z0, [0.0, 1.0], RK4(dt=0.1)).final
    once = integrate(Rewired(f, rewiring), z0, [0.0, 1.0], RK4(dt=0.1)).final
    assert all(torch.equal(a, b) for a, b in zip(once, plain, strict=True))
    again = integrate(Rewired(f, rewiring, [0.5]), z0, [0.0, 1.0], RK4(dt=0.1)).final
    assert not torch.allclose(again[1], once[1], rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("source", [None, 0.4])
def test_frozen_stretches_are_linear_and_solved_as_such(source):
    z0, f = state(), flow(frozen=True, source=source)
    rewired = Rewired(f, NearestNeighbours(3), TIMES)
    exact = integrate(rewired, z0, OUTPUTS, Dopri5(rtol=1e-9, atol=1e-10))
    series = integrate(rewired, z0, OUTPUTS, Exponential())
    implicit = integrate(rewired, z0, OUTPUTS, SDIRK3(rtol=1e-4, atol=1e-6))
    assert torch.allclose(flat(series.x), flat(exact.x), atol=1e-8)
    assert torch.allclose(flat(implicit.x), flat(exact.x), atol=1e-3)
    chosen = integrate(rewired, z0, OUTPUTS)
    assert chosen.stats.reason.startswith("Exponential")
    assert torch.allclose(flat(chosen.x), flat(exact.x), atol=1e-6)


@torch.no_grad()
def test_attention_is_frozen_anew_in_every_term_of_a_sum():
    z0, f = state(), flow(frozen=True, source=0.4)
    exact = integrate(Rewired(f, NearestNeighbours(3), TIMES), z0, OUTPUTS, RK4(dt=0.1))
    for same in (0.5 * f + 0.5 * f, 1.0 * f, Corrected(f, lambda t, z: tuple(0 * part for part in z))):
        series = integrate(Rewired(same, NearestNeighbours(3), TIMES), z0, OUTPUTS, RK4(dt=0.1))
        assert torch.allclose(flat(series.x), flat(exact.x), atol=1e-12)


def test_the_source_is_the_true_start():
    # Without diffusion to speak of, z(t) = z(0) + β t z(0), whatever was rewired on the way.
    for frozen in (False, True):
        f = flow(frozen=frozen, source=0.5)
        with torch.no_grad():
            f.log_rate.fill_(-25.0)
        z0 = state()
        end = integrate(Rewired(f, NearestNeighbours(3), (0.25, 0.5, 0.75)), z0, [0.0, 1.0], RK4(dt=0.1)).final
        assert all(torch.allclose(a, 1.5 * b, atol=1e-8) for a, b in zip(end, z0, strict=True))


@pytest.mark.parametrize("of", [features, Channels(0, 2), Channels(1, 4), lambda z: z[..., ::2]])
def test_positions_may_be_channels_of_one_tensor(of):
    z0, f = torch.cat(state(), dim=1), flow()
    rewiring = NearestNeighbours(3)
    found = integrate(Rewired(f, rewiring, TIMES, of=of), z0, OUTPUTS, RK4(dt=0.1)).x
    assert torch.allclose(found, torch.stack(chain(f, rewiring, z0, RK4(dt=0.1), of)), rtol=1e-12)


def test_features_of_a_pair_are_rewired_as_in_dgcnn():
    z0, f = state(), flow(moving=False)
    rewired = Rewired(f, NearestNeighbours(3), TIMES, of=features)
    assert torch.equal(rewired.graph(z0).edge_index, NearestNeighbours(3)(z0[1]).edge_index)
    u, x = integrate(rewired, z0, OUTPUTS, RK4(dt=0.1)).x
    assert torch.equal(u[-1], z0[0])
    assert not torch.equal(rewired.graph((u[-1], x[-1])).edge_index, rewired.graph(z0).edge_index)


def test_the_edges_follow_the_positions():
    # Two clusters drift together, so the radius graph gains edges; at the end it is that of the last rewiring.
    z0 = state()
    rewired = Rewired(flow(), Radius(0.4), TIMES)
    path = integrate(rewired, z0, OUTPUTS, RK4(dt=0.1)).x
    counts = [rewired.graph((u, x)).edge_index.shape[1] for u, x in zip(*path, strict=True)]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_any_flow_that_moves_to_a_graph_is_rewired():
    z0 = torch.cat(state(), dim=1)
    heat = Heat(combinatorial_laplacian(empty()), 0.3)
    rewired = Rewired(heat, NearestNeighbours(4), [0.5], of=Channels(0, 2))
    path = integrate(rewired, z0, [0.0, 0.5, 1.0], Exponential()).x
    x = z0
    for k in (1, 2):
        L = combinatorial_laplacian(NearestNeighbours(4)(x[:, :2])).matrix()
        x = torch.linalg.matrix_exp(-0.5 * 0.3 * L) @ x
        assert torch.allclose(path[k], x, atol=1e-9)


def test_another_order_of_the_nodes_gives_the_same_states():
    z0, order = state(), torch.randperm(N)
    rewired = Rewired(flow(source=0.2), NearestNeighbours(3), TIMES)
    end = integrate(rewired, z0, [0.0, 1.0], RK4(dt=0.1)).final
    moved = integrate(rewired, tuple(part[order] for part in z0), [0.0, 1.0], RK4(dt=0.1)).final
    assert all(torch.allclose(a[order], b, rtol=1e-10) for a, b in zip(end, moved, strict=True))


@pytest.mark.parametrize(("over", "name"), [(Over.ROWS, "maximum principle"), (Over.COLUMNS, "mass")])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_it_declares_holds_across_rewirings(over, name, frozen):
    graph = Graph(torch.arange(N).repeat(2, 1).add(torch.tensor([[0], [1]])) % N, N).undirected().to(torch.float64)
    f = BeltramiFlow(ScaledDotProduct(graph, 5, normalise=Softmax(over)), 2.0, frozen=frozen)
    rewired = Rewired(f, NearestNeighbours(3), TIMES, of=Channels(0, 2))
    assert [invariant.name for invariant in rewired.invariants] == [name]
    monitor = Monitor(rewired, tolerance=1e-9)
    integrate(rewired, torch.cat(state(), dim=1), [0.0, 1.0], Exponential() if frozen else RK4(dt=0.02), monitor=monitor)
    assert len(monitor.t) > 3


def test_an_energy_of_the_first_edges_is_not_declared():
    heat = Heat(combinatorial_laplacian(empty()))
    names = {invariant.name for invariant in Rewired(heat, NearestNeighbours(3), of=features).invariants}
    assert names <= {"mass", "maximum principle"}
    assert len(heat.invariants) > len(names)


def test_sums_and_multiples_are_rewired_too():
    z0, f, rewiring = torch.cat(state(), dim=1), flow(), NearestNeighbours(3)
    rewired = 2.0 * Rewired(f, rewiring, [0.5], of=Channels(0, 2)) + (lambda t, z: -0.1 * z)
    path = integrate(rewired, z0, [0.0, 0.5, 1.0], RK4(dt=0.1)).x
    z = z0
    for k in (1, 2):
        part = 2.0 * f.on(rewiring(z[:, :2])) + (lambda t, z: -0.1 * z)
        z = integrate(part, z, [0.5 * (k - 1), 0.5 * k], RK4(dt=0.1)).final
        assert torch.allclose(path[k], z, rtol=1e-12)


def test_by_hand_it_is_the_slope_after_a_rewiring():
    z, f = state(), flow()
    rewired = Rewired(f, NearestNeighbours(3), TIMES)
    expected = f.on(NearestNeighbours(3)(z[0]))(torch.tensor(0.0), z)
    assert all(torch.equal(a, b) for a, b in zip(rewired(torch.tensor(0.0), z), expected, strict=True))


def test_it_learns_in_single_precision_within_a_model():
    z0 = torch.cat(state(dtype=torch.float32), dim=1)
    torch.manual_seed(0)
    model = NeuralPDE(
        Rewired(flow(dtype=torch.float32, source=0.1), NearestNeighbours(4, weight=Gaussian(0.5)), [0.5], of=Channels(0, 2)),
        RK4(dt=0.25), encode=torch.nn.Linear(5, 5), decode=torch.nn.Linear(5, 1),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = (model(z0, [0.0, 1.0])[-1] - z0[:, :1]).square().mean()
        loss.backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_it_is_copied_pickled_and_moved():
    z0 = state()
    rewired = Rewired(flow(source=0.3), NearestNeighbours(3), TIMES)
    end = integrate(rewired, z0, [0.0, 1.0], RK4(dt=0.25)).final
    for twin in (copy.deepcopy(rewired), pickle.loads(pickle.dumps(rewired)), rewired.on(empty(3))):
        again = integrate(twin, z0, [0.0, 1.0], RK4(dt=0.25)).final
        assert all(torch.equal(a, b) for a, b in zip(again, end, strict=True))
    single = copy.deepcopy(rewired).to(torch.float32)
    rounded = integrate(single, tuple(part.float() for part in z0), [0.0, 1.0], RK4(dt=0.25)).final
    assert all(torch.allclose(a.double(), b, atol=1e-4) for a, b in zip(rounded, end, strict=True))


def test_a_batch_has_no_common_graph():
    z0 = tuple(part.expand(2, -1, -1) for part in state())
    with pytest.raises(DomainError, match="members have no common graph"):
        integrate(Rewired(flow(), NearestNeighbours(3), TIMES), z0, [0.0, 1.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f: Rewired(torch.nn.Identity(), NearestNeighbours(3)), TypeError, "flow must be a right-hand side"),
        (lambda f: Rewired(f, 3), TypeError, "as NearestNeighbours"),
        (lambda f: Rewired(f, NearestNeighbours(3), 0.5), TypeError, r"times must be a list, as in \[0.5\]"),
        (lambda f: Rewired(f, NearestNeighbours(3), [math.nan]), ValueError, "NaN or infinite time"),
        (lambda f: Channels(3, 3), ValueError, "end after they begin"),
        (lambda f: Rewired(f, torch.zeros_like).graph(state()), DomainError, "must make a Graph of positions, not Tensor"),
        (lambda f: Rewired(f, NearestNeighbours(3)).graph(torch.zeros(N, 5)), FieldError, r"of=Channels\(0, 16\)"),
        (
            lambda f: Rewired(f, NearestNeighbours(3), of=Channels(4, 9)).graph(state()),
            FieldError,
            "of 5 channels has none up to 9",
        ),
        (lambda f: Rewired(f, NearestNeighbours(N)).starting_at(state()), DomainError, "take k from 1 to 13"),
    ],
)
def test_what_it_cannot_use_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(flow())
