"""From a broken mesh to a learned equation: report and repair, spectrum, distance, and a diffusivity D(x) found from data.

Somewhere on a surface lies a patch that conducts badly. Given are only a few fields at the time 0 and, with noise, what
heat has made of them at the time T (in the same time steps). Each operator on the way to the patch is one line:

* `report_mesh` says what is wrong with a list of triangles; `clean_mesh` repairs it, and carries fields there and back.
* `eigenpairs` of a Laplacian are the smoothest functions φ_k on the surface, in which log D is written here.
* `geodesic_distance` is the distance along the surface; it places the patch.
* `MeshDiffusion` makes the Laplacian of any D, differentiably, and `PatchyHeat` an equation of that. D is learned *through
  the solver*. It may take large implicit steps (`BackwardEuler`), since the equation exposes its `linear` part.

Run it with `python examples/surface_operators.py`, or with `--mesh bunny.ply`; it draws what it found, in some seconds.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn

import neuralpde as npde

FUNCTIONS, FIELDS, NOISE, STEPS = 60, 6, 1e-3, 50


class PatchyHeat(npde.RightHandSide):
    """u_t = div (D grad u), with log D = Σ_k c_k φ_k and c to be learned."""

    def __init__(self, mesh: npde.TriangleMesh, functions: Tensor) -> None:
        super().__init__()
        self.mesh, self.functions, self.assemble = mesh, functions, npde.MeshDiffusion(mesh)
        self.c = nn.Parameter(functions.new_zeros(functions.shape[1]))

    @property
    def linear(self) -> npde.LinearPart:
        diffusivity = torch.exp(self.functions @ self.c)
        return npde.Heat(self.assemble(npde.face_average(self.mesh, diffusivity))).linear

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.linear @ u


def broken_torus() -> tuple[np.ndarray, np.ndarray]:
    """What a careless exporter makes of a bumpy torus: no shared vertices, some faces twice, some inside out."""
    points, faces = npde.bumpy(npde.torus(72, 32)).arrays
    soup = np.arange(3 * len(faces)).reshape(-1, 3)
    soup[::7] = soup[::7, ::-1]
    return points[faces].reshape(-1, 3), np.concatenate([soup, soup[:100]])


def recover(equation: PatchyHeat, start: Tensor, end: Tensor, times: list[float], solver: npde.BackwardEuler) -> float:
    """Learn c from the two snapshots; the relative misfit that is left."""
    optimizer = torch.optim.LBFGS(equation.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        squared = ((npde.integrate(equation, start, times, solver).x[-1] - end) ** 2).sum() / (end**2).sum()
        squared.backward()
        return squared

    optimizer.step(loss)
    return float(loss().detach()) ** 0.5


def view(mesh: npde.TriangleMesh) -> np.ndarray:
    """The vertices as seen along the direction of least extent, tilted a little: right, up, and towards the eye."""
    points = mesh.arrays[0] - mesh.arrays[0].mean(0)
    principal = np.linalg.svd(points, full_matrices=False)[2]
    tilt = np.array([[1, 0, 0], [0, 0.85, 0.53], [0, -0.53, 0.85]])
    return points @ (principal * np.sign(np.linalg.det(principal))).T @ tilt.T


def paint(axes: Axes, title: str, mesh: npde.TriangleMesh, x: Tensor, colours: str, low: float, high: float) -> None:
    """The triangles from the back to the front, coloured by x (n,) in twenty bands."""
    finer = npde.subdivide(mesh, 1 if len(mesh.faces) < 20_000 else 0, smooth=True)
    values = (finer.prolongation @ x.nan_to_num(posinf=high)[:, None])[finer.mesh.faces, 0].mean(1)
    bands = torch.floor(20 * (values - low) / (high - low)) / 20 * (high - low) + low
    corners, scale = view(finer.mesh)[finer.mesh.arrays[1]], ScalarMappable(Normalize(low, high), colours)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    light = np.abs(normals @ [-0.35, 0.5, 0.79]) / np.linalg.norm(normals, axis=1)
    colour = scale.to_rgba(bands.numpy()) * np.column_stack([0.55 + 0.45 * light] * 3 + [np.ones_like(light)])
    order = corners[:, :, 2].mean(1).argsort()
    axes.add_collection(PolyCollection(corners[order, :, :2], facecolors=colour[order], edgecolors=colour[order], linewidths=0.3))
    axes.autoscale_view()
    axes.set(aspect="equal", title=title)
    axes.set_axis_off()
    axes.figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.6, pad=0.02, aspect=36)


def table(before: npde.MeshReport, after: npde.MeshReport) -> str:
    """The two reports side by side, where they tell something."""
    names = "vertices faces components boundary_edges duplicate_faces coincident_vertices closed manifold consistently_oriented"
    rows = [f"{'':<24}{'as found':>10}{'repaired':>12}"]
    for name in [*names.split(), "area"]:
        found = [getattr(report, name) for report in (before, after)]
        told = [{True: "yes", False: "no"}[x] if isinstance(x, bool) else f"{x:,.5g}" for x in found]
        rows.append(f"{name.replace('_', ' '):<24}{told[0]:>10}{told[1]:>12}")
    return "\n".join(rows)


def main(mesh: Path | None = None, out: Path = Path("surface_operators.png")) -> dict[str, float]:
    """Repair a surface, and find a patch on it that conducts badly.

    Args:
        mesh: any file that `read_mesh` knows; a torus with many defects if absent.
        out: the picture.
    """
    tell = Console(highlight=False, soft_wrap=True).print
    vertices, faces = broken_torus() if mesh is None else npde.read_mesh(mesh)
    before = npde.report_mesh(vertices, faces)
    surface = npde.TriangleMesh.from_clean(npde.clean_mesh(vertices, faces))
    after = surface.report()
    tell(f"{before}\n\nrepair: {surface.cleaning}\n\n{after}\n")

    laplacian = npde.robust_laplacian(surface)
    pairs = npde.eigenpairs(laplacian, FUNCTIONS)
    functions = pairs.vectors * surface.area**0.5  # of mean square one
    centre = int(view(surface)[:, 2].argmax())
    distance = npde.geodesic_distance(surface, centre)
    farthest = float(distance[distance.isfinite()].max())
    tell("eigenvalues × area:", ", ".join(f"{value:.2f}" for value in (pairs.values.abs() * surface.area)[:6].tolist()))
    tell(f"the farthest point from vertex {centre} is {farthest:.4g} away along the surface")

    truth = 1 - 0.9 * torch.exp(-25 * distance**2 / surface.area)  # a tenth in the middle of the patch
    noise = torch.randn(surface.num_nodes, 2 * FIELDS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = laplacian.solve(0.002 * surface.area, noise[:, :FIELDS])
    times, solver = [0.0, 0.005 * surface.area], npde.BackwardEuler(dt=0.001 * surface.area)
    heat = npde.Heat(npde.diffusion_laplacian(surface, npde.face_average(surface, truth)))
    end = npde.integrate(heat, start, times, solver).x[-1]
    end += NOISE * end.std() * noise[:, FIELDS:]
    equation = PatchyHeat(surface, functions)
    misfit = recover(equation, start, end, times, solver)
    learned = torch.exp(functions @ equation.c).detach()
    guess, error = (float((D - truth).norm() / truth.norm()) for D in (torch.ones_like(truth), learned))
    tell(f"D is learned to {error:.1%} (as one everywhere it is off by {guess:.0%}), with a misfit of {misfit:.1e}")
    tell(f"and carried back to the {len(surface.cleaning.to_original(learned[:, None])):,} vertices as found; see {out}")
    wide, high = np.ptp(view(surface)[:, :2], axis=0)
    figure = Figure(figsize=(14, 2 + 9 * max(high / wide, 0.4)), layout="constrained")
    panels = figure.subplots(2, 3, gridspec_kw={"wspace": 0.08, "hspace": 0.08}).flat
    panels[0].text(0.0, 0.6, table(before, after), family="monospace", fontsize=11, va="center", linespacing=1.6)
    panels[0].set_axis_off()
    widest, hottest = float(functions[:, 8].abs().max()), float(end[:, 0].abs().max())
    paint(panels[1], f"eigenfunction 8, λ = {float(pairs.values[8]):.3g}", surface, functions[:, 8], "RdBu_r", -widest, widest)
    paint(panels[2], "geodesic distance", surface, distance, "magma", 0.0, farthest)
    paint(panels[3], "one of the fields at the time T", surface, end[:, 0], "RdYlBu_r", -hottest, hottest)
    paint(panels[4], "the true D", surface, truth, "viridis", 0.0, 1.2)
    paint(panels[5], f"D learned from the fields, to {error:.1%}", surface, learned, "viridis", 0.0, 1.2)
    figure.savefig(out, dpi=110)
    return {"guess": guess, "learned": error, "misfit": misfit, "defects": float(len(after.problems))}


if __name__ == "__main__":
    tyro.cli(main)
