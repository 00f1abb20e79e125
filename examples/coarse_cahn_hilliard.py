"""A simulator with a sixteenth of the nodes, corrected towards a fine one by a network that is trained through the solver.

Two phases separate on a sphere by Cahn and Hilliard's equation. The truth has 2562 nodes; the coarse simulator has 162, one or
two across an interface, so that its interfaces stick to the mesh. `CorrectedStep` adds Δt div q(u) after each of its steps, with
a flux q from a small network of local invariants (`ConservativeClosure`): whatever the network says, the mass stays. `Unrolled`
trains it through longer and longer rollouts. `compare` rolls out four times as long as the training knew, from initial conditions
that it did not see, beside the uncorrected simulator and the ablation: the same network, data and updates, one step at a time.
Run it with `python examples/coarse_cahn_hilliard.py`; it takes some twenty seconds and draws coarse_cahn_hilliard.png.
"""

from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

import neuralpde as npde
from neuralpde import loop

WIDTH, DT, HORIZON, TRAIN, TEST, WARM_UP = 0.12, 0.02, 16, 16, 8, 16


def trajectories(laplacian: npde.Laplacian) -> Tensor:
    """Fine truth from random smooth mixtures, once the phases have begun to part: (frames, members, n, 1)."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(TRAIN + TEST, laplacian.shape[0], 1, generator=generator, dtype=torch.float64)
    u = laplacian.solve(0.03, laplacian.solve(0.03, laplacian.solve(0.03, u)))
    shares = 0.3 * (torch.rand(TRAIN + TEST, 1, 1, generator=generator, dtype=torch.float64) - 0.5)
    start = 0.3 * (u - u.mean(1, keepdim=True)) / u.std(1, keepdim=True) + shares
    times = [k * DT for k in range(WARM_UP + 4 * HORIZON + 1)]
    with torch.no_grad():
        return npde.integrate(npde.CahnHilliard(laplacian, WIDTH), start, times, npde.SBDF2(dt=DT / 4)).x[WARM_UP:]


def main(out: Path = Path("coarse_cahn_hilliard.png"), steps: int = 250) -> dict[str, float]:
    """Train the correction for so many steps, print the comparison, and draw the phases to `out`."""
    torch.manual_seed(0)  # of the network
    coarse, ball = npde.robust_laplacian(npde.icosphere(2)), npde.subdivide(npde.icosphere(2), 2, smooth=True)
    truth = loop.sphere_transfer(4, 2).restrict(trajectories(npde.robust_laplacian(npde.icosphere(4))))
    train, test = truth[: HORIZON + 1, :TRAIN], truth[:, TRAIN:]
    simulator = loop.SolverStep(npde.CahnHilliard(coarse, WIDTH), npde.SBDF2(dt=DT, gradient=npde.Direct()), DT)
    step = loop.CorrectedStep(simulator, loop.ConservativeClosure(coarse, local=loop.LocalInvariants(coarse, geometry=True)))
    ways = (loop.Unrolled(batch=4, lengths=(2, 8)), loop.OneStep(batch=4))
    print(found := loop.compare(step, train, test, ways, steps=steps, learning_rate=5e-3, mass=coarse.mass, progress=True))
    plain, solver, ablation = found.errors
    figure = Figure(figsize=(11, 4), layout="constrained")
    for k, (name, path) in enumerate({"truth": test, plain: found.paths[plain], "corrected": found.paths[solver]}.items()):
        axes = figure.add_subplot(1, 3, k + 1, projection="3d", title=f"{name}, t = {4 * HORIZON * DT:g}")
        surface = axes.plot_trisurf(*ball.mesh.vertices.T, triangles=ball.mesh.faces, cmap="RdBu_r", vmin=-1, vmax=1)
        surface.set_array((ball.prolongation @ path[-1, 0])[ball.mesh.faces, 0].mean(1).numpy())
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1), zoom=1.6)
    figure.savefig(out, dpi=110)
    drift = (coarse.mass @ (found.paths[solver] - test[0])).abs().max() / coarse.mass.sum()
    return {"solver": found.improvement(solver), "ablation": found.improvement(ablation), "mass": float(drift)}


if __name__ == "__main__":
    tyro.cli(main)
