"""A law learned at scattered sensors, at irregular times, and used at sensors that it has never seen: u_t = κ Δu − r u.

The truth is exact: puffs that spread and fade. A stencil at scattered points must be learned, and yet the Laplacian of a linear
field must stay zero and the flow stable: `PositiveLaplacian` is exact on polynomials, and has off-diagonal entries of one sign,
whatever its network says; so nothing can grow, on any sensors. Network, κ and r are learned through the solver, from seven
moments at 250 sensors; then `.on` moves the law to 250 others. Beside it stands the same without a network, told κ and r.
Run it with `python examples/scattered_sensors.py`; it takes some seconds and draws scattered_sensors.png.
"""

from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

import neuralpde as npde

SPREAD, DECAY, WIDTH = 0.1, 0.5, 0.15
TIMES = torch.tensor([0.0, 0.07, 0.11, 0.3, 0.36, 0.71, 1.0], dtype=torch.float64)


class Smoke(npde.RightHandSide):
    """u_t = −κ L u − r u."""

    def __init__(self, laplacian: npde.ConsistentLaplacian, spread: float, decay: float) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.log_spread = nn.Parameter(torch.tensor(spread).double().log())
        self.decay = nn.Parameter(torch.tensor(decay).double())

    def starting_at(self, x0: Tensor) -> npde.RightHandSide:
        laplacian = self.laplacian.operator()  # once a solve: it does not change in it
        return npde.as_right_hand_side(lambda t, u: -self.log_spread.exp() * (laplacian @ u) - self.decay * u)


def truth(points: Tensor) -> Tensor:
    """The puffs at each time, (7, n, 1)."""
    width = WIDTH + 2 * SPREAD * TIMES[:, None, None]
    distance = [(points - torch.tensor(centre)).square().sum(-1, keepdim=True) for centre in ((1.5, 1.4), (2.6, 2.2), (1.4, 2.6))]
    puffs = [size * WIDTH / width * torch.exp(-r2 / (2 * width)) for size, r2 in zip((1.0, -0.8, 0.7), distance, strict=True)]
    return torch.exp(-DECAY * TIMES)[:, None, None] * torch.stack(puffs).sum(0)


def main(out: Path = Path("scattered_sensors.png")) -> dict[str, float]:
    """Learn the law at some sensors, use it at others, and draw both against the truth to `out`."""
    places = 4 * torch.rand(2, 250, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here, there = (npde.PointCloud(points) for points in places)
    seen, unseen = truth(here.points), truth(there.points)
    near, far = (npde.PositiveMoments(cloud, neighbours=16) for cloud in (here, there))
    flow = Smoke(npde.PositiveLaplacian(near, npde.NetworkCorrection(2, 1)), spread=0.2, decay=0.0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        error = (npde.integrate(flow, seen[0], TIMES, npde.RKC2(rtol=1e-3)).x - seen).square().mean()
        error.backward()
        optimizer.step()

    plain = Smoke(npde.PositiveLaplacian(far), SPREAD, DECAY)
    found = {"spread": float(flow.log_spread.detach().exp()), "decay": float(flow.decay.detach())}
    paths = {}
    with torch.no_grad():
        for name, law in (("learned", flow.on(there)), ("not learned", plain)):
            paths[name] = npde.integrate(law, unseen[0], TIMES, npde.RKC2(rtol=1e-3)).x
            found[name] = float((paths[name][-1] - unseen[-1]).norm() / unseen[-1].norm())
    found["growth"] = float(paths["learned"].abs().amax((1, 2)).diff().max())
    print(", ".join(f"{name} {value:.3g}" for name, value in found.items()) + f" (true {SPREAD}, {DECAY}); see {out}")

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    errors = {f"{name}: {100 * found[name]:.1f} % off": path - unseen for name, path in paths.items()}
    shown = {"the truth at new sensors, t = 1": unseen, **errors}
    for k, (title, path) in enumerate(shown.items()):
        panel = figure.add_subplot(1, 3, k + 1, title=title, aspect="equal")
        limit = 0.4 if path is unseen else 0.03
        dots = panel.scatter(*there.points.T.numpy(), c=path[-1, :, 0].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        figure.colorbar(dots, ax=panel, shrink=0.8, label="u" if path is unseen else "error of u")
    figure.savefig(out, dpi=100)
    return found


if __name__ == "__main__":
    tyro.cli(main)
