"""`assert_right_hand_side` and `assert_equivariant`: what a right-hand side declares, held against drawn domains and states."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch

from integrators import Dopri5, SolveError, State, integrate
from integrators.state import parts_of, state_map, subtract
from neuralpde.invariants import Law
from neuralpde.symmetry import Symmetry
from neuralpde.testing_bounds import roundoff
from neuralpde.testing_cases import cases, is_builder
from neuralpde.testing_flow_cases import FlowCase, States, flow_cases
from neuralpde.testing_flows import ACCURATE, along
from neuralpde.testing_measured import Measured, fact, worst_of
from neuralpde.testing_operators import equivariant, hold, shuffled
from neuralpde.testing_search import Search, is_strategy, words
from neuralpde.testing_states import largest, nudge, rounding, same_form
from operators import Domain, DomainError, FieldError, Graph, Operator, TriangleMesh

FlowLaw = Callable[[FlowCase], Measured | None]


def assert_right_hand_side(
    f: Any,
    domain: Any = None,
    *,
    states: States | None = None,
    without: Collection[FlowLaw] = (),
    search: Search = Search(),  # noqa: B008 (frozen)
) -> Measured:
    """Assert what every right-hand side promises, and what this one declares.

    The laws: shape and dtype of the state kept, input untouched, batch = loop, linear + nonlinear = forward, the linear part's
    solve inverts it, declared invariants hold at once (dI/dt from the gradient of I) and along a short path, declared
    symmetries hold, and `.on` another domain shares the parameters and comes back.

    Tolerance: 64 times what one unit round-off in the state makes of f (measured by nudges); on the path 100 rtol = 1e-6 of
    the magnitudes that the invariant accumulates, over a quarter of the time of the fastest mode.

    Args:
        f: a right-hand side, or a function of a domain (or of a Laplacian) that gives one.
        domain: a strategy or one domain; by default what the annotation of f's first argument names.
        states: a function of (f, domain, generator) that gives a state; by default small numbers of both signs, of as many
            parts and channels as f takes.
        without: laws that this one does not promise.
        search: how many examples, and where a counter-example is saved.

    Returns:
        The law nearest to its tolerance; float() of it is the error in units of the tolerance.

    Raises:
        LawBrokenError: an AssertionError; the shrunk counter-example and its file are in the message.
    """
    __tracebackhide__ = True
    laws = [law for law in FLOW_LAWS if law not in set(without)]
    return hold(f, laws, flow_cases(f, domain, states), search)


def assert_equivariant(
    build: Any,
    symmetry: Symmetry,
    domain: Any = None,
    *,
    states: States | None = None,
    search: Search = Search(),  # noqa: B008 (frozen)
) -> Measured:
    """Assert A(g domain) g x = g A(domain) x for drawn motions g: `Permutation()`, `RigidMotion()`, or one of your own.

    Tolerance: of a linear operator 32 u (128 u under a motion of positions) of the magnitudes accumulated, times the aspect
    of the triangles; of a right-hand side 64 times what one unit round-off in state and positions makes of it.

    Args:
        build: a function of a domain that gives an operator, a matrix or a right-hand side; or a right-hand side, which is
            moved by `.on(domain)`.
        domain, states, search: as of `assert_right_hand_side`.

    Raises:
        LawBrokenError: an AssertionError; the shrunk counter-example and its file are in the message.
    """
    __tracebackhide__ = True
    if is_builder(build) and not _gives_flow(build, domain):
        return hold(build, [_named(lambda case: equivariant(case, symmetry), symmetry)], cases(build, domain), search)
    law = _named(lambda case: commutes(case, symmetry, _rebuilt), symmetry)
    return hold(build, [law], flow_cases(build, domain, states), search)


def gives_the_form_of_its_state(case: FlowCase) -> Measured:
    """f(t, x) has the shapes and dtypes of x, and is finite."""
    slope, name = case.f(case.t, case.x), words(gives_the_form_of_its_state)
    if not same_form(slope, case.x):
        shapes = [getattr(part, "shape", type(part).__name__) for part in (slope if isinstance(slope, tuple) else (slope,))]
        kinds = [getattr(part, "dtype", "") for part in (slope if isinstance(slope, tuple) else (slope,))]
        return fact(name, False, f"f(t, x) gives {shapes} {kinds} for a state {told_form(case.x)}")
    return fact(name, all(bool(torch.isfinite(part).all()) for part in parts_of(slope)), "f(t, x) is not finite for a finite x")


def leaves_its_state_alone(case: FlowCase) -> Measured:
    """f(t, x) does not write into x."""
    x = state_map(lambda part: part.clone(), case.x)
    case.f(case.t, x)
    same = all(torch.equal(a, b) for a, b in zip(parts_of(x), parts_of(case.x), strict=True))
    return fact(words(leaves_its_state_alone), same, "x is changed by f(t, x): write x = x + … instead of x += …")


def a_batch_of_states_is_a_loop(case: FlowCase) -> Measured:
    """f of a batch of states is the batch of f of each."""
    f, name = case.f, words(a_batch_of_states_is_a_loop)
    batch = state_map(lambda *parts: torch.stack(parts), case.x, case.y)
    expected = state_map(lambda *parts: torch.stack(parts), f(case.t, case.x), f(case.t, case.y))
    found = f(case.t, batch)
    if not same_form(found, expected):
        return fact(name, False, f"f of a batch {told_form(batch)} has another form")
    noise = max(case.noise, rounding(lambda x: f(case.t, x), case.y))
    return _near(name, found, expected, noise)


def linear_plus_nonlinear_is_forward(case: FlowCase) -> Measured | None:
    """f(t, x) = G x + N(t, x), with G and N as declared."""
    f, x = case.f, case.x
    if f.linear is None:
        return None
    first = f.linear @ x
    total = first if f.nonlinear is None else state_map(torch.add, first, f.nonlinear(case.t, x))
    noise = case.noise + rounding(lambda z: f.linear @ z, x) + roundoff(parts_of(x)[0].dtype) * largest(first)
    return _near(words(linear_plus_nonlinear_is_forward), total, f(case.t, x), noise)


def the_linear_part_solves(case: FlowCase) -> Measured | None:
    """(I − s G) y = b for y = G.solve(s, b)."""
    G, b = case.f.linear, case.x
    if G is None:
        return None
    s = torch.tensor(0.5 / max(float(G.norm_bound()), 1e-3), dtype=torch.float64)
    try:
        y = G.solve(s, b)
    except NotImplementedError:
        return None
    back = state_map(lambda part, slope: part - (s * slope).to(part.dtype), y, G @ y)
    u = roundoff(parts_of(b)[0].dtype)
    return _near(words(the_linear_part_solves), back, b, u * (largest(y) + largest(b)) + float(s) * rounding(lambda z: G @ z, y))


def declared_invariants_hold_at_once(case: FlowCase) -> Measured | None:
    """dI/dt = ⟨∇I, f⟩ is zero, or has the declared sign, at a state; in units of the fastest rate."""
    found = [_rate(case, invariant) for invariant in case.f.invariants]
    return worst_of(found)


def declared_invariants_hold_along_a_path(case: FlowCase) -> Measured | None:
    """The declared law holds on an accurate path, a quarter as long as the fastest mode takes."""
    f = case.f
    if not f.invariants:
        return None
    with torch.no_grad():
        end = 0.25 / max(case.rate, 1e-2)
        size = max(largest(case.x), 1e-3)
        times = [k * end / 4 for k in range(5)]
        tolerance = ACCURATE if parts_of(case.x)[0].real.dtype == torch.float64 else 1e-6
        try:
            path = integrate(f, case.x, times, Dopri5(rtol=tolerance, atol=tolerance * size, max_nfe=3000)).x
        except SolveError as error:
            return fact(words(declared_invariants_hold_along_a_path), False, f"the short path could not be solved: {error}")
    found = []
    for invariant in f.invariants:
        try:
            found.append(along(invariant, path, solved=True))
        except FieldError:  # a quotient of a zero field
            continue
    return worst_of(found)


def declared_symmetries_hold(case: FlowCase) -> Measured | None:
    """f.on(g domain)(t, g x) = g f(t, x) for every declared symmetry."""
    if not isinstance(case.domain, Domain):
        return None
    return worst_of([commutes(case, symmetry, _moved) for symmetry in case.f.symmetries])


def another_domain_shares_the_parameters(case: FlowCase) -> Measured | None:
    """f.on(other) has the parameters of f themselves, and f.on(other).on(domain) is f."""
    f, name = case.f, words(another_domain_shares_the_parameters)
    if not isinstance(case.domain, Domain):
        return None
    generator = torch.Generator().manual_seed(case.seed)
    other = case.other
    if type(other) is not type(case.domain):  # none, or built on the Laplacian of either
        if not isinstance(case.domain, (Graph, TriangleMesh)):
            return None
        other = shuffled(case.domain, generator)
    try:
        g = f.on(other)
    except NotImplementedError:
        return None
    mine, theirs = dict(f.named_parameters()), dict(g.named_parameters())
    if mine.keys() != theirs.keys() or any(mine[key] is not theirs[key] for key in mine):
        wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) is not theirs.get(key))
        return fact(name, False, f"f.on(domain) has a parameter of its own: {', '.join(wrong)}")
    there = case.state(g, other, case.seed)
    if not same_form(g(case.t, there), there):
        return fact(name, False, "f.on(domain) still works on the nodes of the first domain")
    return _near(name, g.on(case.domain)(case.t, case.x), f(case.t, case.x), case.noise)


def commutes(case: FlowCase, symmetry: Symmetry, onto: Callable[[FlowCase, Any], Any]) -> Measured | None:
    """f on a moved domain, of a moved state, is the moved slope; `onto` puts it on another domain."""
    domain, f = case.domain, case.f
    generator = torch.Generator().manual_seed(case.seed)
    try:
        motion = symmetry.draw(domain, generator)
        moved = shuffled(symmetry.domain(motion, domain), generator)
    except DomainError:
        return None
    there = onto(case, moved)
    found = there(case.t, symmetry.field(motion, case.x))
    expected = symmetry.field(motion, f(case.t, case.x))
    noise = case.noise
    if not isinstance(domain, Graph):
        # The moved positions are rounded too, at their own distance from the origin.
        noise += (1 + _reach(moved) / _reach(domain)) * _geometric_noise(case, domain, onto)
    return _near(f"equivariant under {type(symmetry).__name__}", found, expected, noise)


def told_form(x: State) -> str:
    """The shapes and dtypes of a state."""
    return ", ".join(f"{list(part.shape)} {str(part.dtype).removeprefix('torch.')}" for part in parts_of(x))


FLOW_LAWS: tuple[FlowLaw, ...] = (
    gives_the_form_of_its_state,
    leaves_its_state_alone,
    a_batch_of_states_is_a_loop,
    linear_plus_nonlinear_is_forward,
    the_linear_part_solves,
    declared_invariants_hold_at_once,
    declared_invariants_hold_along_a_path,
    declared_symmetries_hold,
    another_domain_shares_the_parameters,
)
"""The laws of `assert_right_hand_side`, in its order."""


def _near(name: str, found: State, expected: State, noise: float) -> Measured:
    rule = "64 times what one unit round-off in the state makes of f"
    return Measured(name, largest(subtract(found, expected)), 64 * noise, rule)


def _rate(case: FlowCase, invariant: Any) -> Measured | None:
    x = state_map(lambda part: part.detach().clone().requires_grad_(), case.x)
    wide = state_map(lambda part: part.to(torch.complex128 if part.is_complex() else torch.float64), x)
    try:
        values = invariant.measure(wide)
        scale = float(invariant.scale(wide).detach().max())
    except FieldError:  # a quotient of a zero field
        return None
    with torch.no_grad():
        slope = case.f(case.t, case.x)
    u = roundoff(parts_of(case.x)[0].dtype)
    rule = "64 u Σ |∂I/∂x_i| |f_i|, with the round-off of f, and of I over the fastest time"
    found = []
    for value in values.reshape(-1):
        gradients = torch.autograd.grad(value.real, parts_of(x), retain_graph=True, allow_unused=True)
        if any(g is not None and not bool(torch.isfinite(g).all()) for g in gradients):
            continue  # such as log 0 in an entropy
        pairs = [(g, s) for g, s in zip(gradients, parts_of(slope), strict=True) if g is not None]
        change = sum(float((g.conj() * s).real.sum()) for g, s in pairs)
        size = sum(float((g.abs() * s.abs()).sum()) + case.noise / u * float(g.abs().sum()) for g, s in pairs)
        law = invariant.law
        excess = abs(change) if law is Law.CONSERVED else max(change if law is Law.NON_INCREASING else -change, 0.0)
        found.append(Measured(f"{invariant.name}: {law.value}, at once", excess, 64 * u * (size + case.rate * scale), rule))
    return worst_of(found)


def _moved(case: FlowCase, domain: Any) -> Any:
    """f on another domain, by `.on`, which carries its parameters along; built again where that is not known."""
    try:
        return case.f.on(domain)
    except NotImplementedError:
        return _rebuilt(case, domain)


def _rebuilt(case: FlowCase, domain: Any) -> Any:
    """f on another domain, by its builder, with the same random numbers; by `.on` where there is none."""
    return replace(case, domain=domain).f if is_builder(case.build) else case.f.on(domain)


def _geometric_noise(case: FlowCase, domain: Any, onto: Callable[[FlowCase, Any], Any]) -> float:
    """What one unit round-off in the positions makes of f(t, x)."""
    name = "vertices" if isinstance(domain, TriangleMesh) else "points"
    positions = getattr(domain, name, None)
    if positions is None:
        return 0.0
    generator = torch.Generator().manual_seed(3)
    nudged = replace(domain, **{name: positions + nudge(positions, generator)})
    change = subtract(onto(case, nudged)(case.t, case.x), case.f(case.t, case.x))
    return 4 * largest(change) / 2.0**20


def _reach(domain: Any) -> float:
    positions = getattr(domain, "vertices", getattr(domain, "points", None))
    return 1.0 if positions is None else float(positions.detach().abs().max().clamp(min=1e-300))


def _named(law: Any, symmetry: Symmetry) -> Any:
    law.__name__ = f"equivariant_under_{type(symmetry).__name__}"
    return law


def _gives_flow(build: Any, domain: Any) -> bool:
    """Whether a builder gives a right-hand side: tried on one small domain of its kind."""
    from neuralpde.testing_samples import sample

    made = build(domain if domain is not None and not is_strategy(domain) else sample(build))
    return not isinstance(made, Operator) and callable(made) and not isinstance(made, torch.Tensor)
