"""Everything that is shipped, as functions of a domain, with the laws that each does not promise and why."""

import torch
from hypothesis import strategies as st

import neuralpde as npde
from neuralpde.acoustics import Acoustics
from neuralpde.anisotropic_heat import AnisotropicHeat
from neuralpde.burgers import Burgers
from neuralpde.fitzhugh_nagumo import FitzHughNagumo
from neuralpde.gray_scott import GrayScott
from neuralpde.image_flow import ImageBeltramiFlow
from neuralpde.kuramoto_sivashinsky import KuramotoSivashinsky
from neuralpde.mean_curvature import MeanCurvatureFlow
from neuralpde.nonlinear_diffusion import PeronaMalik, PLaplacian
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.polyakov import PolyakovFlow
from neuralpde.reaction import FisherKPP
from neuralpde.schnakenberg import Schnakenberg
from neuralpde.schroedinger import Schroedinger
from neuralpde.testing_graphs import graphs
from neuralpde.testing_grids import grids
from neuralpde.testing_laplacian import (
    GEOMETRIC_LAWS,
    constants_of_each_component_are_killed,
    energy_of_the_coordinates_is_the_area,
    linear_functions_are_harmonic_inside,
)
from neuralpde.testing_meshes import meshes
from neuralpde.transport import Advection, AdvectionDiffusion
from neuralpde.unitary import UnitaryFlow
from neuralpde.waves import Wave
from operators import Boundary, Grid, Laplacian, TriangleMesh
from operators.delaunay import intrinsic_delaunay
from operators.diffusion import diffusion_laplacian
from operators.diffusivity import Diffusivity
from operators.exponential_kernel import ExponentialKernel
from operators.grids import grid_laplacian
from operators.normalisation import Over, Softmax, Squareplus


def unit_diffusion(mesh: TriangleMesh):
    return diffusion_laplacian(mesh, 1.0)


def striped_diffusion(mesh: TriangleMesh):
    # By area, which neither numbering nor motion changes.
    areas = npde.face_gradient(mesh).weight[::3]
    return diffusion_laplacian(mesh, (areas / areas.mean()).sqrt())


def symmetrized_cotangent(mesh: TriangleMesh):
    return npde.cotangent_laplacian(mesh).symmetrized()


def normalized_robust(mesh: TriangleMesh):
    return npde.normalized_laplacian(npde.robust_laplacian(mesh))


def edges_of_a_mesh(mesh: TriangleMesh):
    return npde.combinatorial_laplacian(mesh.graph())


def root_of_degree(graph):
    return npde.random_walk_laplacian(graph).mass.sqrt()[:, None]


def root_of_mass(mesh):
    return npde.cotangent_laplacian(mesh).mass.sqrt()[:, None]


def root_of_robust_degree(mesh):
    L = npde.robust_laplacian(mesh)
    return npde.adjacency_of(L).row_sums().sqrt()[:, None]


def unambiguous(mesh: TriangleMesh) -> bool:
    """Whether no four vertices lie on one circle; where they do, round-off decides which Delaunay triangulation is taken."""
    surface, _ = intrinsic_delaunay(mesh)
    return not bool((surface.angle_excess((surface.twin >= 0).nonzero()[:, 0]).abs() < 1e-6).any())


AREA, HARMONIC = energy_of_the_coordinates_is_the_area, linear_functions_are_harmonic_inside
ROUND = meshes(slivers=False).filter(unambiguous)
DELAUNAY = st.one_of(meshes(), meshes(planar=True)).filter(unambiguous)
ONE_WAY = graphs(directed=True)
CONSTANTS = constants_of_each_component_are_killed
JOINED = graphs(weights=("ones", "dyadic")).filter(lambda graph: bool((graph.edge_index[0] != graph.edge_index[1]).any()))
BOXES = grids(dimensions=(2,), boundaries=(Boundary.NEUMANN, Boundary.PERIODIC))

# (builder, what assert_laplacian is told besides)
LAPLACIANS = [
    (npde.combinatorial_laplacian, {}),
    (npde.random_walk_laplacian, {}),
    (npde.symmetric_laplacian, {"kernel": root_of_degree}),
    (npde.signed_laplacian, {}),
    (npde.normalized_signed_laplacian, {"kernel": root_of_degree}),
    # Directions turn phases, so that constants are in the kernel only where there are none.
    (npde.magnetic_laplacian, {"domain": ONE_WAY, "without": {CONSTANTS}}),
    (npde.normalized_magnetic_laplacian, {"domain": ONE_WAY, "without": {CONSTANTS}}),
    (npde.cotangent_laplacian, {}),
    (npde.intrinsic_delaunay_laplacian, {"domain": DELAUNAY}),
    # Its tufted cover bends the boundary, and mollification lengthens needles.
    (npde.robust_laplacian, {"domain": ROUND, "without": {AREA, HARMONIC}}),
    (unit_diffusion, {}),
    (striped_diffusion, {"without": {AREA, HARMONIC}}),
    (symmetrized_cotangent, {"kernel": root_of_mass, "without": {AREA, HARMONIC}}),
    (normalized_robust, {"domain": ROUND, "kernel": root_of_robust_degree, "without": GEOMETRIC_LAWS[1:]}),
    (edges_of_a_mesh, {"without": GEOMETRIC_LAWS[1:]}),
    (grid_laplacian, {}),
]
"""Laplacians, and what each does not promise."""
GRADIENTS = [npde.edge_gradient, npde.face_gradient, npde.vertex_gradient]


# -- right-hand sides


def heat(L: Laplacian):
    return npde.Heat(L, 0.7, learn=True)


def wave(L: Laplacian):
    return Wave(L, 1.5)


def damped_klein_gordon(L: Laplacian):
    return Wave(L, 1.5, damping=0.2, mass=0.5)


def allen_cahn(L: Laplacian):
    return AllenCahn(L, 0.3)


def cahn_hilliard(L: Laplacian):
    return CahnHilliard(L, 0.3)


def schroedinger(L: Laplacian):
    return Schroedinger(L)


def acoustics(L: Laplacian):
    return Acoustics(L)


def fisher(L: Laplacian):
    return FisherKPP(L)


def gray_scott(L: Laplacian):
    return GrayScott(L)


def fitzhugh_nagumo(L: Laplacian):
    return FitzHughNagumo(L)


def schnakenberg(L: Laplacian):
    return Schnakenberg(L)


def kuramoto(L: Laplacian):
    return KuramotoSivashinsky(L)


def perona_malik(L: Laplacian):
    return PeronaMalik(L, 0.5)


def p_laplacian(L: Laplacian):
    return PLaplacian(L, 3.0)


def anisotropic(mesh: TriangleMesh):
    return AnisotropicHeat(mesh, torch.eye(3, dtype=torch.float64).expand(len(mesh.faces), 3, 3))


def unitary(L: Laplacian):
    return UnitaryFlow(L, 2)


def dissipative_unitary(L: Laplacian):
    return UnitaryFlow(L, 2, dissipation=0.1)


def sums(L: Laplacian):
    return 0.5 * npde.Heat(L, 0.7) + AllenCahn(L, 0.3)


def predators(L: Laplacian):
    return npde.Coupled(u=[npde.Heat(L), lambda u, v: u * (1 - v)], v=[npde.Heat(L, 0.3), lambda u, v: v * (u - 1)])


def cooled_and_fed(L: Laplacian):
    return npde.Heat(L, 0.7) + npde.Decay(L, 0.2) + npde.Source(L, 0.3)


def exchanging(L: Laplacian):
    return npde.Heat(L) + npde.Robin(L, npde.named_boundary(L, [0]), 2.0, 1.0)


def held(L: Laplacian):
    return npde.Dirichlet(npde.Heat(L), [0], 0.5)


def awake(diffusivity: Diffusivity):
    """With parameters that are neither zero nor equal: an untrained dot product is the geometry, whatever the field."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in diffusivity.parameters():
            parameter.normal_(generator=generator)
    return diffusivity


def beltrami(L: Laplacian):
    return npde.BeltramiFlow(awake(npde.ScaledDotProduct(L, 2)))


def beltrami_over_columns(L: Laplacian):
    return npde.BeltramiFlow(awake(npde.ScaledDotProduct(L, 2, normalise=Softmax(Over.COLUMNS))), 0.7)


def beltrami_squareplus(L: Laplacian):
    return npde.BeltramiFlow(awake(npde.ScaledDotProduct(L, 2, 4, heads=3, normalise=Squareplus(), self_loops=0.5)))


def beltrami_kernels(L: Laplacian):
    return npde.BeltramiFlow(awake(ExponentialKernel(L, 2, 4, heads=2)))


def beltrami_pair(L: Laplacian):
    return npde.BeltramiFlow(awake(ExponentialKernel(L, 2, 4, positions=1)))


def beltrami_frozen(L: Laplacian):
    return npde.BeltramiFlow(awake(npde.ScaledDotProduct(L, 2)), frozen=True)


def polyakov(L: Laplacian):
    return PolyakovFlow(L, 2.0)


def polyakov_pair(L: Laplacian):
    return PolyakovFlow(L, 2.0, positions=True, learn=True)


def image_beltrami(grid: Grid):
    return ImageBeltramiFlow(grid, 2.0)


def image_beltrami_colours(grid: Grid):
    return ImageBeltramiFlow(grid, 2.0, channels=3, conservative=True, learn=True)


def burgers(grid: Grid):
    return Burgers(grid_laplacian(grid), grid, 0.05)


def advection(grid: Grid):
    return Advection(grid, torch.ones(1, len(grid.shape), dtype=torch.float64))


def advection_diffusion(grid: Grid):
    return AdvectionDiffusion(grid_laplacian(grid), grid, torch.ones(1, len(grid.shape), dtype=torch.float64))


def mean_curvature(mesh: TriangleMesh):
    return MeanCurvatureFlow(mesh)


def quiet(f, domain, generator):
    n = f.divergence.shape[1]
    draw = lambda k: torch.randint(-16, 17, (k, 1), generator=generator).double() / 16  # noqa: E731
    return draw(f.divergence.shape[0]), draw(n)


def positive(f, domain, generator):
    n = domain.num_nodes
    return torch.randint(0, 17, (n, 2), generator=generator).double() / 16


def both_positive(f, domain, generator):
    return tuple(torch.randint(0, 17, (domain.num_nodes, 1), generator=generator).double() / 16 for _ in range(2))


def positions(f, domain, generator):
    return domain.vertices + 0.0


def pair(f, domain, generator):
    return tuple(torch.randint(-16, 17, (domain.num_nodes, c), generator=generator).double() / 16 for c in (1, 2))


FLOWS = [
    (heat, {}),
    (wave, {}),
    (damped_klein_gordon, {}),
    (allen_cahn, {}),
    (cahn_hilliard, {}),
    (schroedinger, {}),
    (acoustics, {"states": quiet, "domain": JOINED}),
    (fisher, {"states": positive}),
    # Its region keeps what starts inside; outside of it the reaction runs away.
    (gray_scott, {"states": both_positive}),
    (fitzhugh_nagumo, {}),
    (schnakenberg, {}),
    (kuramoto, {}),
    (perona_malik, {"domain": JOINED}),
    (p_laplacian, {"domain": JOINED}),
    (anisotropic, {}),
    (unitary, {}),
    (dissipative_unitary, {}),
    (sums, {}),
    (predators, {}),
    (cooled_and_fed, {}),
    (exchanging, {}),
    (held, {}),
    (beltrami, {}),
    # What a node gives away is its value, not its mass times it: masses are conserved only where they are all one.
    (beltrami_over_columns, {"domain": JOINED}),
    (beltrami_squareplus, {}),
    (beltrami_kernels, {}),
    (beltrami_pair, {"states": pair}),
    (beltrami_frozen, {}),
    (polyakov, {"domain": JOINED}),
    (polyakov_pair, {"domain": JOINED, "states": pair}),
    (image_beltrami, {"domain": BOXES}),
    (image_beltrami_colours, {"domain": BOXES}),
    (burgers, {"domain": BOXES}),
    # What flows against a wall piles up, also below zero: the region [0, ∞) is of what is not negative.
    (advection, {"domain": BOXES, "states": positive}),
    (advection_diffusion, {"domain": BOXES, "states": positive}),
    (mean_curvature, {"states": positions, "domain": meshes(slivers=False)}),
]
"""Right-hand sides, and the states that they need."""

METHODS = [
    npde.Euler, npde.RK4, npde.BackwardEuler, npde.CrankNicolson, npde.ImplicitMidpoint, npde.BDF2, npde.SBDF2, npde.ETDRK2,
    npde.ETDRK4, npde.StoermerVerlet, npde.Yoshida4, npde.Yoshida6,
]  # fmt: skip
"""Methods with a fixed step."""
