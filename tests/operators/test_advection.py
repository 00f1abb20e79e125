"""Advection keeps totals on any domain, positive fields positive below the Courant bound, and the norm where centred."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import Hardness, assert_within, fields, graphs, meshes, roundoff
from operators import Boundary, FieldError, Graph, Grid, SingularMatrixError, icosphere
from operators.advection import AdvectionOperator, Flux, limited_advection
from operators.cell_sides import cell_sides

U = roundoff(torch.float64)
LINEAR = [Flux.UPWIND, Flux.CENTRED]
ORIENTED = [Hardness.BOUNDARY, Hardness.NON_MANIFOLD, Hardness.NON_ORIENTABLE, Hardness.FLIPPED]
few = settings(max_examples=12)


def drawn(data):
    """The sides of a surface or a graph, with flows of any size."""
    if data.draw(st.booleans()):
        sides = cell_sides(data.draw(meshes()))
        return sides, sides.flows(data.draw(fields(sides.mass.numel(), sides.axes)))
    sides = cell_sides(data.draw(graphs(directed=True)))
    return sides, data.draw(fields(sides.count, 1))[:, 0]


def rate(sides, flows, flux, u, conservative=True):
    if flux is Flux.LIMITED:
        return limited_advection(sides, flows, u, conservative=conservative) / sides.mass[:, None]
    return AdvectionOperator(sides, flows, flux, conservative=conservative) @ u


def magnitude(sides, flows, u):
    """Σ_j |F_ij| max |u| / m_i, what a node accumulates at most, twice over."""
    return 2 * (sides.sizes(flows) / sides.mass)[:, None] * u.abs().amax()


@pytest.mark.parametrize("flux", list(Flux))
@few
@given(data=st.data())
def test_the_total_stays(flux, data):
    sides, flows = drawn(data)
    u = data.draw(fields(sides.mass.numel(), 2))
    size = (sides.mass[:, None] * magnitude(sides, flows, u)).sum()
    assert_within((sides.mass[:, None] * rate(sides, flows, flux, u)).sum(0), 0.0, 32 * U * size)


@pytest.mark.parametrize("flux", list(Flux))
@few
@given(data=st.data())
def test_the_advective_form_keeps_constants_and_differs_by_the_divergence(flux, data):
    sides, flows = drawn(data)
    u = data.draw(fields(sides.mass.numel(), 2))
    constant = torch.full_like(u, 0.7)
    bound = 32 * U * magnitude(sides, flows, torch.cat([u, constant]))
    assert_within(rate(sides, flows, flux, constant, False), 0.0, bound)
    difference = rate(sides, flows, flux, u, False) - rate(sides, flows, flux, u)
    assert_within(difference, sides.divergence(flows)[:, None] * u, bound)


@pytest.mark.parametrize("flux", [Flux.UPWIND, Flux.LIMITED])
@few
@given(data=st.data())
def test_below_the_courant_bound_a_positive_field_stays_positive(flux, data):
    sides, flows = drawn(data)
    u = data.draw(fields(sides.mass.numel(), 1)).abs()
    step = AdvectionOperator(sides, flows).largest_step()
    step = min(step if flux is Flux.UPWIND else step / 2, 1e6)
    new = u + step * rate(sides, flows, flux, u)
    assert_within(new.clamp(max=0), 0.0, 32 * U * (u + step * magnitude(sides, flows, u)))


@pytest.mark.parametrize("flux", [Flux.UPWIND, Flux.LIMITED])
@few
@given(data=st.data())
def test_below_the_courant_bound_no_new_extrema_appear_without_divergence(flux, data):
    mesh = data.draw(meshes(never=ORIENTED))
    sides = cell_sides(mesh)
    flows = sides.stream(data.draw(fields(mesh.num_nodes, 1)))
    u = data.draw(fields(mesh.num_nodes, 1))
    step = min(AdvectionOperator(sides, flows).largest_step() * (1.0 if flux is Flux.UPWIND else 0.5), 1e6)
    new = u + step * rate(sides, flows, flux, u)
    slack = 64 * U * (u.abs() + step * magnitude(sides, flows, u))
    assert_within((new - u.max()).clamp(min=0), 0.0, slack)
    assert_within((u.min() - new).clamp(min=0), 0.0, slack)


def test_beyond_the_courant_bound_a_positive_field_does_not_stay_positive():
    sides = cell_sides(icosphere(1))
    p = icosphere(1).vertices
    operator = AdvectionOperator(sides, sides.stream(p[:, 2]))
    worst = int(operator.diagonal().argmin())
    u = torch.zeros(42, 1, dtype=torch.float64)
    u[worst] = 1.0
    assert float((u + 1.01 * operator.largest_step() * (operator @ u)).min()) < -0.005
    assert float((u + operator.largest_step() * (operator @ u)).min()) > -1e-12
    assert AdvectionOperator(sides, operator.flows, Flux.CENTRED).largest_step() == 0.0
    assert AdvectionOperator(sides, 0 * operator.flows).largest_step() == float("inf")


@few
@given(data=st.data())
def test_the_centred_flux_changes_the_norm_by_the_divergence_alone(data):
    sides, flows = drawn(data)
    u = data.draw(fields(sides.mass.numel(), 1))
    A = AdvectionOperator(sides, flows, Flux.CENTRED)
    # ⟨u, A u⟩ = −½ Σ m_i div b_i u_i².
    expected = -0.5 * (sides.mass * sides.divergence(flows) * u[:, 0] ** 2).sum()
    size = (sides.mass[:, None] * magnitude(sides, flows, u) * u.abs().amax()).sum()
    assert_within(A.inner(u, A @ u), expected, 32 * U * size)


@pytest.mark.parametrize("conservative", [True, False])
@pytest.mark.parametrize("flux", LINEAR)
@few
@given(data=st.data())
def test_the_adjoint_and_the_norm_bound(flux, conservative, data):
    sides, flows = drawn(data)
    n = sides.mass.numel()
    A = AdvectionOperator(sides, flows, flux, conservative=conservative)
    x, y = data.draw(fields(n, 1, exact=True)), data.draw(fields(n, 1, exact=True))
    size = (sides.mass[:, None] * magnitude(sides, flows, x) * y.abs().amax()).sum()
    assert_within(A.inner(y, A @ x), A.inner(A.adjoint() @ y, x), 64 * U * size)
    root = sides.mass.sqrt()
    similar = root[:, None] * A.matrix() / root
    assert float(torch.linalg.matrix_norm(similar, 2)) <= A.norm_bound() * (1 + 1e-12)


@pytest.mark.parametrize("conservative", [True, False])
@pytest.mark.parametrize("flux", LINEAR)
def test_open_walls_lose_what_leaves_and_bring_nothing(flux, conservative):
    sides = cell_sides(Grid(4, 0.5, Boundary.DIRICHLET))
    flows = sides.flows(torch.tensor([[2.0]], dtype=torch.float64))
    A = AdvectionOperator(sides, flows, flux, conservative=conservative)
    # A constant velocity has no divergence, so both forms are one.
    upwind = np.diag([-4.0] * 4) + np.diag([4.0] * 3, -1)
    centred = np.diag([2.0] * 3, -1) - np.diag([2.0] * 3, 1)
    assert_within(A.matrix(), torch.from_numpy(upwind if flux is Flux.UPWIND else centred), 16 * U * 4)
    assert_within(A.adjoint().matrix(), A.matrix().T, 16 * U * 4)
    if flux is Flux.UPWIND:
        u = torch.ones(4, 1, dtype=torch.float64)
        assert_within(limited_advection(sides, flows, u)[:, 0], torch.tensor([-2.0, 0, 0, 0], dtype=torch.float64), 16 * U)


def test_limited_fluxes_on_a_line_are_those_of_van_leer():
    n, h = 40, 0.25
    sides = cell_sides(Grid(n, h, Boundary.PERIODIC))
    u = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for speed in (1.5, -0.7):
        flows = sides.flows(torch.tensor(speed, dtype=torch.float64))
        # Sweby 1984: u_i + ½ φ(r) (u_{i+1} − u_i), φ = (r + |r|) / (1 + |r|).
        w = u if speed > 0 else u.flip(0)
        rise, before = w.roll(-1) - w, w - w.roll(1)
        r = before / rise
        face = w + 0.5 * (r + r.abs()) / (1 + r.abs()) * rise
        expected = -abs(speed) * (face - face.roll(1)) / h
        expected = expected if speed > 0 else expected.flip(0)
        assert_within(limited_advection(sides, flows, u[:, None])[:, 0] / h, expected, 1e-12)


@pytest.mark.parametrize("flux", LINEAR)
def test_solves_invert_and_have_gradients(flux):
    sides = cell_sides(icosphere(0))
    generator = torch.Generator().manual_seed(0)
    flows = torch.randn(sides.count, dtype=torch.float64, generator=generator)
    b = torch.randn(12, 2, dtype=torch.float64, generator=generator)
    A = AdvectionOperator(sides, flows, flux)
    for s in (0.0, 0.3, 2.0, 0.2 + 0.5j):
        shift = torch.tensor(s)
        y = A.solve(shift, b.to(torch.complex128) if isinstance(s, complex) else b)
        assert_within(y - shift * (A @ y), b, 1e-12)
    with pytest.raises(SingularMatrixError, match="finite"):
        A.solve(torch.tensor(float("nan")), b)

    def through(flows, s):
        return AdvectionOperator(sides, flows, flux).solve(s, b)

    inputs = (flows.clone().requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(through, inputs)


@pytest.mark.parametrize("flux", list(Flux))
def test_rates_have_gradients_in_flows_and_field(flux):
    sides = cell_sides(icosphere(0))
    generator = torch.Generator().manual_seed(1)
    flows = torch.randn(sides.count, dtype=torch.float64, generator=generator, requires_grad=True)
    u = torch.randn(12, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda F, v: rate(sides, F, flux, v), (flows, u))


@pytest.mark.parametrize("flux", list(Flux))
def test_a_batch_of_flows_and_fields_is_a_loop(flux):
    sides = cell_sides(Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]), 3, torch.ones(4, dtype=torch.float64)))
    generator = torch.Generator().manual_seed(2)
    flows = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    u = torch.randn(5, 3, 2, dtype=torch.float64, generator=generator)
    together = rate(sides, flows, flux, u)
    assert_within(together, torch.stack([rate(sides, F, flux, v) for F, v in zip(flows, u, strict=True)]), 1e-14)


def test_precision_copies_and_complex_fields():
    sides = cell_sides(icosphere(1))
    flows = sides.stream(icosphere(1).vertices[:, 0])
    A = AdvectionOperator(sides, flows)
    u = torch.randn(42, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for twin in (copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert torch.equal(twin @ u, A @ u)
    assert_within((A @ (u + 2j * u)).imag, 2 * (A @ u), 1e-13)
    single = copy.deepcopy(A).to(torch.float32)
    assert (single @ u.float()).dtype == torch.float32
    assert_within(single @ u.float(), A @ u, 32 * roundoff(torch.float32) * magnitude(sides, flows, u))
    assert_within(single.solve(0.1, u.float()), A.solve(0.1, u), 1e-5)


def test_what_cannot_be_is_refused():
    sides = cell_sides(icosphere(0))
    with pytest.raises(FieldError, match=r"\(\.\.\., 30\)"):
        AdvectionOperator(sides, torch.ones(12, dtype=torch.float64))
    with pytest.raises(ValueError, match="Advection"):
        AdvectionOperator(sides, torch.ones(30, dtype=torch.float64), Flux.LIMITED)


@pytest.mark.parametrize("walls", [Boundary.NEUMANN, Boundary.DIRICHLET])
def test_limited_transport_of_eight_times_as_much_is_eight_times_as_much(walls):
    """The limiter looks at ratios alone, and open walls carry what is there; powers of two are exact."""
    sides = cell_sides(Grid((6, 5), 0.25, walls))
    flows = sides.flows(torch.randn(30, 2, dtype=torch.float64))
    u = torch.randn(30, 2, dtype=torch.float64)
    assert torch.equal(limited_advection(sides, flows, 8 * u), 8 * limited_advection(sides, flows, u))
