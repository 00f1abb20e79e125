"""A material that conducts unevenly: κ(x) found from a fifth of the vertices, with one per cent of noise.

Heat spreads by u_t = div (κ ∇u), and κ varies threefold over the surface. Four initial fields are known, and what became of them
at three later times, at some vertices. `Heat(laplacian, learned(field))` has a positive κ at every vertex, log κ being what is
learned; `estimate` finds it by Gauss–Newton's method, whose products with the Jacobian go through the implicit solver. Six
hundred unknowns are more than was seen of them, so that a `Smooth` prior decides the rest, and `Discrepancy` chooses its weight:
as smooth as the noise allows, and no smoother. Before, a `receipt` holds the gradient of it all against finite differences.
Run it with `python examples/learn_diffusivity.py`, or `--mesh bunny.ply`; it takes some seconds and draws learn_diffusivity.png.
"""

from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

import neuralpde as npde
from neuralpde import loop

SEEN, NOISE, FIELDS, TIMES = 0.2, 0.01, 4, (0.002, 0.004, 0.008)


def main(mesh: Path | None = None, out: Path = Path("learn_diffusivity.png")) -> dict[str, float]:
    """Forget the diffusivity of a surface (a bumpy sphere, if no mesh is given), find it again, and draw it to `out`."""
    surface = npde.bumpy(npde.icosphere(3)) if mesh is None else npde.load_mesh(mesh, clean=True)
    laplacian, size, n = npde.robust_laplacian(surface), float(surface.area), surface.num_nodes
    height = surface.vertices[:, 1:2] - surface.vertices[:, 1:2].mean()
    truth, generator = 1 + 0.5 * torch.sin(2 * height / height.std()), torch.Generator().manual_seed(0)
    start = laplacian.solve(0.01 * size, torch.randn(FIELDS, n, 1, generator=generator, dtype=torch.float64))
    start = start / start.std()
    times, solver = [0.0, *(t * size for t in TIMES)], npde.BackwardEuler(dt=TIMES[0] * size / 4)
    path = npde.integrate(npde.Heat(laplacian, truth), start, times, solver).x[1:]
    nodes = torch.randperm(n, generator=generator)[: int(SEEN * n)]
    seen = loop.Observations.of(path, times[1:], nodes, NOISE * float(path.std()), generator)
    heat = npde.Heat(laplacian, npde.learned(torch.ones_like(truth)))

    def misfit() -> Tensor:
        return seen.residual(npde.integrate(heat, start, times, solver).x).square().mean()

    receipt = loop.receipt(misfit, heat, directions=1)
    print(receipt)
    prior = loop.Smooth(laplacian, order=2, weight=loop.Discrepancy())
    found = loop.estimate(heat, seen, initial=start, prior=prior, solver=solver, by=loop.GaussNewton(tolerance=1e-4))
    learned = heat.diffusivity.detach()
    error, guess = (float((kappa - truth).norm() / truth.norm()) for kappa in (learned, torch.ones_like(truth)))
    print(f"{found}\nκ at {n} vertices, from {len(nodes)} of them: off by {error:.1%} (as one everywhere: {guess:.0%})")
    figure = Figure(figsize=(9, 4), layout="constrained")
    for k, (title, kappa) in enumerate({"the true κ": truth, f"κ found, to {error:.1%}": learned}.items()):
        axes = figure.add_subplot(1, 2, k + 1, projection="3d", title=title)
        patches = axes.plot_trisurf(*surface.vertices.T, triangles=surface.faces, cmap="viridis", vmin=0.4, vmax=1.6)
        patches.set_array(kappa[surface.faces, 0].mean(1).numpy())
        axes.set_box_aspect(surface.vertices.amax(0) - surface.vertices.amin(0), zoom=1.4)
        axes.set_axis_off()
    figure.savefig(out, dpi=110)
    return {"error": error, "guess": guess, "misfit": found.misfit, "receipt": receipt.worst}


if __name__ == "__main__":
    tyro.cli(main)
