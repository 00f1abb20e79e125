"""The kit finds every planted fault and names the law, and passes everything that is shipped, at 200 examples a law."""

import pytest
import torch
from planted_faults import FAULTS
from shipped import FLOWS, GRADIENTS, LAPLACIANS, METHODS

import neuralpde as npde
from neuralpde.testing_adjoint import assert_adjoint_pair
from neuralpde.testing_cases import domain_kind
from neuralpde.testing_devices import assert_device_agnostic
from neuralpde.testing_gradients import assert_gradients
from neuralpde.testing_laplacian import assert_laplacian
from neuralpde.testing_laplacian import renumbering_the_nodes_renumbers_the_operator as RENUMBERED
from neuralpde.testing_laplacian import rigid_motion_changes_nothing as MOVED
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_order import assert_order
from neuralpde.testing_right_hand_side import assert_right_hand_side
from operators import Graph, TriangleMesh, icosphere

ON_SURFACES = [pair for pair in LAPLACIANS if domain_kind(pair[0]) is TriangleMesh]
ON_GRAPHS = [pair for pair in LAPLACIANS if domain_kind(pair[0]) is Graph]


def named(pairs):
    return {"ids": [getattr(pair, "__name__", None) or pair[0].__name__ for pair in pairs]}


@pytest.fixture(autouse=True)
def _counter_examples_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_there_are_twenty_faults_and_more():
    assert len(FAULTS) >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_planted_fault_is_found_and_the_law_named(fault, tmp_path):
    with pytest.raises(LawBrokenError) as caught:
        fault.find(fault.subject, **fault.how)
    assert caught.value.measured.law in fault.laws, str(caught.value)
    if caught.value.example:  # one that was searched for
        assert "replay" in str(caught.value)
        assert list((tmp_path / ".neuralpde").iterdir())


@pytest.mark.parametrize(("build", "how"), LAPLACIANS, **named(LAPLACIANS))
def test_every_laplacian_keeps_its_laws(build, how):
    assert float(assert_laplacian(build, **how)) <= 1


@pytest.mark.parametrize("build", GRADIENTS, **named(GRADIENTS))
def test_every_gradient_is_adjoint_to_its_divergence(build):
    assert float(assert_adjoint_pair(build)) <= 1


@pytest.mark.parametrize(("build", "how"), FLOWS, **named(FLOWS))
def test_every_right_hand_side_keeps_what_it_declares(build, how):
    assert float(assert_right_hand_side(build, **how)) <= 1


@pytest.mark.parametrize(("build", "how"), LAPLACIANS, **named(LAPLACIANS))
def test_every_laplacian_works_on_any_device(build, how):
    assert float(assert_device_agnostic(build, how.get("domain"))) <= 1


@pytest.mark.parametrize(("build", "how"), FLOWS, **named(FLOWS))
def test_every_right_hand_side_works_on_any_device(build, how):
    assert float(assert_device_agnostic(build, **how)) <= 1


@pytest.mark.parametrize("method", METHODS, **named(METHODS))
def test_every_method_has_its_order(method):
    assert float(assert_order(method, method.order)) <= 1


def test_derivatives_of_a_flow_are_those_of_its_values():
    mesh = icosphere(0)
    x = torch.linspace(-1, 1, 2 * mesh.num_nodes, dtype=torch.float64).reshape(-1, 2)
    weights = torch.linspace(1, 2, mesh.edges.shape[1], dtype=torch.float64)

    def slope(x, weights):
        both = torch.cat([mesh.edges, mesh.edges.flip(0)], 1)
        L = npde.combinatorial_laplacian(Graph(both, mesh.num_nodes, weights.repeat(2)))
        return npde.AllenCahn(L, 0.3)(torch.zeros(()), x)

    assert float(assert_gradients(slope, x, weights)) <= 1


@pytest.mark.parametrize(("build", "how"), ON_SURFACES, **named(ON_SURFACES))
def test_every_laplacian_keeps_its_laws_on_every_real_mesh(build, how, real_mesh):
    told = {key: value for key, value in how.items() if key != "domain"}
    # Real meshes hold squares, where round-off chooses the diagonal.
    torn = {*told.pop("without", ()), *((RENUMBERED, MOVED) if how.get("domain") is not None else ())}
    assert float(assert_laplacian(build, real_mesh, without=torn, **told)) <= 1


@pytest.mark.parametrize(("build", "how"), ON_GRAPHS, **named(ON_GRAPHS))
def test_every_laplacian_keeps_its_laws_on_every_real_graph(build, how, real_graph):
    told = {key: value for key, value in how.items() if key != "domain"}
    assert float(assert_laplacian(build, real_graph, **told)) <= 1
