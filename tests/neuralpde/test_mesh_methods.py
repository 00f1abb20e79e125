"""The rows of every table."""

import pytest

from neuralpde.heat_data import Truth
from neuralpde.mesh_methods import baselines, methods_of, networks, order_in_time, published, schemes
from neuralpde.mesh_pde import Pde


@pytest.mark.parametrize("truth", list(Truth))
@pytest.mark.parametrize("pde", list(Pde))
def test_rows(pde, truth):
    methods = methods_of(pde, truth)
    names = [method.name for method in methods]
    assert len(set(names)) == len(names)
    assert names[:2] == ["zero", "persistence"]
    learned = {"gcn", "mpnn", "egnn", "meshgraphnet", "spectral", "unitary", "r-unimesh"}
    assert {"stencil-rate", "stencil-two-own", "ours", *learned} <= set(names)
    # What identifies a part of a run must not hold an address.
    assert not any(" at 0x" in repr(method) for method in methods)
    assert ("implicit-euler" in names) == (pde in (Pde.HEAT, Pde.WAVE))
    assert set(name for name, _ in published(pde, truth)) <= set(names)
    assert bool(published(pde, truth)) == (truth is Truth.PUBLISHED and pde is not Pde.ADVECTION)


def test_waves_are_of_second_order():
    assert [order_in_time(pde) for pde in (Pde.HEAT, Pde.WAVE)] == [1, 2]
    assert all(getattr(method, "order", 2) == 2 for method in [*baselines(2), *schemes(2)])


def test_one_number_of_steps_for_every_network():
    chosen = [method for method in methods_of(Pde.HEAT, Truth.SURFACE, 7) if hasattr(method, "unroll")]
    assert len(chosen) >= len(networks())
    assert {method.steps for method in chosen} == {7}
