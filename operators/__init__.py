"""What acts on a field: domains, Laplacians, learned operators."""

from operators.attention import ScaledDotProduct
from operators.checks import ConvergenceError, DomainError, DomainWarning, FieldError
from operators.difference import SpatialDifference, modulated_gradient, modulated_laplacian
from operators.domains import Domain, Graph, PointCloud, TriangleMesh, load_mesh
from operators.laplacian import (
    Laplacian,
    adjacency_of,
    combinatorial_laplacian,
    normalized_adjacency,
    normalized_laplacian,
    random_walk_laplacian,
    symmetric_laplacian,
)
from operators.mesh_files import MeshFileError, read_mesh, write_mesh
from operators.mesh_repair import CleanMesh, clean_mesh
from operators.operator import Movable, Operator
from operators.pattern import SparsityPattern
from operators.rayleigh import dirichlet_energy, mass_weighted_norm, rayleigh_quotient
from operators.shapes import bumpy, grid, icosphere, torus
from operators.sparse import SparseOperator, sampled_product, sparse_product
from operators.surface import cotangent_laplacian, robust_laplacian
from operators.unitary import SkewHermitian, UnitaryGenerator, pad_channels, taylor_remainder

__all__ = [
    "CleanMesh",
    "ConvergenceError",
    "Domain",
    "DomainError",
    "DomainWarning",
    "FieldError",
    "Graph",
    "Laplacian",
    "MeshFileError",
    "Movable",
    "Operator",
    "PointCloud",
    "ScaledDotProduct",
    "SkewHermitian",
    "SparseOperator",
    "SparsityPattern",
    "SpatialDifference",
    "TriangleMesh",
    "UnitaryGenerator",
    "adjacency_of",
    "bumpy",
    "clean_mesh",
    "combinatorial_laplacian",
    "cotangent_laplacian",
    "dirichlet_energy",
    "grid",
    "icosphere",
    "load_mesh",
    "mass_weighted_norm",
    "modulated_gradient",
    "modulated_laplacian",
    "normalized_adjacency",
    "normalized_laplacian",
    "pad_channels",
    "random_walk_laplacian",
    "rayleigh_quotient",
    "read_mesh",
    "robust_laplacian",
    "sampled_product",
    "sparse_product",
    "symmetric_laplacian",
    "taylor_remainder",
    "torus",
    "write_mesh",
]
