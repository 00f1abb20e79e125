"""Right-hand sides are finite, of the state's form, split as they declare, on every kind of domain, and shrink to one term."""

from functools import cache

import pytest
import torch
from drawing import drawn, least, shares
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.state import parts_of
from neuralpde.heat import Heat
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.rhs import FromFunction, Scaled, Sum
from neuralpde.testing_equations import Growth, domains, knn_laplacian, laplacian_of, right_hand_sides
from neuralpde.testing_fields import states, times
from neuralpde.testing_motions import permutations, permuted
from neuralpde.testing_points import point_clouds
from neuralpde.waves import Wave
from operators import Graph, Grid, PointCloud, TriangleMesh, icosphere


@cache
def composed(parts):
    return drawn(right_hand_sides(icosphere(0), parts=parts), 60)


def kinds(f):
    terms = f.summands if isinstance(f, Sum) else [f]
    inner = [term.rhs if isinstance(term, Scaled) else term for term in terms]
    return [type(f), *map(type, terms), *map(type, inner)]


@pytest.mark.parametrize(
    ("parts", "kind"),
    [*[(1, kind) for kind in (Heat, Growth, AllenCahn, CahnHilliard)], (2, Wave)]
    + [(parts, kind) for parts in (1, 2) for kind in (Sum, Scaled, FromFunction)],
)
def test_every_equation_and_composition_occurs_in_a_tenth(parts, kind):
    assert shares(composed(parts), kinds)[kind] >= 0.1


def test_every_kind_of_domain_occurs_in_a_tenth():
    found = shares(drawn(domains(), 100), lambda domain: [type(domain)])
    assert set(found) == {Graph, TriangleMesh, Grid, PointCloud}
    assert min(found.values()) >= 0.1


@settings(max_examples=25)
@given(data=st.data(), parts=st.sampled_from([1, 2]))
def test_they_are_finite_of_the_states_form_and_split_as_declared(data, parts):
    domain = data.draw(domains())
    f = data.draw(right_hand_sides(domain, parts=parts))
    x, t = data.draw(states(domain, 2, parts=parts, exact=True)), data.draw(times())[0]
    slope = f(t, x)
    assert isinstance(slope, tuple) == (parts == 2)
    for part, of_x in zip(parts_of(slope), parts_of(x), strict=True):
        assert part.shape == of_x.shape
        assert part.dtype == of_x.dtype
        assert bool(torch.isfinite(part).all())
    if f.linear is not None:
        linear = parts_of(f.linear @ x)
        rest = parts_of(f.nonlinear(t, x)) if f.nonlinear is not None else [torch.zeros(())] * len(linear)
        for one, other, whole in zip(linear, rest, parts_of(slope), strict=True):
            # Cubes of 8, times the fastest rate, in a few terms.
            torch.testing.assert_close(one + other, whole, rtol=1e-12, atol=1e-9)
        assert f.linear.norm_bound() <= 2 * 3 * 4.0 * 4


@settings(max_examples=15)
@given(data=st.data())
def test_they_move_to_another_domain_of_the_kind(data):
    domain = data.draw(domains().filter(lambda domain: not isinstance(domain, (Grid, TriangleMesh, PointCloud))))
    f = data.draw(right_hand_sides(domain))
    p = data.draw(permutations(domain.num_nodes))
    x, t = data.draw(states(domain, exact=True)), torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(f.on(permuted(domain, p))(t, x[p]), f(t, x)[p], rtol=1e-12, atol=1e-9)


def test_learned_ones_have_gradients():
    for f in drawn(right_hand_sides(icosphere(0), learn=True), 20):
        learned = [p for p in f.parameters() if p.requires_grad]
        if kinds(f) != [FromFunction] * 3:
            assert learned
            x = torch.randn(12, 1, dtype=torch.float64)
            f(torch.tensor(0.5), x).square().sum().backward()
            assert all(p.grad is not None for p in learned)


def test_laplacians_of_every_domain():
    for cloud in drawn(point_clouds(min_points=2, max_points=8), 20):
        L = knn_laplacian(cloud)
        assert L.shape == (cloud.num_nodes,) * 2
        assert torch.equal(L.on(cloud).stiffness.values, L.stiffness.values)
    L = laplacian_of(icosphere(0))
    assert laplacian_of(L) is L
    with pytest.raises(TypeError, match="int is no domain"):
        laplacian_of(3)
    with pytest.raises(ValueError, match="one or two parts, not 3"):
        drawn(right_hand_sides(icosphere(0), parts=3), 1)


def test_shrinking_leaves_one_plain_term():
    assert type(least(right_hand_sides(icosphere(0)), lambda f: True)) is Heat
    wave = least(right_hand_sides(icosphere(0), parts=2), lambda f: True)
    assert type(wave) is Wave
    assert float(wave.damping) == float(wave.mass) == 0
    pair = least(right_hand_sides(icosphere(0)), lambda f: isinstance(f, Sum))
    assert list(map(type, pair.summands)) == [Heat, Heat]
    scaled = least(right_hand_sides(icosphere(0)), lambda f: Scaled in kinds(f))
    assert type(scaled) is Scaled
    assert type(scaled.rhs) is Heat


def test_domains_shrink_to_the_least_of_a_kind():
    assert least(domains(), lambda domain: True).num_nodes == 3, "a triangle takes the fewest choices"
    assert least(domains(), lambda domain: isinstance(domain, Graph)).nodes == 1
    assert least(domains(), lambda domain: isinstance(domain, Grid)).num_nodes == 1
    assert least(domains(), lambda domain: isinstance(domain, PointCloud)).points.tolist() == [[0, 0], [0, 1]]
