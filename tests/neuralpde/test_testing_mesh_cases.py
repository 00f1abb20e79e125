"""The small trajectories follow their recurrence, and the laws catch networks that break them."""

import pytest
import torch
from torch import nn

from neuralpde.heat_data import Truth
from neuralpde.mesh_networks import GraphNetwork, starting_at_zero
from neuralpde.testing_mesh_cases import check_network, relabelled, small_case, stirred, turned
from operators import bumpy, icosphere, robust_laplacian


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("truth", list(Truth))
def test_small_cases_follow_their_recurrence(order, truth):
    case = small_case(truth=truth, order=order, rate=0.7)
    y, laplacian, dt = case.frames.double(), case.scene.laplacian.to_wide(torch.empty(0, dtype=torch.float64)), case.scene.dt
    free = y[:, 1:-1] if order == 1 else 2 * y[:, 1:-1] - y[:, :-2]
    expected = free - 0.7 * dt**order * laplacian(y[:, 1:-1])
    assert float((y[:, 2:] - expected).abs().max()) < 1e-5
    assert dt**order * laplacian.largest_eigenvalue() == pytest.approx(0.5)


def test_relabelling_and_turning_keep_the_surface():
    mesh = bumpy(icosphere(1))
    order = torch.randperm(mesh.num_nodes)
    mass = robust_laplacian(mesh).mass
    assert torch.allclose(robust_laplacian(relabelled(mesh, order)).mass, mass[order])
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=mesh.vertices.dtype))
    assert torch.allclose(robust_laplacian(turned(mesh, rotation, torch.ones(3))).mass, mass)


class _Nodewise(GraphNetwork):
    """Keeps every law; `spoil` breaks one."""

    def __init__(self, scene, context, spoil="nothing"):
        super().__init__(scene, context)
        self.spoil = spoil
        self.layer = starting_at_zero(nn.Linear(self.inputs, 1))
        if spoil == "start":
            nn.init.ones_(self.layer.weight)
        if spoil == "gradient":
            self.idle = nn.Parameter(torch.ones(2))

    def change(self, x):
        y = self.layer(x)
        if self.spoil == "order":
            y = y * torch.arange(len(y), dtype=y.dtype)[:, None, None]
        return y.flip(1) if self.spoil == "batch" else y

    def on(self, scene):
        return _Nodewise(scene, self.inputs - 9, self.spoil).double() if self.spoil == "shared" else super().on(scene)


def test_a_sound_network_passes():
    check_network(_Nodewise)
    model, _, frames, context = stirred(_Nodewise)
    assert context is None
    assert model(frames, None).dtype == torch.float64


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        ("order", "vertices have no order"),
        ("batch", "do not see each other"),
        ("gradient", "idle has no finite gradient"),
        ("start", "starts as persistence"),
    ],
)
def test_a_broken_law_is_named(spoil, law):
    with pytest.raises(AssertionError, match=law):
        check_network(lambda scene, context: _Nodewise(scene, context, spoil))


def test_parameters_that_are_not_shared_are_noticed():
    with pytest.raises(AssertionError):
        check_network(lambda scene, context: _Nodewise(scene, context, "shared"))
