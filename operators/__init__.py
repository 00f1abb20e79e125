"""What acts on a field: domains, Laplacians, learned operators."""

from operators.advection import AdvectionOperator, Flux
from operators.attention import ScaledDotProduct
from operators.batch import Batch, batch, block_diagonal
from operators.boundary import BoundaryLoop, boundary_edges, boundary_loops, boundary_vertices
from operators.boundary_terms import BoundaryMeasure, boundary_measure, named_boundary, with_potential
from operators.c_grid import CGrid
from operators.cache import Cache
from operators.cell_sides import CellSides, cell_sides
from operators.cg import AMG, ConjugateGradient, Constants, Jacobi
from operators.chebyshev import ChebyshevFilter, chebyshev_filter
from operators.checks import ConvergenceError, DomainError, DomainWarning, FieldError
from operators.clique import clique_complex, graph_hodge_laplacian
from operators.connection import connection_laplacian, tangent_basis
from operators.consistent import ConsistentGradient, ConsistentLaplacian, ConsistentStencil
from operators.consistent_corrections import Correction, FreeCorrection, NetworkCorrection
from operators.consistent_difference import ConsistentDifference
from operators.consistent_kernels import CosineKernel, GaussianKernel, Kernel, PolyharmonicKernel
from operators.consistent_moments import Moments
from operators.consistent_positive import PositiveLaplacian, PositiveMoments
from operators.deepwalk import DeepWalk
from operators.delaunay import intrinsic_delaunay_laplacian
from operators.difference import Differences, SpatialDifference, modulated_gradient, modulated_laplacian
from operators.difference_graph import DelaunayEdges, DifferenceGraph, KNearest, MeshEdges
from operators.difference_published import PublishedDifference
from operators.differential import Divergence, Gradient, edge_gradient, face_gradient, vertex_gradient
from operators.diffusion import (
    EdgeDiffusion,
    MeshDiffusion,
    conductance_laplacian,
    diffusion_laplacian,
    directional_diffusivity,
    face_average,
)
from operators.diffusivity import Diffusivity, FixedDiffusivity
from operators.dirichlet import DirichletLaplacian, dirichlet
from operators.domains import Domain, Graph, PointCloud, TriangleMesh, load_mesh
from operators.encodings import Cached, Eigenvectors, PageRank, eigenvector_encoding
from operators.exponential_kernel import ExponentialKernel
from operators.exterior import HodgeStars, barycentric_stars, codifferential, exterior_derivative, hodge_stars, unit_stars
from operators.functions import cosine, exponential, resolvent, sine, wave_degree, wave_propagator
from operators.gat import GAT
from operators.gated import Gated
from operators.gaussian_mixture import GaussianMixture
from operators.geodesics import HeatMethod, VectorHeatMethod, geodesic_distance, geodesic_path, log_map
from operators.graph_network import GraphNetwork, NetworkShape
from operators.grids import Boundary, Grid, grid_laplacian
from operators.group_sort import GroupSort
from operators.hard_attention import HardAttention
from operators.healpix import Healpix
from operators.hodge import HodgeDecomposition, HodgeParts, hodge_decomposition, hodge_laplacian
from operators.laplacian import (
    Laplacian,
    adjacency_of,
    combinatorial_laplacian,
    normalized_adjacency,
    normalized_laplacian,
    random_walk_laplacian,
    symmetric_laplacian,
)
from operators.lat_lon import LatLon, latitude_weights
from operators.learned_truncation import LearnedTruncation
from operators.lie_unitary import LieUnitary
from operators.magnetic import magnetic_laplacian, normalized_magnetic_laplacian
from operators.mass import consistent_mass, lumped_mass, mixed_voronoi_mass
from operators.mesh_difference import MeshDifference, StandardDifference
from operators.mesh_files import MeshFileError, read_mesh, write_mesh
from operators.mesh_repair import CleanMesh, clean_mesh
from operators.modulus_activation import ModulusReLU, ModulusSort
from operators.neighbours import Gaussian, InverseDistance
from operators.normalisation import Over, Softmax, Squareplus
from operators.operator import Movable, Operator
from operators.page_rank import page_rank, sparse_page_rank
from operators.pattern import SparsityPattern
from operators.poincare_embedding import PoincareEmbedding
from operators.point_cloud import point_cloud_laplacian
from operators.position_space import Euclidean, PoincareBall, PositionSpace
from operators.random_walks import RandomWalks
from operators.rayleigh import dirichlet_energy, mass_weighted_norm, rayleigh_quotient
from operators.refine import Coarsening, Refinement, cluster_vertices, decimate, subdivide
from operators.report import GraphReport, MeshReport, PointReport, report_mesh
from operators.rewiring import NearestNeighbours, PageRankThreshold, PageRankTopK, Radius, Rewiring, TwoHop
from operators.separable_unitary import SeparableUnitary
from operators.shapes import bumpy, grid, icosphere, torus
from operators.signatures import heat_kernel_signature, wave_kernel_signature
from operators.signed import normalized_signed_laplacian, signed_laplacian
from operators.similarity import Cosine, Pearson
from operators.solve import DirectSolver, LinearSolver, SingularMatrixError
from operators.sparse import Composition, SparseOperator, sampled_product, sparse_product
from operators.spectrum import Eigenpairs, eigenpairs
from operators.sphere_interpolation import sphere_interpolation
from operators.sphere_meshes import centroidal, centroidal_icosphere, spherical_delaunay
from operators.spherical_dual import SphericalDual, spherical_dual
from operators.stages import Stages
from operators.stencils import Stencil, least_squares_gradient, least_squares_laplacian
from operators.surface import cotangent_laplacian, robust_laplacian
from operators.unitary import SkewHermitian, UnitaryGenerator, pad_channels, taylor_remainder
from operators.unitary_exponential import UnitaryExponential

__all__ = [
    "AMG", "GAT", "AdvectionOperator", "Batch", "Boundary", "BoundaryLoop", "BoundaryMeasure", "CGrid", "Cache",
    "Cached", "CellSides", "ChebyshevFilter", "CleanMesh", "Coarsening", "Composition", "ConjugateGradient",
    "ConsistentDifference", "ConsistentGradient", "ConsistentLaplacian", "ConsistentStencil", "Constants",
    "ConvergenceError", "Correction", "Cosine", "CosineKernel", "DeepWalk", "DelaunayEdges", "DifferenceGraph",
    "Differences", "Diffusivity", "DirectSolver", "DirichletLaplacian", "Divergence", "Domain", "DomainError",
    "DomainWarning", "EdgeDiffusion", "Eigenpairs", "Eigenvectors", "Euclidean", "ExponentialKernel", "FieldError",
    "FixedDiffusivity", "Flux", "FreeCorrection", "Gated", "Gaussian", "GaussianKernel", "GaussianMixture",
    "Gradient", "Graph", "GraphNetwork", "GraphReport", "Grid", "GroupSort", "HardAttention", "Healpix", "HeatMethod",
    "HodgeDecomposition", "HodgeParts", "HodgeStars", "InverseDistance", "Jacobi", "KNearest", "Kernel", "Laplacian",
    "LatLon", "LearnedTruncation", "LieUnitary", "LinearSolver", "MeshDifference", "MeshDiffusion", "MeshEdges",
    "MeshFileError", "MeshReport", "ModulusReLU", "ModulusSort", "Moments", "Movable", "NearestNeighbours",
    "NetworkCorrection", "NetworkShape", "Operator", "Over", "PageRank", "PageRankThreshold", "PageRankTopK",
    "Pearson", "PoincareBall", "PoincareEmbedding", "PointCloud", "PointReport", "PolyharmonicKernel",
    "PositionSpace", "PositiveLaplacian", "PositiveMoments", "PublishedDifference", "Radius", "RandomWalks",
    "Refinement", "Rewiring", "ScaledDotProduct", "SeparableUnitary", "SingularMatrixError", "SkewHermitian",
    "Softmax", "SparseOperator", "SparsityPattern", "SpatialDifference", "SphericalDual", "Squareplus", "Stages",
    "StandardDifference", "Stencil", "TriangleMesh", "TwoHop", "UnitaryExponential", "UnitaryGenerator",
    "VectorHeatMethod", "adjacency_of", "barycentric_stars", "batch", "block_diagonal", "boundary_edges",
    "boundary_loops", "boundary_measure", "boundary_vertices", "bumpy", "cell_sides", "centroidal",
    "centroidal_icosphere", "chebyshev_filter", "clean_mesh", "clique_complex", "cluster_vertices", "codifferential",
    "combinatorial_laplacian", "conductance_laplacian", "connection_laplacian", "consistent_mass", "cosine",
    "cotangent_laplacian", "decimate", "diffusion_laplacian", "directional_diffusivity", "dirichlet",
    "dirichlet_energy", "edge_gradient", "eigenpairs", "eigenvector_encoding", "exponential", "exterior_derivative",
    "face_average", "face_gradient", "geodesic_distance", "geodesic_path", "graph_hodge_laplacian", "grid",
    "grid_laplacian", "heat_kernel_signature", "hodge_decomposition", "hodge_laplacian", "hodge_stars", "icosphere",
    "intrinsic_delaunay_laplacian", "latitude_weights", "least_squares_gradient", "least_squares_laplacian",
    "load_mesh", "log_map", "lumped_mass", "magnetic_laplacian", "mass_weighted_norm", "mixed_voronoi_mass",
    "modulated_gradient", "modulated_laplacian", "named_boundary", "normalized_adjacency", "normalized_laplacian",
    "normalized_magnetic_laplacian", "normalized_signed_laplacian", "pad_channels", "page_rank",
    "point_cloud_laplacian", "random_walk_laplacian", "rayleigh_quotient", "read_mesh", "report_mesh", "resolvent",
    "robust_laplacian", "sampled_product", "signed_laplacian", "sine", "sparse_page_rank", "sparse_product",
    "sphere_interpolation", "spherical_delaunay", "spherical_dual", "subdivide", "symmetric_laplacian",
    "tangent_basis", "taylor_remainder", "torus", "unit_stars", "vertex_gradient", "wave_degree",
    "wave_kernel_signature", "wave_propagator", "with_potential", "write_mesh",
]
