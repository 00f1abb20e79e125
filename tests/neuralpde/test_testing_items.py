"""Which laws apply, decided by what the object is."""

from pathlib import Path

import pytest
import torch

from integrators import RK4, Dopri5
from neuralpde.heat import Heat
from neuralpde.testing_items import applicable, resolve
from neuralpde.testing_search import Search
from operators import (
    Operator,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    edge_gradient,
    face_gradient,
    icosphere,
)


class Averaging(Operator):
    def __init__(self, mesh: TriangleMesh):
        super().__init__()
        self.shape = (mesh.num_nodes, mesh.num_nodes)

    def forward(self, x):
        return x.mean(-2, keepdim=True).expand_as(x).clone()


def pair(mesh: TriangleMesh):
    return face_gradient(mesh), face_gradient(mesh).adjoint()


@pytest.mark.parametrize(
    ("subject", "some", "none"),
    [
        (combinatorial_laplacian, {"positive_semidefinite", "edges_that_are_repeated_add_up"}, {"rigid_motion_changes_nothing"}),
        (cotangent_laplacian, {"linear_functions_are_harmonic_inside", "float32_and_back"}, {"edges_that_are_repeated_add_up"}),
        (cotangent_laplacian(icosphere(0)), {"symmetric_in_its_inner_product"}, {"rigid_motion_changes_nothing"}),
        (torch.eye(2), {"positive_semidefinite"}, {"float32_and_back"}),
        (edge_gradient, {"adjoint_in_their_inner_products", "linear"}, {"positive_semidefinite"}),
        (pair, {"adjoint_in_their_inner_products"}, {"positive_semidefinite"}),
        (Averaging, {"linear"}, {"adjoint_in_their_inner_products", "positive_semidefinite"}),
        (Heat, {"declared_symmetries_hold", "the_linear_part_solves"}, {"linear"}),
        (RK4, {"order"}, {"linear"}),
    ],
)
def test_what_applies(subject, some, none):
    names = {law.name for law in applicable(subject)}
    assert some <= names
    assert not none & names


def test_the_first_law_of_each_can_be_run():
    for subject in (pair, RK4, torch.eye(2)):
        law = next(law for law in applicable(subject) if law.check is not None)
        assert float(law.check(Search(5, folder=None))) <= 1


def test_what_cannot_be_held_says_why():
    (order,) = applicable(Dopri5)
    assert order.check is None
    assert "chooses its own steps" in order.reason

    def number(mesh: TriangleMesh):
        return 3

    (builds,) = applicable(number)
    with pytest.raises(AssertionError, match="gives a int"):
        builds.check(Search())


def test_names_are_resolved_in_the_folder_and_wrong_ones_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", ["."])
    (tmp_path / "resolved_here.py").write_text("class A:\n    def b(self): pass\n")
    assert resolve("resolved_here:A.b", tmp_path).__name__ == "b"
    with pytest.raises(pytest.UsageError, match="resolved_here has no 'x'"):
        resolve("resolved_here:x", Path(tmp_path))
