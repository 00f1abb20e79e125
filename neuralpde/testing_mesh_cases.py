"""Small trajectories on small meshes, and the laws of every network that steps on a mesh."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuralpde.heat_data import GIVEN_FRAMES, Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_training import SceneModel
from operators import TriangleMesh, bumpy, icosphere


def small_case(
    name: str = "ball",
    mesh: TriangleMesh | None = None,
    *,
    truth: Truth = Truth.PUBLISHED,
    order: int = 1,
    rate: float = 1.0,
    trajectories: int = 2,
    frames: int = 12,
    seed: int = 0,
) -> Case:
    """y' = y − a dt L y, or y' = 2y − y₋ − a dt² L y, from random fields, on a bumpy sphere of 42 vertices by default.

    Args:
        order: in time, 1 or 2.
        rate: a; the time step is a quarter of what is stable.
    """
    mesh = (bumpy(icosphere(1), 0.2) if mesh is None else mesh).to(torch.float32)
    scene = Scene(name, mesh, 1.0, truth)
    wide = scene.laplacian.to_wide(torch.empty(0, dtype=torch.float64))
    dt = (0.5 / wide.largest_eigenvalue()) ** (1 / order)
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(trajectories, mesh.num_nodes, 1, dtype=torch.float64, generator=generator)
    path = [y, y]
    for _ in range(frames):
        path.append((path[-1] if order == 1 else 2 * path[-1] - path[-2]) - rate * dt**order * wide(path[-1]))
    made = torch.stack(path[2:], dim=1).float()
    return Case(Scene(name, mesh, dt, truth), made, made)


def relabelled(mesh: TriangleMesh, order: Tensor) -> TriangleMesh:
    """The mesh whose vertex k is vertex order[k] of this one."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return TriangleMesh(mesh.vertices[order], place[mesh.faces])


def turned(mesh: TriangleMesh, matrix: Tensor, shift: Tensor) -> TriangleMesh:
    """Every vertex p at matrix p + shift."""
    return TriangleMesh(mesh.vertices @ matrix.T + shift, mesh.faces)


Build = Callable[[Scene, int], SceneModel]


def stirred(build: Build, context: int = 0) -> tuple[SceneModel, Scene, Tensor, Tensor | None]:
    """A model in float64 with random weights, its scene, and five random frames (2, 5, n, 1) with a context (2, n, m)."""
    mesh = bumpy(icosphere(1), 0.2)
    scene = Scene("ball", TriangleMesh(mesh.vertices.double(), mesh.faces), 0.01, Truth.SURFACE)
    model = build(scene, context).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # The last layer starts at zero, and would hide everything before it.
            parameter.add_(0.2 * torch.randn_like(parameter))
    frames = torch.randn(2, GIVEN_FRAMES, mesh.num_nodes, 1, dtype=torch.float64)
    fields = torch.randn(2, mesh.num_nodes, context, dtype=torch.float64) if context else None
    return model, scene, frames, fields


def check_network(build: Build) -> None:
    """Raise AssertionError where a network breaks a law that all of them keep.

    Vertices have no order; trajectories do not see each other; every parameter has a finite gradient that is not zero; weights
    are shared by views on other scenes; its start is persistence.
    """
    model, scene, frames, context = stirred(build, context=2)
    step = model(frames, context)
    _need(step.shape == (2, frames.shape[2], 1), f"one frame follows, not {tuple(step.shape)}")
    _need(bool(torch.isfinite(step).all()), "the next frame is finite")
    order = torch.randperm(frames.shape[2])
    other = model.on(Scene("relabelled", relabelled(scene.mesh, order), scene.dt, scene.truth))
    if context is None:
        raise AssertionError("a context was asked for")
    _close(other(frames[:, :, order], context[:, order]), step[:, order], "vertices have no order")
    _close(model(frames[1:], context[1:]), step[1:], "trajectories do not see each other")
    (step * torch.randn_like(step)).sum().backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        _need(gradient is not None and bool(torch.isfinite(gradient).all()), f"{name} has no finite gradient")
        _need(gradient is not None and bool((gradient != 0).any()), f"{name} has no gradient at all")
    shared = {id(parameter) for parameter in model.parameters()} == {id(parameter) for parameter in other.parameters()}
    _need(shared, "views on other scenes share the parameters")
    fresh = build(scene, 0).double()
    _close(fresh(frames, None), frames[:, -1], "it starts as persistence")


def _close(one: Tensor, other: Tensor, law: str) -> None:
    distance = float((one - other).abs().max().detach())
    size = float(other.abs().max().detach())
    _need(distance <= 1e-8 * (1 + size), f"{law}: {distance:.1e} apart")


def _need(fits: bool, law: str) -> None:
    if not fits:
        raise AssertionError(law)
