"""A monitor measures every step, tells when a law is broken, keeps the state, and draws what it saw."""

import math

import pytest
import torch

from integrators import RK4, Checkpointed, Direct, Dopri5, Euler, Exponential, PerSample, SolveError, Status, engine, integrate
from neuralpde.coupled import Coupled
from neuralpde.heat import Heat
from neuralpde.invariants import DirichletEnergy, Law, Mass, MaximumPrinciple, Norm, Part, Rayleigh
from neuralpde.monitor import Monitor
from neuralpde.rhs import RightHandSide
from neuralpde.unitary import UnitaryFlow
from operators import FieldError, icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))
HEAT = Heat(L)
U = torch.randn(42, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
UNSTABLE = 4 / L.norm_bound()


def test_what_it_measures_is_what_the_path_holds():
    monitor = Monitor(HEAT, 1e-10)
    t = 0.01 * torch.arange(11, dtype=torch.float64)
    path = integrate(HEAT, U, t, RK4(dt=0.01), monitor=monitor).x
    assert monitor.t == pytest.approx(t.tolist())
    assert list(monitor.values) == [invariant.name for invariant in HEAT.invariants]
    for invariant, values in zip(HEAT.invariants, monitor.values.values(), strict=True):
        assert torch.equal(torch.stack(values), invariant.measure(path))
    checks = monitor.checks()
    assert all(check.holds for check in checks)
    for check, invariant in zip(checks, HEAT.invariants, strict=True):
        assert check.violation == pytest.approx(invariant.violation(path), abs=1e-16)
        assert check.tolerance == 1e-10
    assert torch.equal(monitor.state, path[-1])


SOLVERS = {
    "fixed": Euler(dt=UNSTABLE),
    "checkpointed": Euler(dt=UNSTABLE, gradient=Checkpointed(snapshots=2)),
    "direct": Euler(dt=UNSTABLE, gradient=Direct()),
    "engine": engine.Euler(step_size=UNSTABLE),
    "adaptive": Dopri5(0.5, 1e3, first_step=2 * UNSTABLE),
    "samples": PerSample(Dopri5(0.5, 1e3, first_step=2 * UNSTABLE)),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("learn", [False, True])
def test_a_broken_law_stops_the_solve_and_keeps_the_state(name, learn):
    """Steps beyond the limit of stability, which no solver notices for a while."""
    f, monitor = Heat(L, learn=learn), Monitor(Norm(L, Law.NON_INCREASING), 1e-6)
    t = [0.0, UNSTABLE, 100 * UNSTABLE]
    with pytest.raises(
        SolveError, match=r"the monitor stopped the solve at t = .*: norm \(never increases\) is broken by"
    ) as caught:
        integrate(f, U, t, SOLVERS[name], monitor=monitor)
    assert caught.value.status is Status.MONITOR
    assert "monitor.state" in str(caught.value)
    kept = caught.value.solution
    assert 1 <= len(kept.t) <= 2
    assert torch.equal(kept.x[0].detach(), U)
    # The state that broke it, at its time: the norm of this one is larger than any before.
    assert float(Norm(L).measure(monitor.state)) > float(Norm(L).measure(U))
    assert monitor.t[-1] > 0
    (check,) = monitor.checks()
    assert not check.holds
    again = integrate(f, U, t, SOLVERS[name], monitor=monitor, throw=False)
    assert again.status is Status.MONITOR
    assert torch.equal(again.x.detach(), kept.x.detach())


def test_a_run_can_go_on_from_the_state_that_was_kept():
    monitor = Monitor(MaximumPrinciple(L, Law.NON_INCREASING), 1e-9)
    stopped = integrate(HEAT, U, [0.0, 5.0], Euler(dt=UNSTABLE), monitor=monitor, throw=False)
    assert stopped.status is Status.MONITOR
    gone_on = integrate(HEAT, monitor.state, [monitor.t[-1], 5.0], Exponential(), monitor=Monitor(HEAT, 1e-9))
    assert gone_on.status is Status.SUCCESS


def test_without_a_tolerance_it_only_watches():
    monitor = Monitor(HEAT)
    solution = integrate(HEAT, U, [0.0, 4 * UNSTABLE], Euler(dt=UNSTABLE), monitor=monitor)
    assert solution.status is Status.SUCCESS
    norm = next(check for check in monitor.checks() if check.invariant == "norm")
    assert norm.violation > 1
    assert norm.tolerance == 0
    assert not norm.holds


def test_a_rise_after_a_fall_counts_and_drift_is_measured_from_the_start():
    path = [1.0, 0.5, 0.8, 0.4]
    one_sided, strict = Monitor(Norm(L, Law.NON_INCREASING)), Monitor(Norm(L))
    rising = Monitor(Norm(L, Law.NON_DECREASING))
    for monitor in (one_sided, strict, rising):
        monitor.begin(0.0, U)
        for k, factor in enumerate(path):
            monitor.see(float(k + 1), factor * U)
    assert one_sided.checks()[0].violation == pytest.approx(0.3)
    assert strict.checks()[0].violation == pytest.approx(0.6)
    assert rising.checks()[0].violation == pytest.approx(0.6)


def test_every_so_many_steps():
    monitor = Monitor(HEAT, every=3)
    integrate(HEAT, U, [0.0, 0.1], RK4(dt=0.01), monitor=monitor)
    assert monitor.t == pytest.approx([0.0, 0.03, 0.06, 0.09])
    # The state is the last one all the same.
    assert float(Norm(L).measure(monitor.state)) < float(monitor.values["norm"][-1])


def test_a_new_solve_begins_anew():
    monitor = Monitor(HEAT, 1e-6)
    integrate(HEAT, U, [0.0, 10 * UNSTABLE], Euler(dt=UNSTABLE), monitor=monitor, throw=False)
    assert not all(check.holds for check in monitor.checks())
    integrate(HEAT, 2 * U, [1.0, 1.1], RK4(dt=0.01), monitor=monitor)
    assert all(check.holds for check in monitor.checks())
    assert monitor.t[0] == 1.0
    assert float(monitor.values["norm"][0]) == pytest.approx(2 * float(Norm(L).measure(U)))


def test_a_batch_is_judged_by_its_worst_member():
    monitor = Monitor(Norm(L), 0.1)
    monitor.begin(0.0, torch.stack([U, U]))
    monitor.see(1.0, torch.stack([U, 1.05 * U]))
    with pytest.raises(SolveError, match="norm"):
        monitor.see(2.0, torch.stack([U, 1.2 * U]))
    assert monitor.values["norm"][0].shape == (2,)


def test_single_precision_is_measured_in_double():
    single = robust_laplacian(icosphere(1)).to(torch.float32)
    monitor = Monitor(Norm(single), 1e-4)
    monitor.begin(0.0, U.float())
    monitor.see(1.0, U.float() * (1 + 1e-5))
    assert monitor.checks()[0].violation == pytest.approx(1e-5, rel=0.1)
    assert monitor.values["norm"][0].dtype == torch.float64
    assert monitor.state.dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_breaks_every_law(bad):
    monitor = Monitor([Norm(L), Mass(L), Rayleigh(L, Law.NON_INCREASING), MaximumPrinciple(L, Law.NON_INCREASING)], 1e3)
    monitor.begin(0.0, U)
    with pytest.raises(SolveError, match=r"broken by inf"):
        monitor.see(1.0, U * bad)
    assert all(check.violation == math.inf for check in monitor.checks())


def test_complex_flows_backwards_and_tuples():
    flow = UnitaryFlow(L, 2)
    monitor = Monitor(flow, 1e-10)
    psi = U.to(torch.complex128) * (1 + 1j)
    integrate(flow, psi, [0.0, -0.5], Exponential(), monitor=monitor)
    assert monitor.t[-1] == -0.5
    assert all(check.holds for check in monitor.checks())
    system = Coupled(u=HEAT, v=Heat(L, 0.3))
    both = Monitor(system, 1e-9)
    integrate(system, (U, 2 * U), [0.0, 0.1], Dopri5(1e-6, 1e-8), monitor=both)
    assert "mass of v" in both.values
    assert isinstance(both.state, tuple)


def test_a_quantity_of_one_field_asks_of_which():
    with pytest.raises(FieldError, match=r"the state has 2: say of which, as in Part\(0, Norm\(L\)\)"):
        Monitor(Norm(L)).begin(0.0, (U, U))


def test_two_of_a_name_are_told_apart():
    monitor = Monitor([Norm(L), Norm(L, Law.NON_INCREASING), Part(0, Mass(L), "u")])
    monitor.begin(0.0, U)
    assert list(monitor.values) == ["norm 1", "norm 2", "mass of u"]


def test_the_picture(tmp_path):
    monitor = Monitor(HEAT, 1e-6)
    with pytest.raises(ValueError, match="nothing was watched yet"):
        monitor.plot(tmp_path / "early.png")
    integrate(HEAT, U, [0.0, 0.1], RK4(dt=0.01), monitor=monitor)
    for name in ("curves.png", "curves"):
        monitor.plot(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size > 2000
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves", "curves.png"]


def test_gradients_do_not_feel_it():
    x0 = U.clone().requires_grad_()
    found = []
    for monitor in (None, Monitor(HEAT, 1e-6)):
        final = integrate(HEAT, x0, [0.0, 0.1], RK4(dt=0.01), monitor=monitor).final
        found.append(torch.autograd.grad(final.square().sum(), x0)[0])
    assert torch.equal(*found)


def test_refusals_name_the_cure():
    class Silent(RightHandSide):
        def forward(self, t, x):
            return x

    with pytest.raises(ValueError, match="Silent declares no invariants: name some"):
        Monitor(Silent())
    for wrong in ([], 3, [Norm], "norm", [Norm(L), 2]):
        with pytest.raises(TypeError, match="a monitor watches invariants"):
            Monitor(wrong)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance must be a number that is not negative, or None"):
            Monitor(HEAT, wrong)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="every must be a positive integer"):
            Monitor(HEAT, every=wrong)
    assert Monitor(DirichletEnergy(L)).invariants[0].name == "Dirichlet energy"


SPHERE = robust_laplacian(icosphere(1))


@pytest.mark.parametrize(("every", "count"), [(1, 7), (2, 4), (3, 3), (4, 2)])
def test_every_so_many_steps_from_the_start(every, count):
    monitor = Monitor(Heat(SPHERE), every=every)
    integrate(Heat(SPHERE), torch.randn(42, 1, dtype=torch.float64), [0.0, 0.06], RK4(dt=0.01), monitor=monitor)
    assert monitor.t == pytest.approx([0.01 * every * k for k in range(count)])


def test_a_tolerance_of_zero_lets_pass_what_stands_still():
    monitor = Monitor(Norm(SPHERE, Law.CONSERVED), 0.0)
    integrate(lambda t, x: 0 * x, torch.ones(42, 1, dtype=torch.float64), [0.0, 0.1], RK4(dt=0.01), monitor=monitor)
    assert all(check.holds for check in monitor.checks())


def test_before_a_solve_there_is_nothing_to_see():
    monitor = Monitor(Norm(SPHERE))
    assert (monitor.t, monitor.values, monitor.state) == ([], {}, None)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "said"), [(torch.float32, 1e-8, True), (torch.float32, 1e-3, False), (torch.float64, 1e-8, False)]
)
def test_a_tolerance_below_rounding_is_named_as_the_cause(dtype, tolerance, said):
    monitor = Monitor(Norm(SPHERE), tolerance)
    with pytest.raises(SolveError) as caught:
        integrate(lambda t, x: x, torch.ones(42, 1, dtype=dtype), [0.0, 0.1], RK4(dt=0.01), monitor=monitor)
    assert ("raise the tolerance, or use float64" in str(caught.value)) == said
