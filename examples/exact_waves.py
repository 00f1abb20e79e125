"""Waves with exact energy: the same ripple on a surface by three solvers, and what becomes of its energy.

u″ = −c² L u keeps H = ½‖u′‖² + ½c²⟨u, L u⟩ for ever. A general solver does not know that: `RK4`, at the evaluations of Verlet,
damps the short waves at every step, and over a long run that adds up. `StoermerVerlet` is symplectic: its energy wobbles within
(ω dt)²/4 and comes back. `Exponential` takes the exact flow, cos and sin of √L by a Chebyshev series, so one step to each output
time, and keeps H to round-off. `Wave` declares its energy, and `Monitor` watches it. At the end the whole way is taken back:
waves run both ways in time.
Run it with `python examples/exact_waves.py`; it takes some seconds and draws exact_waves.png.
"""

from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console

import neuralpde as npde

ANGLE, TIMES = 0.3, torch.linspace(0, 40, 81, dtype=torch.float64)


def main(out: Path = Path("exact_waves.png")) -> dict[str, float]:
    """Let a drop fall on a bumpy sphere, watch the energy of three solutions, and draw them to `out`."""
    tell = Console(highlight=False, soft_wrap=True).print
    mesh = npde.bumpy(npde.icosphere(3))
    laplacian = npde.robust_laplacian(mesh)
    wave, fastest = npde.Wave(laplacian, speed=1.0), laplacian.largest_eigenvalue() ** 0.5
    drop = torch.exp(-20 * (mesh.vertices - mesh.vertices[0]).square().sum(1, keepdim=True))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panel = figure.add_subplot(1, 3, 1, xlabel="t", ylabel="relative error of the energy", yscale="log")

    found = {"bound": ANGLE**2 / 4}
    with torch.no_grad():
        for solver in (npde.RK4(dt=4 * ANGLE / fastest), npde.StoermerVerlet(dt=ANGLE / fastest), npde.Exponential()):
            monitor, name = npde.Monitor(wave), type(solver).__name__
            solution = npde.integrate(wave, (drop, torch.zeros_like(drop)), TIMES, solver, monitor=monitor)
            found[name], found[f"{name} products"] = monitor.checks()[0].violation, solution.stats.nfe
            energy = torch.stack(monitor.values["wave energy"]).squeeze()
            panel.plot(monitor.t, (energy / energy[0] - 1).abs().clamp(min=1e-17), label=name, linewidth=1)
            tell(f"{name}: {solution.stats.nfe} products with L, energy off by {found[name]:.1e} at most")
        back = npde.integrate(wave, solution.final, TIMES.flip(0), npde.Exponential()).final
    found["back again"] = float((back[0] - drop).norm() / drop.norm())
    tell(f"run backwards, the drop is there again to {found['back again']:.1e}; see {out}")

    panel.legend()
    for place, when in ((2, 3), (3, 60)):
        axes = figure.add_subplot(1, 3, place, projection="3d", title=f"u at the time {float(TIMES[when]):g}")
        shown = axes.plot_trisurf(*mesh.vertices.T.numpy(), triangles=mesh.faces.numpy(), cmap="RdBu_r", vmin=-0.2, vmax=0.2)
        shown.set_array(solution.x[0][when, mesh.faces, 0].mean(1).numpy())
        axes.set(aspect="equal")
        axes.set_axis_off()
    figure.savefig(out, dpi=110)
    return found


if __name__ == "__main__":
    tyro.cli(main)
