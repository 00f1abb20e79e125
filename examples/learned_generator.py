"""A law of motion learned on one surface and right on another: u_tt = −Ω²(L) u − D(L) u_t, with Ω², D ≥ 0 whatever is learned.

The truth is a viscous plate under tension, u_tt = −(c² L + b L²) u − d L u_t, solved by a Runge–Kutta method that knows nothing
of what follows. `MetriplecticWave` sees twenty frames on a bumpy sphere. Its coefficients carry no unit: masses and areas are
in L, the time step is given. So `.over(another L, another time step)` is the same law elsewhere: here on a torus, ten times
longer than any training frame, where the energy can only fall, by construction and not by luck.
Run it with `python examples/learned_generator.py`; it takes some seconds and draws learned_generator.png.
"""

from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

import neuralpde as npde

TENSION, STIFFNESS, VISCOSITY, STEP, FRAMES = 1.0, 0.004, 0.02, 0.1, 20


def truth(laplacian: npde.Laplacian, x: tuple[Tensor, Tensor], times: Tensor) -> tuple[Tensor, Tensor]:
    def plate(t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        Lu = laplacian @ x[0]
        return x[1], -TENSION * Lu - STIFFNESS * (laplacian @ Lu) - VISCOSITY * (laplacian @ x[1])

    return npde.integrate(plate, x, times, npde.Dopri5(rtol=1e-6, atol=1e-8)).x


def start(mesh: npde.TriangleMesh) -> tuple[Tensor, Tensor]:
    u = torch.exp(-8 * (mesh.vertices - mesh.vertices[:1]).square().sum(1, keepdim=True))
    return u, torch.zeros_like(u)


def main(out: Path = Path("learned_generator.png")) -> dict[str, float]:
    """Learn a generator from frames on a sphere, roll it out on a torus, and draw both against the truth to `out`."""
    sphere, torus = npde.bumpy(npde.icosphere(2)), npde.torus(24, 12)
    near, far = npde.robust_laplacian(sphere), npde.robust_laplacian(torus)
    times, later = STEP * torch.arange(FRAMES + 1.0).double(), STEP * torch.arange(10 * FRAMES + 1.0).double()
    seen, unseen = truth(near, start(sphere), times)[0], truth(far, start(torus), later)[0]

    flow = npde.MetriplecticWave(near, STEP, stiffness=(0.3, 0.1), damping=(0.01,))
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (npde.integrate(flow, start(sphere), times, npde.Exponential()).x[0] - seen).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    found = {"tension": float(flow.stiffness[0].detach()), "stiffness": float(flow.stiffness[1].detach()) * STEP**2}
    found["viscosity"] = float(flow.damping[0].detach()) * STEP
    moved = flow.over(far, STEP)
    with torch.no_grad():
        u, v = npde.integrate(moved, start(torus), later, npde.Exponential()).x
        found["energy gained"] = moved.invariants[0].violation((u, v))
    found["error"] = float(((u - unseen).square().sum((1, 2)) / unseen.square().sum((1, 2))).max().sqrt())
    said = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
    print(f"{said} (true {TENSION}, {STIFFNESS}, {VISCOSITY}); see {out}")

    figure = Figure(figsize=(10, 4), layout="constrained")
    for k, (title, path) in enumerate({"the truth": unseen, "learned on a sphere": u}.items()):
        panel = figure.add_subplot(1, 2, k + 1, projection="3d")
        surface = panel.plot_trisurf(*torus.vertices.T.numpy(), triangles=torus.faces.numpy(), cmap="RdBu_r", vmin=-0.2, vmax=0.2)
        surface.set_array(path[5 * FRAMES, torus.faces, 0].mean(1).numpy())
        panel.set(aspect="equal", title=f"{title}, five times longer")
        panel.set_axis_off()
    figure.savefig(out, dpi=100)
    return found


if __name__ == "__main__":
    tyro.cli(main)
