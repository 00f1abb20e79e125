"""A new neural PDE is one class: here Fisher's equation u_t = −D L u + r u (1 − u), of a population that spreads.

Inherit from `RightHandSide` and write `forward(t, u)`. What should be learned is an `nn.Parameter`; the surface enters
through an operator (here a Laplacian, which is positive: diffusion is −L). That is all: every solver, gradient and
training loop takes the class as it is.

This example makes a trajectory with known D and r on a bumpy sphere, forgets them, and finds them again by training
*through the solver*: guess, integrate, compare with the trajectory, step against the gradient. It does so twice:

* with `Direct()`, the exact gradient of the discrete solution. Use it unless memory forbids.
* with `Adjoint()`, which solves a second equation backwards in time and needs no memory for the steps. Backwards,
  diffusion amplifies the mode of eigenvalue λ by exp(D λ T): fine here, where D λ_max T is about 2, hopeless where it
  is 100. That number is printed, because it decides which gradient you can have.

Run it with `python examples/custom_pde.py`; it takes some seconds.
"""

import torch
from rich.console import Console
from torch import nn

import neuralpde as npde


class FisherKPP(npde.RightHandSide):
    """u_t = −D L u + r u (1 − u)."""

    def __init__(self, laplacian: npde.Laplacian, diffusivity: float, rate: float) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.log_diffusivity = nn.Parameter(torch.tensor(diffusivity, dtype=laplacian.dtype).log())
        self.rate = nn.Parameter(torch.tensor(rate, dtype=laplacian.dtype))

    def forward(self, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return -self.log_diffusivity.exp() * (self.laplacian @ u) + self.rate * u * (1 - u)


TRUE_DIFFUSIVITY, TRUE_RATE = 0.02, 1.5
FIRST_GUESS = (0.1, 0.5)
TIMES = torch.linspace(0, 1, 5, dtype=torch.float64)
TOLERANCES = {"rtol": 1e-6, "atol": 1e-8}
STEPS = 60


def recover(
    laplacian: npde.Laplacian, truth: torch.Tensor, gradient: npde.Direct | npde.Adjoint, console: Console
) -> tuple[float, float, int]:
    """Train D and r so that the solution from truth[0] passes through the rest; count evaluations."""
    equation = FisherKPP(laplacian, *FIRST_GUESS)
    solver = npde.Dopri5(**TOLERANCES, gradient=gradient)
    optimizer = torch.optim.LBFGS(equation.parameters(), lr=1.0, max_iter=STEPS, line_search_fn="strong_wolfe")
    evaluations = 0

    def closure() -> torch.Tensor:
        nonlocal evaluations
        optimizer.zero_grad()
        solution = npde.integrate(equation, truth[0], TIMES, solver)
        loss = ((solution.x - truth) ** 2).mean() / (truth**2).mean()
        loss.backward()
        evaluations += solution.stats.nfe + solution.stats.nfe_backward
        console.print(f"  relative error of the trajectory {float(loss.detach()) ** 0.5:.1e}")
        return loss

    optimizer.step(closure)
    return float(equation.log_diffusivity.detach().exp()), float(equation.rate.detach()), evaluations


def main() -> dict[str, tuple[float, float]]:
    """Recover (D, r) with both gradients."""
    console = Console()
    mesh = npde.bumpy(npde.icosphere(2))
    laplacian = npde.robust_laplacian(mesh)
    stiffness = TRUE_DIFFUSIVITY * laplacian.largest_eigenvalue() * float(TIMES[-1])
    console.print(f"{mesh.num_nodes} vertices, D λ_max T = {stiffness:.1f}")

    # A colony at the north pole, a smaller one at the south.
    height = mesh.vertices[:, 2:]
    start = 0.6 * torch.exp(-8 * (height - 1) ** 2) + 0.3 * torch.exp(-8 * (height + 1) ** 2)
    with torch.no_grad():
        known = FisherKPP(laplacian, TRUE_DIFFUSIVITY, TRUE_RATE)
        truth = npde.integrate(known, start, TIMES, npde.Dopri5(**TOLERANCES)).x

    found = {}
    for name, gradient in {"direct": npde.Direct(), "adjoint": npde.Adjoint()}.items():
        diffusivity, rate, evaluations = recover(laplacian, truth, gradient, console)
        found[name] = (diffusivity, rate)
        console.print(
            f"{name}: D = {diffusivity:.5f} (true {TRUE_DIFFUSIVITY}), r = {rate:.5f} (true {TRUE_RATE}), NFE {evaluations}"
        )
    return found


if __name__ == "__main__":
    main()
