"""The laws of spectral, and its size."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks_spectral import Diffusions, Spectral
from neuralpde.testing_mesh_cases import check_network, stirred, turned
from operators import bumpy, icosphere


def build(scene, context):
    return Diffusions(scene, context, 10, 2, 12)


def test_it_keeps_the_laws_of_all_networks():
    check_network(build)


def test_it_has_the_published_number_of_parameters():
    model = Spectral().build(Scene("ball", bumpy(icosphere(1)), 0.1, Truth.SURFACE), 0)
    assert 37_000 <= sum(p.numel() for p in model.parameters()) <= 45_000


def test_diffusion_against_the_dense_exponential():
    model, scene, _, _ = stirred(lambda scene, context: Diffusions(scene, context, 10, 1, 41))
    block, mass = model.blocks[0], scene.robust.mass
    x = torch.randn(42, 2, 10, dtype=torch.float64)
    block.mix = _Second(10)
    values, vectors = torch.linalg.eigh(scene.robust.symmetrized().matrix())
    times = block.log_time.exp().detach() * mass.sum()
    # The roughest of the 42 modes is left out.
    basis = vectors[:, :41] / mass.sqrt()[:, None]
    for channel in range(10):
        filtered = basis @ torch.diag(torch.exp(-values[:41] * times[channel])) @ basis.T @ (mass[:, None] * x[:, :, channel])
        assert torch.allclose((block(x, model.spectrum) - x)[:, :, channel], filtered, atol=1e-8)


class _Second(torch.nn.Module):
    """The second half of the channels: the smooth ones."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x[..., self.width :]


def test_it_is_blind_to_rotations_and_scale_of_length():
    model, scene, frames, _ = stirred(build)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = Scene("moved", turned(scene.mesh, 2 * matrix, torch.zeros(3)), 4 * scene.dt, scene.truth)
    assert torch.allclose(model.on(moved)(frames, None), model(frames, None), atol=1e-7)
