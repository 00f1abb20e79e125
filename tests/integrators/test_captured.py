"""What a right-hand side reaches: each tensor is found once, as near as it can be, and a late one is noticed."""

import functools

import pytest
import torch

from integrators.captured import Known, Surroundings, captured_tensors, quiet, reached_tensors

X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
NOW = torch.tensor(0.0, dtype=torch.float64)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def reached(f, x0=X0):
    found, around = reached_tensors(f, NOW, x0)
    return {id(part) for part in found}, around, found


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Parameter(torch.eye(2, dtype=torch.float64))
        self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, x):
        return self.gain * torch.tanh(self.mix @ x)


class Nested(Network):
    """Holds a tensor computed from its own parameter, and uses both."""

    def __init__(self):
        super().__init__()
        self.double = 2 * self.gain

    def forward(self, t, x):
        return -self.double * (self.mix @ x) + torch.tanh(self.gain * x)


def test_parameters_are_each_found_once():
    f = Nested()
    ids, around, found = reached(f)
    assert ids == {id(f.mix), id(f.gain)}
    assert len(found) == 2
    assert around.shared  # the gradient in gain passes through the history of double


def test_frozen_parameters_the_state_and_the_time_are_left_out():
    f = Network()
    f.gain.requires_grad_(False)
    assert reached(f)[0] == {id(f.mix)}
    assert reached(lambda t, x: -t * x, leaf(X0))[2] == []


def test_they_are_found_without_gradients_enabled():
    a = leaf(0.7)
    with torch.no_grad():
        assert reached(lambda t, x: -a * x)[0] == {id(a)}


def test_a_tensor_computed_outside_is_found_itself():
    log_a = leaf(-0.3)
    a = log_a.exp()
    ids, around, _ = reached(lambda t, x: -a * x)
    assert ids == {id(a)}
    assert not around.shared
    assert around.evaluations == 2
    assert reached(lambda t, x: a * X0)[0] == {id(a)}


def test_one_returned_as_it_is_is_found_itself():
    c = 2 * leaf(X0)
    assert reached(lambda t, x: c)[0] == {id(c)}
    d = leaf(X0)
    assert reached(lambda t, x: d)[0] == {id(d)}


def test_views_and_several_outputs_of_one_operation_are_found_themselves():
    W = leaf(torch.ones(3, 2, 2))
    a, b = (2 * W).unbind(0)[:2]
    view = W[1].T
    assert reached(lambda t, x: a @ x - b @ x + view @ x)[0] == {id(a), id(b), id(view)}


@pytest.mark.parametrize("both", [False, True])
def test_relatives_are_replaced_by_the_leaves_behind_them(both):
    log_a = leaf(-0.3)
    a = log_a.exp()
    b = 2 * a if both else log_a
    ids, around, _ = reached(lambda t, x: -a * x + b * x**2)
    assert ids == {id(log_a)}
    assert around.shared


def test_parameters_behind_methods_partials_and_closures_are_found_before_they_are_reached():
    f = Network()

    def late(t, x):
        return f(t, x) if t > 0.5 else -x

    def scaled(net, t, x):
        return net(t, x) if t > 0.5 else -x

    for g in (late, f.forward, functools.partial(scaled, f), functools.wraps(f.forward)(lambda t, x: -x)):
        assert reached(g)[0] == {id(f.mix), id(f.gain)}


def test_the_linear_part_is_searched_too():
    a = leaf(0.7)

    class Linear:
        @property
        def linear(self):
            return a * torch.eye(2, dtype=torch.float64)

        def __call__(self, t, x):
            return a.detach() * x

    assert reached(Linear())[0] == {id(a)}


def test_the_search_draws_no_random_number_for_good():
    before = torch.get_rng_state()
    _, around, _ = reached(lambda t, x: torch.rand_like(x))
    assert around.random
    assert torch.equal(before, torch.get_rng_state())
    assert not reached(lambda t, x: -x)[1].random


def test_surroundings_come_back_as_they_were():
    with torch.autocast("cpu", torch.bfloat16):
        around = Surroundings(torch.device("cpu"))
    assert not torch.is_autocast_enabled("cpu")
    around.random, before = True, torch.get_rng_state()
    with around.again():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        torch.rand(3)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_a_tensor_that_was_not_known_is_noticed():
    a, b, x = leaf(0.7), leaf(0.2), leaf(X0)
    outside = a.exp()
    Known([a]).require([a * x], [x])
    Known([a]).require([outside * x], [x])
    Known([outside]).require([outside * x], [x])
    Known([outside]).require([2 * outside * x], [x])
    for known, root in (([a], b * x), ([a], b), ([outside], a * x), ([], outside * x)):
        with pytest.raises(RuntimeError, match=r"did not reach when the solve began.*make it a parameter.*Direct\(\)"):
            Known(known).require([root], [x])
    Known([]).require([x.detach()], [])


def test_hooks_are_quiet_and_come_back():
    a, seen = leaf(0.7), []
    b = a.exp()
    b.retain_grad()
    a.register_hook(lambda g: seen.append(1))
    b.register_hook(lambda g: seen.append(2))
    with quiet([a, b]):
        torch.autograd.grad(b * a, [a, b], retain_graph=True)
        assert seen == []
    assert b.grad is None
    torch.autograd.grad(b * a, [a, b])
    assert sorted(seen) == [1, 2]


def test_captured_tensors_alone():
    a, x = leaf(0.7), leaf(X0)
    found, shared = captured_tensors(lambda: [a * x, (a + 1) * x], [x], None)
    assert [id(part) for part in found] == [id(a)]
    assert not shared
