"""Where was it warm? An initial heat distribution, from a twentieth of the vertices with one per cent of noise.

Heat is measured at some vertices at eight times after the start, when much has been smoothed away: many initial states explain
that equally well. A `Smooth` prior (Tikhonov's, in the norm of H²) asks for the smoothest of them, and `CrossValidation` for the
weight that would best predict measurements left out. The equation is linear, so that `GaussNewton` needs one iteration. Beside it
stands what one would do without the equation: the harmonic interpolation of the earliest measurements. The data come of a mesh
with four times the triangles, so that the model which is fitted did not make them.
Run it with `python examples/initial_heat.py --mesh cow.ply`; without a mesh it takes meshes/spot_low.ply of the folder that
NEURALPDE_DATA names, or else a bumpy sphere. It takes some seconds and draws initial_heat.png.
"""

import os
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

import neuralpde as npde
from neuralpde import loop

SEEN, NOISE, TIMES = 0.05, 0.01, [0.0005 * k for k in range(1, 9)]


def main(mesh: Path | None = None, out: Path = Path("initial_heat.png")) -> dict[str, float]:
    """Forget the start of a diffusion, find it again, and draw it to `out`."""
    file = mesh or Path(os.environ.get("NEURALPDE_DATA", "")) / "meshes" / "spot_low.ply"
    surface = npde.load_mesh(file, clean=True) if mesh or file.exists() else npde.bumpy(npde.icosphere(3))
    laplacian, size, n = npde.robust_laplacian(surface), float(surface.area), surface.num_nodes
    fine = npde.robust_laplacian(npde.subdivide(surface).mesh)  # The first n of its nodes are those of the surface.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(fine.shape[0], 1, generator=generator, dtype=torch.float64)
    start = fine.solve(0.01 * size, fine.solve(0.01 * size, start))
    start, truth = start / start.std(), start[:n] / start.std()
    heat, times, solver = npde.Heat(laplacian), [t * size for t in TIMES], npde.Exponential()
    path = npde.integrate(npde.Heat(fine), start, [0.0, *times], solver).x[1:, :n]
    nodes = torch.randperm(n, generator=generator)[: round(SEEN * n)].sort().values
    seen = loop.Observations.of(path, times, nodes, NOISE * float(path.std()), generator)
    print(file.name if mesh or file.exists() else "a bumpy sphere", f"has {n} vertices, and {len(nodes)} of them are seen")
    held = npde.dirichlet(laplacian, nodes)
    rest = npde.ConjugateGradient(preconditioner=npde.Jacobi()).solve(held, -held.load(seen.values[0]))
    prior = loop.Smooth(laplacian, order=2, length=0.3 * size**0.5, weight=loop.CrossValidation())
    found = loop.estimate(heat, seen, loop.InitialState(torch.zeros_like(truth)), prior=prior, solver=solver)
    fields = {"truth": truth, "harmonic": held.extend(rest, seen.values[0]), "estimate": found.initial}
    wrong = {name: float((u - truth).norm() / truth.norm()) for name, u in fields.items()}
    print(f"{found}\nrelative error {wrong['estimate']:.1%}; of harmonic interpolation {wrong['harmonic']:.1%}")
    figure = Figure(figsize=(11, 4), layout="constrained")
    for k, (name, u) in enumerate(fields.items()):
        axes = figure.add_subplot(1, 3, k + 1, projection="3d", title=f"{name}, {wrong[name]:.0%} off" if k else name)
        patches = axes.plot_trisurf(*surface.vertices.T, triangles=surface.faces, cmap="RdYlBu_r", vmin=-2, vmax=2)
        patches.set_array(u[surface.faces, 0].mean(1).numpy())
        axes.view_init(elev=20, azim=150, vertical_axis="y")
        axes.set_box_aspect(surface.vertices.amax(0) - surface.vertices.amin(0), zoom=1.4)
        axes.set_axis_off()
    figure.savefig(out, dpi=110)
    return {"estimate": wrong["estimate"], "harmonic": wrong["harmonic"], "misfit": found.misfit}


if __name__ == "__main__":
    tyro.cli(main)
