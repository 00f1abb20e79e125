"""A stiff neural PDE: the step that accuracy asks instead of the one that stability allows, and learning through it.

Cahn and Hilliard's equation u_t = −m L (ε² L u + u³ − u) separates two phases on a surface. Its fastest mode decays at
m ε² λ_max², so an explicit solver crawls, however smooth u is. A class that says what its `linear` part is lets `ARK324` and
`SBDF2` solve that part implicitly (one factor serves many steps); without a solver `integrate` looks at the equation,
chooses, and says in `stats.reason` what and why. Then m is forgotten, and found again from a trajectory by the default
gradient, `Checkpointed()`: exact for the discrete solution, with the factors of the forward pass used again backwards.
Run it with `python examples/stiff_pde.py`; it takes some seconds and draws stiff_pde.png.
"""

import time
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn

import neuralpde as npde

WIDTH, TRUE_MOBILITY, FIRST_GUESS, TIMES = 0.3, 1.0, 0.3, [0.0, 0.5, 1.0]


class PhaseField(npde.RightHandSide):
    """u_t = −m L (ε² L u + u³ − u), with log m to be learned."""

    def __init__(self, laplacian: npde.Laplacian, mobility: float) -> None:
        super().__init__()
        self.laplacian, self.ready = laplacian, npde.CahnHilliard(laplacian, WIDTH)
        self.log_mobility = nn.Parameter(torch.tensor(mobility, dtype=laplacian.dtype).log())

    @property
    def linear(self) -> npde.LinearPart | None:
        return (self.log_mobility.exp() * self.ready).linear

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        return self.log_mobility.exp() * (self.laplacian @ (u - u**3))


def main(out: Path = Path("stiff_pde.png")) -> dict[str, float]:
    """Compare solvers on a stiff equation, learn its mobility through one, and draw the phases to `out`."""
    tell = Console(highlight=False, soft_wrap=True).print
    mesh = npde.bumpy(npde.icosphere(3))
    laplacian = npde.robust_laplacian(mesh)
    equation = PhaseField(laplacian, TRUE_MOBILITY)
    stiffness = (WIDTH * laplacian.largest_eigenvalue()) ** 2 * TRUE_MOBILITY * TIMES[-1]
    tell(f"{mesh.num_nodes} vertices, λT = {stiffness:.0f}")
    noise = torch.randn(mesh.num_nodes, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = 2 * laplacian.solve(0.02, noise)

    found = {}
    with torch.no_grad():
        truth = npde.integrate(equation, start, TIMES, dense=True)
        tell(f"without a solver: {truth.stats.accepted} steps. {truth.stats.reason}")
        # A twentieth of the way is enough of Dopri5.
        for solver, until in ((npde.ARK324(1e-3, 1e-5), 1.0), (npde.SBDF2(dt=0.005), 1.0), (npde.Dopri5(1e-3, 1e-5), 0.05)):
            name, began = type(solver).__name__, time.perf_counter()
            solution = npde.integrate(equation, start, [0.0, until], solver)
            seconds, stats = (time.perf_counter() - began) / until, solution.stats
            found[name] = stats.accepted / until
            tell(f"{name}: {seconds:.2f} s and {found[name]:.0f} steps a unit of time. Until {until}: {stats}")
            found[f"{name} error"] = float((solution.final - truth.at(until)).norm() / truth.final.norm())
            tell(f"    error {found[f'{name} error']:.1e}")

    learner = PhaseField(laplacian, FIRST_GUESS)
    optimizer = torch.optim.LBFGS(learner.parameters(), max_iter=12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        squared = ((npde.integrate(learner, start, TIMES, npde.SBDF2(dt=0.01)).x - truth.x) ** 2).mean()
        squared.backward()
        return squared

    optimizer.step(loss)
    found["mobility"] = float(learner.log_mobility.detach().exp())
    tell(f"mobility {found['mobility']:.4f} (true {TRUE_MOBILITY}, first guess {FIRST_GUESS}), found through SBDF2; see {out}")
    axes = Figure(figsize=(9, 4), layout="constrained").subplots(1, 2, subplot_kw={"projection": "3d"})
    for panel, when, u in zip(axes, TIMES[::2], truth.x[::2], strict=True):
        surface = panel.plot_trisurf(*mesh.vertices.T.numpy(), triangles=mesh.faces.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        surface.set_array(u[mesh.faces, 0].mean(1).numpy())
        panel.set(aspect="equal", title=f"u at the time {when}")
        panel.set_axis_off()
    axes[0].figure.savefig(out, dpi=110)
    return found


if __name__ == "__main__":
    tyro.cli(main)
