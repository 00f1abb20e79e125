"""What every equation of MeshPDE promises, whatever it is."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from neuralpde.heat_data import FRAMES, Truth
from neuralpde.mesh_equation import CotangentScene, MeshEquation, published_step, radius
from neuralpde.mesh_pde import Pde
from operators import TriangleMesh, cotangent_laplacian

ALL = pytest.mark.parametrize("equation", [pde.equation for pde in Pde], ids=lambda equation: equation.name)
BOTH = pytest.mark.parametrize("truth", list(Truth), ids=lambda truth: truth.value)


@cache
def simulated(equation: MeshEquation, mesh: TriangleMesh, truth: Truth, conditions: int = 2) -> torch.Tensor:
    dt = equation.time_step("some mesh", mesh, truth)
    return equation.simulate(mesh, truth, dt, equation.initial_fields(mesh, truth, conditions, seed=3))


@ALL
@BOTH
def test_frames_begin_with_the_start_and_move(equation, truth, surfaces):
    mesh = surfaces["ball"]
    start = equation.initial_fields(mesh, truth, 2, seed=3)
    frames = simulated(equation, mesh, truth)
    assert frames.shape == (2, FRAMES, mesh.num_nodes, 1)
    assert frames.dtype == torch.float64
    assert torch.equal(frames[:, 0], start)
    assert bool(torch.isfinite(frames).all())
    # Neither gone after a few frames nor standing still.
    assert float(frames[:, -1].norm() / frames[:, 0].norm()) > 0.05
    assert float((frames[:, -1] - frames[:, 4]).norm() / frames[:, 4].norm()) > 0.1


@ALL
@BOTH
def test_starting_fields_are_of_the_seed(equation, truth, surfaces):
    mesh = surfaces["ball"]
    fields = equation.initial_fields(mesh, truth, 4, seed=1)
    assert fields.shape == (4, 42, 1)
    assert fields.dtype == torch.float64
    assert torch.equal(fields[:2], equation.initial_fields(mesh, truth, 2, seed=1))
    assert not torch.equal(fields, equation.initial_fields(mesh, truth, 4, seed=2))
    assert not torch.equal(fields[0], fields[1])


@ALL
@BOTH
def test_mass_is_kept_to_round_off(equation, truth, surfaces):
    mesh = surfaces["ball"]
    laplacian = equation.laplacian(mesh, truth)
    frames = simulated(equation, mesh, truth)
    # Of S, the left kernel is √m.
    weights = laplacian.mass if laplacian.kills_constants else cotangent_laplacian(mesh).mass.sqrt()
    mass = (weights[:, None] * frames).sum((-2, -1))
    size = (weights[:, None] * frames.abs()).sum((-2, -1)).amax()
    assert float((mass - mass[:, :1]).abs().max() / size) < 1e-12
    if laplacian.kills_constants:
        stored = (weights[:, None] * frames.float().double()).sum((-2, -1))
        assert float((stored - mass[:, :1]).abs().max() / size) < 1e-6


@ALL
@BOTH
def test_a_scene_tells_the_operator_of_the_simulation(equation, truth, surfaces):
    mesh = surfaces["ball"]
    scene = equation.scene("ball", mesh, 0.1, truth)
    assert (scene.name, scene.dt, scene.truth) == ("ball", 0.1, truth)
    assert scene.mesh.vertices.dtype == torch.float32
    expected = equation.laplacian(mesh, truth)
    told = scene.laplacian
    torch.testing.assert_close(told.matrix().double(), expected.matrix(), rtol=0, atol=1e-5 * expected.norm_bound())
    torch.testing.assert_close(told.mass.double(), expected.mass, rtol=1e-5, atol=0)
    conserving = isinstance(scene, CotangentScene)
    assert conserving == (truth is Truth.PUBLISHED and equation.name in ("cahn-hilliard", "advection"))


@pytest.mark.parametrize(
    ("pde", "truth"),
    [(pde, truth) for pde in Pde for truth in Truth if truth is Truth.SURFACE or pde in (Pde.CAHN_HILLIARD, Pde.ADVECTION)],
    ids=lambda value: value.value,
)
def test_frames_do_not_depend_on_the_unit_of_length(pde, truth, surfaces):
    mesh = surfaces["ball"]
    large = TriangleMesh(mesh.vertices * 8, mesh.faces)
    equation = pde.equation
    first, second = (simulated(equation, each, truth) for each in (mesh, large))
    # A product in another unit rounds otherwise, and phase separation amplifies that.
    assert float((first - second).abs().max()) < 1e-6


@ALL
def test_edges_with_four_faces(equation, leaves):
    truth = Truth.PUBLISHED
    assert bool(torch.isfinite(simulated(equation, leaves, truth)).all())
    assert bool(torch.isfinite(equation.initial_fields(leaves, Truth.SURFACE, 1, 0)).all())


@pytest.fixture(scope="module")
def leaves() -> TriangleMesh:
    """Two closed surfaces that share an edge."""
    first = np.array([[0, 0, 0], [0, 0, 1], [1, 0.2, 0.4], [0.4, 1, 0.6]])
    points = torch.tensor(np.concatenate([first, first[2:] * [-1, -1, 1]]))
    one = [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]
    return TriangleMesh(points, torch.tensor([*one, *[[a + 2 * (a > 1), b + 2 * (b > 1), c + 2 * (c > 1)] for a, b, c in one]]))


def test_published_steps():
    steps = {"bunny": 2.0}
    assert published_step("bunny", steps, limit=3.0, courant=0.5) == 2.0
    assert published_step("bunny_sub", steps, limit=3.0, courant=0.5) == 2.0
    assert published_step("bunny", steps, limit=1.9, courant=0.5) == 0.5
    assert published_step("bunny", steps, limit=200.0, courant=0.5) == 0.5
    assert published_step("cow", steps, limit=3.0, courant=0.5) == 0.5


def test_radius():
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]], dtype=torch.float64) + 5
    assert math.isclose(radius(TriangleMesh(points, torch.tensor([[0, 2, 1], [0, 1, 3]]))), 1.5)
