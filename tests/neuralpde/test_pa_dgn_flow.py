import pytest
import torch

from integrators import Dopri5, Euler, integrate
from neuralpde.pa_dgn import SensorGraph
from neuralpde.pa_dgn_flow import DifferenceGraphFlow, DifferenceLaw, ObservedFlow
from operators import FieldError, PointCloud, SparsityPattern


def sensors(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> SensorGraph:
    random = torch.Generator().manual_seed(seed)
    source, target = PointCloud(torch.rand(n, 2, generator=random, dtype=torch.float64)).knn_graph(3).edge_index
    return SensorGraph(SparsityPattern(target, source, (n, n)), torch.randn(n, 2, generator=random, dtype=dtype))


def wild(law: DifferenceLaw, factor: float) -> DifferenceLaw:
    with torch.no_grad():
        for parameter in law.parameters():
            parameter.copy_(factor * torch.randn_like(parameter))
    return law


@pytest.mark.parametrize(("seed", "factor"), [(1, 30.0)])
def test_a_thousand_steps_stay_within_the_bound_for_any_parameters(seed: int, factor: float) -> None:
    torch.manual_seed(seed)
    law = DifferenceLaw(1, 2, hidden=3, differences=2, width=4, bound=5.0)
    if factor:
        wild(law, factor)
    x = torch.cat([torch.randn(6, 1), torch.zeros(6, 3)], dim=-1)
    with torch.no_grad():
        path = integrate(DifferenceGraphFlow(law, sensors(6, seed)), x, torch.linspace(0, 500, 11), Euler(law.fastest)).x
    assert bool(torch.isfinite(path).all())
    # A thousand convex combinations, each of a rounding error.
    assert float(path[..., 0].abs().max()) <= max(5.0, float(x.abs().max())) * (1 + 1e-4)
    assert float(path[..., 1:].abs().max()) <= 1 + 1e-4


def test_untrained_it_relaxes_to_the_mean() -> None:
    torch.manual_seed(0)
    law = DifferenceLaw(1, 2, hidden=3, differences=2, width=4).double()
    x = torch.cat([torch.randn(6, 1), torch.zeros(6, 3)], dim=-1).double()
    path = integrate(DifferenceGraphFlow(law, sensors(6, dtype=torch.float64)), x, [0.0, 3.0], Dopri5(rtol=1e-6, atol=1e-8)).x
    rate = float(torch.sigmoid(law.rates[0].detach())) / law.fastest
    torch.testing.assert_close(path[-1, :, :1], x[:, :1] * torch.exp(torch.tensor(-3 * rate)), rtol=1e-3, atol=1e-4)


def test_windows_of_different_times_are_solved_each_at_its_own_pace() -> None:
    torch.manual_seed(0)
    graph, law = sensors(6, dtype=torch.float64), wild(DifferenceLaw(1, 2, hidden=3, differences=2, width=4).double(), 0.5)
    flow = ObservedFlow(law, Dopri5(rtol=1e-4, atol=1e-6))
    values, seen = torch.randn(2, 3, 6, 1, dtype=torch.float64), torch.rand(2, 3, 6, 1) > 0.3
    values = values * seen
    times = torch.tensor([[0.0, 1.0, 2.5], [0.0, 0.4, 3.0]], dtype=torch.float64)
    wanted = torch.tensor([[3.0, 4.0], [3.1, 6.0]], dtype=torch.float64)
    both = flow(values, seen, times, wanted, graph)
    for k in range(2):
        alone = flow(values[k : k + 1], seen[k : k + 1], times[k : k + 1], wanted[k : k + 1], graph)
        torch.testing.assert_close(both[k], alone[0], rtol=5e-3, atol=1e-3)
    # A time wanted on the way changes nothing: the flow is autonomous.
    more = torch.cat([wanted[:, :1], wanted.mean(1, keepdim=True), wanted[:, 1:]], dim=1)
    torch.testing.assert_close(flow(values, seen, times, more, graph)[:, [0, 1, 2, 4]], both, rtol=5e-3, atol=1e-3)


def test_what_was_not_seen_is_not_read() -> None:
    torch.manual_seed(0)
    graph, flow = sensors(6), ObservedFlow(wild(DifferenceLaw(1, 2, hidden=3, differences=2, width=4), 0.5))
    values, seen = torch.randn(1, 3, 6, 1), torch.ones(1, 3, 6, 1, dtype=torch.bool)
    seen[0, 0, 1], seen[0, 1, 2], seen[0, 2, 4] = False, False, False
    times, wanted = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[3.0]])
    other = torch.where(seen, values, torch.nan)
    assert torch.equal(flow(values, seen, times, wanted, graph), flow(other, seen, times, wanted, graph))
    with pytest.raises(FieldError, match="must increase"):
        flow(values, seen, times, torch.tensor([[2.0]]), graph)
    with pytest.raises(FieldError, match="times"):
        flow(values, seen, times[:, :2], wanted, graph)
    with pytest.raises(FieldError, match="finite"):
        flow(values, seen, times, torch.tensor([[torch.inf]]), graph)
    with pytest.raises(FieldError, match="seen are NaN"):
        flow(other, torch.ones_like(seen), times, wanted, graph)
    with pytest.raises(FieldError, match="wanted"):
        flow(values, seen, times, wanted[0], graph)


def test_it_moves_to_another_placement_and_has_gradients() -> None:
    torch.manual_seed(0)
    law = wild(DifferenceLaw(1, 2, hidden=2, differences=2, width=3).double(), 0.5)
    flow = DifferenceGraphFlow(law, sensors(6, dtype=torch.float64))
    moved = flow.on(sensors(7, 1, torch.float64))
    assert moved.law is law
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros((), dtype=torch.float64)
    assert moved(zero, x).shape == (7, 3)
    assert torch.autograd.gradcheck(lambda x, w: moved(zero, x), (x, law.first.weight))
