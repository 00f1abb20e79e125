"""What an equation declares is held against it; each law breaks where it should."""

import pytest
import torch

from neuralpde.heat import Heat
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_right_hand_side import assert_equivariant, assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Laplacian, TriangleMesh, cotangent_laplacian, icosphere

FEW = Search(10, folder=None)
L = cotangent_laplacian(icosphere(0))


class Broken(RightHandSide):
    def __init__(self, laplacian: Laplacian, how):
        super().__init__()
        self.laplacian, self.how = laplacian, how

    def forward(self, t, u):
        return self.how(self.laplacian, u)


def test_an_equation_and_a_builder_of_it():
    assert float(assert_right_hand_side(Heat(L))) <= 1
    assert float(assert_right_hand_side(Heat(L), icosphere(0))) <= 1
    assert float(assert_right_hand_side(Heat, search=FEW)) <= 1
    assert float(assert_right_hand_side(Heat(cotangent_laplacian(icosphere(0))).to(torch.float32))) <= 1


@pytest.mark.parametrize(
    ("how", "law"),
    [
        (lambda L, u: u / 0, "gives the form of its state"),
        (lambda L, u: u.mul_(2), "leaves its state alone"),
        (lambda L, u: u - u.mean(), "a batch of states is a loop"),
    ],
)
def test_each_broken_equation_is_told_by_its_law(how, law):
    with pytest.raises(LawBrokenError) as caught:
        assert_right_hand_side(Broken(L, how))
    assert caught.value.measured.law == law


def test_a_solve_that_does_not_invert_is_told():
    class Part:
        def __matmul__(self, u):
            return -(L @ u)

        def norm_bound(self):
            return L.norm_bound()

        def solve(self, shift, b):
            return L.solve(2 * shift, b)

    class Wrong(Broken):
        linear = Part()

    with pytest.raises(LawBrokenError, match="the linear part solves"):
        assert_right_hand_side(Wrong(L, lambda L, u: -(L @ u)))


def test_equivariance_of_operators_and_equations():
    assert float(assert_equivariant(cotangent_laplacian, RigidMotion(), search=FEW)) <= 1
    assert float(assert_equivariant(Heat(L), Permutation(), icosphere(0))) <= 1

    def tilted(mesh: TriangleMesh):
        height = mesh.vertices[:, 2:]
        return lambda t, u: height * u

    with pytest.raises(LawBrokenError, match="tilted breaks a law: equivariant under RigidMotion"):
        assert_equivariant(tilted, RigidMotion(), search=FEW)


def test_states_of_ones_own():
    def positive(f, domain, generator):
        return torch.rand(12, 1, generator=generator, dtype=torch.float64)

    def root(L, u):
        return u.sqrt() - L @ u

    assert float(assert_right_hand_side(Broken(L, root), states=positive)) <= 1
