"""Names of the command line, and their equations."""

from neuralpde.mesh_pde import Pde


def test_each_name_is_its_equations():
    assert {pde.value: pde.equation.name for pde in Pde} == {pde.value: pde.value for pde in Pde}
    assert [pde.value for pde in Pde] == ["heat", "wave", "cahn-hilliard", "advection"]


def test_nothing_is_trained_and_tested_on():
    for pde in Pde:
        assert not set(pde.equation.train_meshes) & set(pde.equation.test_meshes)
        assert pde.equation == pde.equation
