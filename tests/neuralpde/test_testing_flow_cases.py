"""States are drawn in the form that an equation takes, on domains of the kind that its builder names."""

import torch

from neuralpde.heat import Heat
from neuralpde.testing_flow_cases import FlowCase, flow_cases, flow_domains
from neuralpde.testing_search import is_strategy
from neuralpde.waves import Wave
from operators import combinatorial_laplacian, cotangent_laplacian, icosphere


def test_a_field_for_heat_a_pair_for_waves_and_any_for_an_operator():
    L = cotangent_laplacian(icosphere(0))
    (heat, *_), (wave, *_), (operator, *_) = flow_cases(Heat(L)), flow_cases(Wave(L)), flow_cases(L)
    assert heat.x.shape == (12, 2)
    assert [part.shape for part in wave.x] == [(12, 1), (12, 1)]
    assert torch.equal(operator.f(operator.t, operator.x), L @ operator.x)
    assert heat.noise > 0
    assert heat.rate > 1
    assert "x = [[" in heat.told()


def test_the_same_seed_gives_the_same_case_and_states_can_be_given():
    L = combinatorial_laplacian(icosphere(0).graph())
    one, other = FlowCase(Heat(L), None, None, 3), FlowCase(Heat(L), None, None, 3)
    assert torch.equal(one.x, other.x)
    given = FlowCase(Heat(L), None, None, 3, lambda f, domain, generator: torch.full((12, 1), 2.0, dtype=torch.float64))
    assert bool((given.x == 2).all())


def test_builders_on_laplacians_are_drawn_graphs_and_surfaces():
    assert is_strategy(flow_cases(Heat))
    assert is_strategy(flow_domains(Heat))
    (case, *_) = flow_cases(Heat, icosphere(0))
    assert case.f.laplacian.recipe is cotangent_laplacian
