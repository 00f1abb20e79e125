"""A new neural PDE is one class: here Fisher's equation u_t = −D L u + r u (1 − u), of a population that spreads.

Inherit from `RightHandSide` and write `forward(t, u)`. What should be learned is an `nn.Parameter`; the surface enters
through an operator (here a Laplacian, which is positive: diffusion is −L). Every solver, gradient and training loop then
takes the class as it is.

This example makes a trajectory with known D and r on a bumpy sphere, forgets them, and finds them again by training
*through the solver*. Run it with `python examples/custom_pde.py`; it takes some seconds and draws custom_pde.png.
"""

import torch
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


def main() -> dict[str, float]:
    """Recover D = 0.02 and r = 1.5 from a trajectory, starting at 0.1 and 0.5."""
    mesh = npde.bumpy(npde.icosphere(3))
    laplacian = npde.robust_laplacian(mesh)
    times = torch.linspace(0, 2, 5, dtype=torch.float64)
    # A colony at the north pole, a smaller one at the south.
    height = mesh.vertices[:, 2:]
    start = 0.6 * torch.exp(-8 * (height - 1) ** 2) + 0.3 * torch.exp(-8 * (height + 1) ** 2)
    with torch.no_grad():
        truth = npde.integrate(FisherKPP(laplacian, 0.02, 1.5), start, times, npde.Dopri5(rtol=1e-6, atol=1e-8)).x

    equation = FisherKPP(laplacian, 0.1, 0.5)
    optimizer = torch.optim.LBFGS(equation.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        path = npde.integrate(equation, start, times, npde.Dopri5(rtol=1e-6, atol=1e-8)).x
        loss = ((path - truth) ** 2).mean() / (truth**2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = {"D": float(equation.log_diffusivity.detach().exp()), "r": float(equation.rate.detach())}
    print(f"D = {found['D']:.5f} (true 0.02), r = {found['r']:.5f} (true 1.5)")
    npde.save_fields("custom_pde.png", mesh, {f"t = {float(s)}": u for s, u in zip(times, truth, strict=True)}, limits=(0, 1))
    return found


if __name__ == "__main__":
    main()
