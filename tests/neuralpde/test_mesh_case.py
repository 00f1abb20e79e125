"""What a method may see of a case: five frames and the known fields, nothing else."""

import torch

from neuralpde.heat_data import GIVEN_FRAMES, Truth
from neuralpde.mesh_case import Case, Given, Scene
from operators import icosphere


def case(context=None):
    mesh = icosphere(1, dtype=torch.float32)
    clean = torch.randn(3, 20, mesh.num_nodes, 1)
    return Case(Scene("ball", mesh, 0.1, Truth.SURFACE), clean + 0.1, clean, context)


def test_a_method_is_given_five_observed_frames():
    whole = case()
    given = whole.given
    assert given.frames.shape == (3, GIVEN_FRAMES, 42, 1)
    assert torch.equal(given.frames, whole.frames[:, :5])
    assert set(vars(given)) == {"scene", "frames", "context"}
    assert isinstance(given, Given)


def test_a_part_keeps_trajectories_frames_and_context_together():
    context = torch.arange(3.0)[:, None, None].expand(3, 42, 2)
    part = case(context).first(2, 7)
    assert part.frames.shape == part.clean.shape == (2, 7, 42, 1)
    assert torch.equal(part.context, context[:2])
    assert case().first(1, 6).context is None


def test_operators_of_a_scene_are_made_once_and_carry_mass():
    mesh = icosphere(1, dtype=torch.float32)
    surface, published = Scene("ball", mesh, 0.1, Truth.SURFACE), Scene("ball", mesh, 0.1, Truth.PUBLISHED)
    assert surface.laplacian is surface.laplacian
    assert surface.laplacian.mass.sum() > 10.0  # the area, near 4π
    assert torch.allclose(published.laplacian.mass, torch.ones(42))  # S acts on the field itself
    assert surface.robust is surface.robust
