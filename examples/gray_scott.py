"""Pattern formation on a surface: Gray and Scott's two species, from a few seeds and out of nothing, beside linear theory.

u_t = −D_u L u − u v² + F (1 − u), v_t = −D_v L v + u v² − (F + k) v: v eats u, which is fed in, and dies. `GrayScott` knows the
regimes that Pearson found in 1993; a pattern needs a Laplacian only, so a bumpy ball does as well as a square. Where spots are
`dividing`, a few seeds fill the surface, and are counted. At F = 0.055, k = 0.062 a uniform state is unstable: `preferred` tells
the wavelength that linear theory expects (Turing 1952), the Rayleigh quotient of what grows out of noise the one that comes.
Run it with `python examples/gray_scott.py`; it takes some seconds and draws gray_scott.png.
"""

import math
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from scipy.sparse.csgraph import connected_components

import neuralpde as npde

RADIUS, EULER = 14.0, npde.Euler(dt=1.0)


def main(out: Path = Path("gray_scott.png")) -> dict[str, float]:
    """Grow both patterns, measure them, and draw them to `out`."""
    tell = Console(highlight=False, soft_wrap=True).print
    mesh = npde.bumpy(npde.icosphere(4, RADIUS))
    laplacian = npde.robust_laplacian(mesh)
    spots = npde.GrayScott.dividing(laplacian)
    with torch.no_grad():
        _, v = npde.integrate(spots, spots.seeded(patches=4), [0.0, 6000.0], EULER).final
    bright = v[:, 0] > (v.max() + v.min()) / 2
    graph = npde.Graph(mesh.edges[:, bright[mesh.edges].all(0)], mesh.num_nodes).undirected()
    pieces, _ = connected_components(npde.combinatorial_laplacian(graph).stiffness.to_scipy())
    found = {"spots": float(pieces - int((~bright).sum())), "contrast": float(v.max() - v.min())}
    tell(f"{found['spots']:.0f} spots from 4 seeds; v from {float(v.min()):.3f} to {float(v.max()):.3f}")

    waves = npde.GrayScott(laplacian, feed=0.055, kill=0.062)
    rest = waves.uniform()
    found["theory"] = 2 * math.pi / math.sqrt(waves.preferred(rest))
    noise = 1e-3 * torch.randn(2, mesh.num_nodes, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        _, waved = npde.integrate(waves, (rest[0] + noise[0], rest[1] + noise[1]), [0.0, 4000.0], EULER).final
    uneven = waved - (laplacian.mass @ waved) / laplacian.mass.sum()
    found["wavelength"] = 2 * math.pi / math.sqrt(float(npde.rayleigh_quotient(laplacian, uneven)))
    tell(f"waves of length {found['wavelength']:.1f} grow out of noise; linear theory says {found['theory']:.1f}. See {out}")

    axes = Figure(figsize=(9, 4), layout="constrained").subplots(1, 2, subplot_kw={"projection": "3d"})
    for panel, name, field in zip(axes, ("dividing spots", "waves from noise"), (v, waved), strict=True):
        surface = panel.plot_trisurf(*mesh.vertices.T.numpy(), triangles=mesh.faces.numpy(), cmap="magma", vmin=0, vmax=0.4)
        surface.set_array(field[mesh.faces, 0].mean(1).numpy())
        panel.set_title(name)
        panel.set_box_aspect((mesh.vertices.amax(0) - mesh.vertices.amin(0)).tolist(), zoom=1.5)
        panel.set_axis_off()
    axes[0].figure.savefig(out, dpi=110)
    return found


if __name__ == "__main__":
    tyro.cli(main)
