"""Property-test a Laplacian of your own, with a bug that looks like a good idea.

Negative cotangents break the maximum principle, so people clamp them to zero. `clamped_laplacian` does, and is still symmetric,
positive semi-definite and zero on constants: a plot of diffusing heat shows nothing. `assert_laplacian` draws 200 surfaces, holds
the operator against every law, shrinks what fails to a few triangles, and saves them for `replay`: linear functions are no longer
harmonic, or their energy is not the area. The picture shows what that means on a sheared square, where L x should be zero.
Run it with `python examples/property_test.py`; it takes some seconds and draws property_test.png. Without any file of tests, from
this folder: `pytest --pde property_test:clamped_laplacian`.
"""

import torch
from matplotlib.figure import Figure
from rich.console import Console

import neuralpde as npde
from neuralpde.testing import LawBrokenError, assert_laplacian, meshes


def clamped_laplacian(mesh: npde.TriangleMesh) -> npde.Laplacian:
    """The cotangent Laplacian with its negative weights set to zero."""
    exact = npde.cotangent_laplacian(mesh)
    row, column = exact.stiffness.pattern.row, exact.stiffness.pattern.col
    off = row != column
    weight = (-exact.stiffness.values[off]).clamp(min=0.0)
    graph = npde.Graph(torch.stack([row[off], column[off]]), mesh.num_nodes, weight)
    return npde.Laplacian(npde.combinatorial_laplacian(graph).stiffness, exact.mass, clamped_laplacian)


def sheared_square(n: int = 12) -> npde.TriangleMesh:
    """A plane with obtuse triangles."""
    x, y, z = npde.grid(n, n).vertices.T
    return npde.TriangleMesh(torch.stack([x + 0.8 * y**2 / y.max(), y, z], dim=1), npde.grid(n, n).faces)


def main() -> dict[str, float]:
    """Hold both against the laws, and draw |L x| inside."""
    console = Console()
    right = assert_laplacian(npde.cotangent_laplacian)  # on all kinds of surfaces; below on flat ones, which are easier to read
    console.print(f"cotangent_laplacian keeps every law. Nearest to its tolerance: {right}\n")
    result = {"cotangent, in tolerances": float(right)}
    try:
        assert_laplacian(clamped_laplacian, meshes(planar=True))
    except LawBrokenError as broken:
        console.print(broken, markup=False)
        result["clamped, in tolerances"] = float(broken.measured)
    mesh, figure = sheared_square(), Figure(figsize=(9, 3.6), layout="constrained")
    inside = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inside[npde.boundary_vertices(mesh)] = False
    for axes, build in zip(figure.subplots(1, 2), (npde.cotangent_laplacian, clamped_laplacian), strict=True):
        error = (build(mesh) @ mesh.vertices[:, :1]).abs()[:, 0] * inside
        result[f"|L x| of {build.__name__}"] = float(error.max())
        picture = axes.tripcolor(*mesh.vertices[:, :2].T, mesh.faces, error, shading="gouraud", cmap="magma", vmin=0)
        axes.set(title=f"|L x| of {build.__name__}", aspect="equal")
        figure.colorbar(picture, ax=axes)
    figure.savefig("property_test.png", dpi=120)
    return result


if __name__ == "__main__":
    Console().print(main())
