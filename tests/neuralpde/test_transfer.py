"""Fine to coarse and back: constants, mass, range, adjointness, and order on the sphere."""

import pytest
import torch
from torch import Tensor

from neuralpde.transfer import Transfer, grid_transfer, mesh_transfer, sphere_transfer
from operators import Boundary, DomainError, Grid, SparseOperator, bumpy, grid_laplacian, icosphere, lumped_mass, subdivide


def field(n: int) -> Tensor:
    return torch.randn(2, n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def periodic() -> Transfer:
    return grid_transfer(Grid((8, 12), 0.1, Boundary.PERIODIC), 2)[1]


TRANSFERS = [lambda: sphere_transfer(3, 1), periodic]


@pytest.mark.parametrize("make", TRANSFERS)
def test_laws(make) -> None:  # type: ignore[no-untyped-def]
    transfer = make()
    n, u = len(transfer.mass), field(len(transfer.mass))
    coarse = transfer.restrict(u)
    ones = torch.ones(n, 1, dtype=torch.float64)
    torch.testing.assert_close(transfer.restrict(ones), torch.ones_like(coarse[0]), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(transfer.prolong(torch.ones_like(coarse[0])), ones, rtol=1e-13, atol=1e-13)
    # Mass, hull, and ⟨R u, v⟩ = ⟨u, P v⟩ in the masses.
    fine_mass, coarse_mass = transfer.mass[:, None], transfer.coarse_mass[:, None]
    torch.testing.assert_close((coarse_mass * coarse).sum(-2), (fine_mass * u).sum(-2), rtol=1e-12, atol=1e-12)
    assert bool((coarse.amax(-2) <= u.amax(-2) + 1e-12).all())
    v = field(len(transfer.coarse_mass)) + 0.3
    left, right = (coarse_mass * coarse * v).sum((-2, -1)), (fine_mass * u * transfer.prolong(v)).sum((-2, -1))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_consistent_on_the_sphere() -> None:
    # Averages over hats that are not symmetric: an order between one and two, 1.4 in the mean.
    errors = []
    for coarse in (1, 2, 3):
        fine, rough = icosphere(coarse + 1).vertices[:, 2:], icosphere(coarse).vertices[:, 2:]
        errors.append(float((sphere_transfer(coarse + 1, coarse).restrict(fine) - rough).square().mean().sqrt()))
    assert errors[0] / errors[1] > 2.5
    assert errors[1] / errors[2] > 2.5


def test_grid_blocks_are_means() -> None:
    fine = Grid((4, 6), 0.5)
    coarse, transfer = grid_transfer(fine, 2)
    assert coarse.shape == (2, 3)
    assert coarse.extent == fine.extent
    u = field(24)
    expected = fine.folded(u).reshape(2, 2, 2, 3, 2, 1).mean((2, 4)).reshape(2, 6, 1)
    torch.testing.assert_close(transfer.restrict(u), expected)
    torch.testing.assert_close(transfer.coarse_mass, grid_laplacian(coarse).mass)


def test_a_mesh_and_its_subdivision() -> None:
    coarse = bumpy(icosphere(1))
    fine = subdivide(coarse, 1).mesh
    transfer = mesh_transfer(coarse, fine, 1)
    torch.testing.assert_close(transfer.mass, lumped_mass(fine))
    torch.testing.assert_close(transfer.prolong(coarse.vertices), fine.vertices, rtol=1e-13, atol=1e-13)
    with pytest.raises(DomainError, match="not the coarse one"):
        mesh_transfer(fine, coarse, 1)


def test_bad_input() -> None:
    P = SparseOperator.from_entries(torch.arange(3), torch.tensor([0, 0, 1]), torch.full((3,), 0.5, dtype=torch.float64), (3, 2))
    with pytest.raises(DomainError, match="sum to one"):
        Transfer(P, torch.ones(3, dtype=torch.float64))
    with pytest.raises(DomainError, match="swap"):
        sphere_transfer(1, 2)
    with pytest.raises(DomainError, match="divides"):
        grid_transfer(Grid((5, 5), 1.0), 2)
    with pytest.raises(DomainError, match="Dirichlet"):
        grid_transfer(Grid((4, 4), 1.0, Boundary.DIRICHLET), 2)
