"""A material that conducts unevenly: κ(x) found from a fifth of the vertices, with one per cent of noise.

Heat spreads by u_t = div (κ ∇u), and κ varies threefold over the surface. Four initial fields are known, and what became of them
at three later times, at some vertices. `Heat(laplacian, learned(field))` has a positive κ at every vertex, log κ being what is
learned; `estimate` finds it by Gauss–Newton's method, whose products with the Jacobian go through the implicit solver. Six
hundred unknowns are more than was seen of them, so that a `Smooth` prior decides the rest, and `Discrepancy` chooses its weight:
as smooth as the noise allows, and no smoother. Before, a `receipt` holds the gradient of it all against finite differences.
The data come of a mesh with four times the triangles and of shorter steps: the model which is fitted did not make them.
Run it with `python examples/learn_diffusivity.py`, or `--mesh bunny.ply`; it takes some seconds and draws learn_diffusivity.png.
"""

from pathlib import Path

import torch
import tyro
from torch import Tensor

import neuralpde as npde
from neuralpde import loop

SEEN, NOISE, FIELDS, TIMES = 0.2, 0.01, 4, (0.002, 0.004, 0.008)


def main(mesh: Path | None = None, out: Path = Path("learn_diffusivity.png")) -> dict[str, float]:
    """Forget the diffusivity of a surface (a bumpy sphere, if no mesh is given), find it again, and draw it to `out`."""
    surface = npde.bumpy(npde.icosphere(3)) if mesh is None else npde.load_mesh(mesh, clean=True)
    laplacian, size, n = npde.robust_laplacian(surface), float(surface.area), surface.num_nodes
    finer, generator = npde.subdivide(surface).mesh, torch.Generator().manual_seed(0)  # Its first n vertices are the surface's.
    fine, height = npde.robust_laplacian(finer), finer.vertices[:, 1:2] - finer.vertices[:, 1:2].mean()
    truth = 1 + 0.5 * torch.sin(2 * height / height.std())
    start = torch.randn(FIELDS, fine.shape[0], 1, generator=generator, dtype=torch.float64)
    start = fine.solve(0.01 * size, fine.solve(0.01 * size, start))
    start = start / start.std()
    times, solver = [0.0, *(t * size for t in TIMES)], npde.SDIRK2(dt=TIMES[0] * size)
    path = npde.integrate(npde.Heat(fine, truth), start, times, npde.SDIRK3(dt=TIMES[0] * size / 4)).x[1:, :, :n]
    start, truth = start[:, :n], truth[:n]
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
    npde.save_fields(out, surface, {"the true κ": truth, f"κ found, to {error:.1%}": learned}, limits=(0.4, 1.6))
    return {"error": error, "guess": guess, "misfit": found.misfit, "receipt": receipt.worst}


if __name__ == "__main__":
    tyro.cli(main)
