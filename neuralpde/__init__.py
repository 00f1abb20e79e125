"""Differentiable solvers for neural PDEs on graphs, triangle meshes and point clouds.

    import neuralpde as npde
    heat = npde.Heat(npde.robust_laplacian(mesh))
    solution = npde.integrate(heat, u0, [0.0, 1.0], npde.BackwardEuler(dt=0.01))
"""
# ruff: noqa: E402 (the check must come before the imports it guards)

from neuralpde.siblings import check_siblings

check_siblings()

from integrators import (
    ARK324,
    BDF2,
    ETDRK2,
    ETDRK4,
    RK4,
    RKC2,
    RKL2,
    SBDF2,
    SDIRK2,
    SDIRK3,
    Adaptive,
    Adjoint,
    Auto,
    BackwardEuler,
    Bosh3,
    CaratheodoryFejer,
    Checkpointed,
    Controller,
    CrankNicolson,
    Direct,
    Dopri5,
    ErrorNorm,
    Euler,
    ExactFlow,
    ExplicitPair,
    Exponential,
    FixedStep,
    ImplicitMidpoint,
    Integrator,
    Interpolated,
    LinearPart,
    NewtonKrylov,
    PerSample,
    PerSegment,
    RadauIIA5,
    Reversible,
    RMSNorm,
    RowNorm,
    Solution,
    SolveError,
    SolverWarning,
    State,
    Statistics,
    Status,
    StoermerVerlet,
    Strang,
    TruncatedTaylor,
    Tsit5,
    Yoshida4,
    Yoshida6,
    YoshidaSplitting,
    as_torchdiffeq,
    engine,
    integrate,
    integrate_until,
    spectral_radius,
)
from neuralpde import (
    architectures,
    loop,
)
from neuralpde.acoustics import (
    AcousticEnergy,
    Acoustics,
)
from neuralpde.anisotropic_heat import (
    AlongDirection,
    AnisotropicHeat,
)
from neuralpde.averaging import (
    Averaging,
)
from neuralpde.beltrami import (
    BeltramiFlow,
    OnsagerMixing,
)
from neuralpde.boundary_conditions import (
    NeumannFlux,
    Robin,
)
from neuralpde.burgers import (
    Burgers,
)
from neuralpde.coefficient import (
    Coefficient,
    as_coefficient,
    learned,
)
from neuralpde.coupled import (
    BlockDiagonal,
    Coupled,
)
from neuralpde.difference import (
    DifferenceFlow,
)
from neuralpde.dirichlet import (
    Dirichlet,
)
from neuralpde.files import (
    RunFolderError,
)
from neuralpde.fitzhugh_nagumo import (
    FitzHughNagumo,
)
from neuralpde.gray_scott import (
    GrayScott,
)
from neuralpde.heat import (
    Heat,
)
from neuralpde.image_flow import (
    ImageArea,
    ImageBeltramiFlow,
)
from neuralpde.invariant_region import (
    InvariantRegion,
)
from neuralpde.invariants import (
    Check,
    DirichletEnergy,
    Entropy,
    Invariant,
    LaplacianInvariant,
    Law,
    Mass,
    MaximumPrinciple,
    Norm,
    Part,
    Positivity,
    Rayleigh,
    check_invariants,
)
from neuralpde.kuramoto_sivashinsky import (
    KuramotoSivashinsky,
)
from neuralpde.mean_curvature import (
    ConformalMeanCurvatureFlow,
    MeanCurvatureFlow,
    SurfaceArea,
)
from neuralpde.metrics import (
    PublishedRayleigh,
    nrmse,
    rayleigh_error,
)
from neuralpde.model import (
    AttachPositions,
    KeepChannels,
    NeuralPDE,
    PadChannels,
)
from neuralpde.monitor import (
    Monitor,
)
from neuralpde.nonlinear_diffusion import (
    PeronaMalik,
    PLaplacian,
    SlopeEnergy,
)
from neuralpde.path_regularisers import (
    DirectionalPenalty,
    JacobianPenalty,
    KineticEnergy,
    Regularised,
)
from neuralpde.phase_field import (
    AllenCahn,
    CahnHilliard,
    DegenerateCahnHilliard,
    FreeEnergy,
)
from neuralpde.polyakov import (
    PolyakovEnergy,
    PolyakovFlow,
)
from neuralpde.reaction import (
    FisherKPP,
    ReactionDiffusion,
)
from neuralpde.receipt import (
    Receipt,
    receipt,
)
from neuralpde.rewired import (
    Rewired,
)
from neuralpde.rhs import (
    RightHandSide,
    as_right_hand_side,
)
from neuralpde.schnakenberg import (
    Schnakenberg,
)
from neuralpde.schroedinger import (
    Schroedinger,
    SchroedingerEnergy,
)
from neuralpde.semi_implicit import (
    SemiImplicitEuler,
)
from neuralpde.shallow_water import (
    PotentialEnstrophy,
    ShallowWater,
    ShallowWaterEnergy,
)
from neuralpde.slopes import (
    EdgeSlopes,
    FaceSlopes,
    NodeSlopes,
)
from neuralpde.sources import (
    Decay,
    PositionalSource,
    Source,
)
from neuralpde.stopping_time import (
    BestTime,
    best_time,
)
from neuralpde.symmetry import (
    Permutation,
    RigidMotion,
    Symmetry,
)
from neuralpde.training import (
    Training,
    load_weights,
    train,
)
from neuralpde.transport import (
    Advection,
    AdvectionDiffusion,
    StreamFunction,
    Wind,
)
from neuralpde.unitary import (
    UnitaryFlow,
)
from neuralpde.viz import (
    save_fields,
)
from neuralpde.waves import (
    Wave,
    WaveEnergy,
)
from neuralpde.williamson import (
    williamson2,
    williamson5,
    williamson6,
)
from operators import (
    AMG,
    GAT,
    AdvectionOperator,
    Batch,
    Boundary,
    BoundaryLoop,
    BoundaryMeasure,
    Cache,
    Cached,
    CellSides,
    CGrid,
    ChebyshevFilter,
    CleanMesh,
    Coarsening,
    Composition,
    ConjugateGradient,
    Constants,
    ConvergenceError,
    Cosine,
    DeepWalk,
    Diffusivity,
    DirectSolver,
    DirichletLaplacian,
    Divergence,
    Domain,
    DomainError,
    DomainWarning,
    EdgeDiffusion,
    Eigenpairs,
    Eigenvectors,
    Euclidean,
    ExponentialKernel,
    FieldError,
    FixedDiffusivity,
    Flux,
    Gated,
    Gaussian,
    GaussianMixture,
    Gradient,
    Graph,
    GraphReport,
    Grid,
    HardAttention,
    HeatMethod,
    HodgeDecomposition,
    HodgeParts,
    HodgeStars,
    InverseDistance,
    Jacobi,
    Laplacian,
    LinearSolver,
    MeshDiffusion,
    MeshFileError,
    MeshReport,
    Movable,
    NearestNeighbours,
    Operator,
    Over,
    PageRank,
    PageRankThreshold,
    PageRankTopK,
    Pearson,
    PoincareBall,
    PoincareEmbedding,
    PointCloud,
    PointReport,
    PositionSpace,
    Radius,
    RandomWalks,
    Refinement,
    Rewiring,
    ScaledDotProduct,
    SingularMatrixError,
    SkewHermitian,
    Softmax,
    SparseOperator,
    SparsityPattern,
    SpatialDifference,
    SphericalDual,
    Squareplus,
    Stages,
    Stencil,
    TriangleMesh,
    TwoHop,
    UnitaryExponential,
    UnitaryGenerator,
    VectorHeatMethod,
    adjacency_of,
    barycentric_stars,
    batch,
    block_diagonal,
    boundary_edges,
    boundary_loops,
    boundary_measure,
    boundary_vertices,
    bumpy,
    cell_sides,
    centroidal,
    centroidal_icosphere,
    chebyshev_filter,
    clean_mesh,
    clique_complex,
    cluster_vertices,
    codifferential,
    combinatorial_laplacian,
    conductance_laplacian,
    connection_laplacian,
    consistent_mass,
    cosine,
    cotangent_laplacian,
    decimate,
    diffusion_laplacian,
    directional_diffusivity,
    dirichlet,
    dirichlet_energy,
    edge_gradient,
    eigenpairs,
    eigenvector_encoding,
    exponential,
    exterior_derivative,
    face_average,
    face_gradient,
    geodesic_distance,
    geodesic_path,
    graph_hodge_laplacian,
    grid,
    grid_laplacian,
    heat_kernel_signature,
    hodge_decomposition,
    hodge_laplacian,
    hodge_stars,
    icosphere,
    intrinsic_delaunay_laplacian,
    least_squares_gradient,
    least_squares_laplacian,
    load_mesh,
    log_map,
    lumped_mass,
    magnetic_laplacian,
    mass_weighted_norm,
    mixed_voronoi_mass,
    modulated_gradient,
    modulated_laplacian,
    named_boundary,
    normalized_adjacency,
    normalized_laplacian,
    normalized_magnetic_laplacian,
    normalized_signed_laplacian,
    pad_channels,
    page_rank,
    point_cloud_laplacian,
    random_walk_laplacian,
    rayleigh_quotient,
    read_mesh,
    report_mesh,
    resolvent,
    robust_laplacian,
    sampled_product,
    signed_laplacian,
    sine,
    sparse_page_rank,
    sparse_product,
    spherical_delaunay,
    spherical_dual,
    subdivide,
    symmetric_laplacian,
    tangent_basis,
    taylor_remainder,
    torus,
    unit_stars,
    vertex_gradient,
    wave_degree,
    wave_kernel_signature,
    wave_propagator,
    with_potential,
    write_mesh,
)

__all__ = [
    "AMG", "ARK324", "BDF2", "ETDRK2", "ETDRK4", "GAT", "RK4", "RKC2", "RKL2", "SBDF2", "SDIRK2", "SDIRK3",
    "AcousticEnergy", "Acoustics", "Adaptive", "Adjoint", "Advection", "AdvectionDiffusion", "AdvectionOperator",
    "AllenCahn", "AlongDirection", "AnisotropicHeat", "AttachPositions", "Auto", "Averaging", "BackwardEuler",
    "Batch", "BeltramiFlow", "BestTime", "BlockDiagonal", "Bosh3", "Boundary", "BoundaryLoop", "BoundaryMeasure",
    "Burgers", "CGrid", "Cache", "Cached", "CahnHilliard", "CaratheodoryFejer", "CellSides", "ChebyshevFilter",
    "Check", "Checkpointed", "CleanMesh", "Coarsening", "Coefficient", "Composition", "ConformalMeanCurvatureFlow",
    "ConjugateGradient", "Constants", "Controller", "ConvergenceError", "Cosine", "Coupled", "CrankNicolson", "Decay",
    "DeepWalk", "DegenerateCahnHilliard", "DifferenceFlow", "Diffusivity", "Direct", "DirectSolver",
    "DirectionalPenalty", "Dirichlet", "DirichletEnergy", "DirichletLaplacian", "Divergence", "Domain", "DomainError",
    "DomainWarning", "Dopri5", "EdgeDiffusion", "EdgeSlopes", "Eigenpairs", "Eigenvectors", "Entropy", "ErrorNorm",
    "Euclidean", "Euler", "ExactFlow", "ExplicitPair", "Exponential", "ExponentialKernel", "FaceSlopes", "FieldError",
    "FisherKPP", "FitzHughNagumo", "FixedDiffusivity", "FixedStep", "Flux", "FreeEnergy", "Gated", "Gaussian",
    "GaussianMixture", "Gradient", "Graph", "GraphReport", "GrayScott", "Grid", "HardAttention", "Heat", "HeatMethod",
    "HodgeDecomposition", "HodgeParts", "HodgeStars", "ImageArea", "ImageBeltramiFlow", "ImplicitMidpoint",
    "Integrator", "Interpolated", "Invariant", "InvariantRegion", "InverseDistance", "Jacobi", "JacobianPenalty",
    "KeepChannels", "KineticEnergy", "KuramotoSivashinsky", "Laplacian", "LaplacianInvariant", "Law", "LinearPart",
    "LinearSolver", "Mass", "MaximumPrinciple", "MeanCurvatureFlow", "MeshDiffusion", "MeshFileError", "MeshReport",
    "Monitor", "Movable", "NearestNeighbours", "NeumannFlux", "NeuralPDE", "NewtonKrylov", "NodeSlopes", "Norm",
    "OnsagerMixing", "Operator", "Over", "PLaplacian", "PadChannels", "PageRank", "PageRankThreshold", "PageRankTopK",
    "Part", "Pearson", "PerSample", "PerSegment", "Permutation", "PeronaMalik", "PoincareBall", "PoincareEmbedding",
    "PointCloud", "PointReport", "PolyakovEnergy", "PolyakovFlow", "PositionSpace", "PositionalSource", "Positivity",
    "PotentialEnstrophy", "PublishedRayleigh", "RMSNorm", "RadauIIA5", "Radius", "RandomWalks", "Rayleigh",
    "ReactionDiffusion", "Receipt", "Refinement", "Regularised", "Reversible", "Rewired", "Rewiring", "RightHandSide",
    "RigidMotion", "Robin", "RowNorm", "RunFolderError", "ScaledDotProduct", "Schnakenberg", "Schroedinger",
    "SchroedingerEnergy", "SemiImplicitEuler", "ShallowWater", "ShallowWaterEnergy", "SingularMatrixError",
    "SkewHermitian", "SlopeEnergy", "Softmax", "Solution", "SolveError", "SolverWarning", "Source", "SparseOperator",
    "SparsityPattern", "SpatialDifference", "SphericalDual", "Squareplus", "Stages", "State", "Statistics", "Status",
    "Stencil", "StoermerVerlet", "Strang", "StreamFunction", "SurfaceArea", "Symmetry", "Training", "TriangleMesh",
    "TruncatedTaylor", "Tsit5", "TwoHop", "UnitaryExponential", "UnitaryFlow", "UnitaryGenerator", "VectorHeatMethod",
    "Wave", "WaveEnergy", "Wind", "Yoshida4", "Yoshida6", "YoshidaSplitting", "adjacency_of", "architectures",
    "as_coefficient", "as_right_hand_side", "as_torchdiffeq", "barycentric_stars", "batch", "best_time",
    "block_diagonal", "boundary_edges", "boundary_loops", "boundary_measure", "boundary_vertices", "bumpy",
    "cell_sides", "centroidal", "centroidal_icosphere", "chebyshev_filter", "check_invariants", "clean_mesh",
    "clique_complex", "cluster_vertices", "codifferential", "combinatorial_laplacian", "conductance_laplacian",
    "connection_laplacian", "consistent_mass", "cosine", "cotangent_laplacian", "decimate", "diffusion_laplacian",
    "directional_diffusivity", "dirichlet", "dirichlet_energy", "edge_gradient", "eigenpairs", "eigenvector_encoding",
    "engine", "exponential", "exterior_derivative", "face_average", "face_gradient", "geodesic_distance",
    "geodesic_path", "graph_hodge_laplacian", "grid", "grid_laplacian", "heat_kernel_signature",
    "hodge_decomposition", "hodge_laplacian", "hodge_stars", "icosphere", "integrate", "integrate_until",
    "intrinsic_delaunay_laplacian", "learned", "least_squares_gradient", "least_squares_laplacian", "load_mesh",
    "load_weights", "log_map", "loop", "lumped_mass", "magnetic_laplacian", "mass_weighted_norm",
    "mixed_voronoi_mass", "modulated_gradient", "modulated_laplacian", "named_boundary", "normalized_adjacency",
    "normalized_laplacian", "normalized_magnetic_laplacian", "normalized_signed_laplacian", "nrmse", "pad_channels",
    "page_rank", "point_cloud_laplacian", "random_walk_laplacian", "rayleigh_error", "rayleigh_quotient", "read_mesh",
    "receipt", "report_mesh", "resolvent", "robust_laplacian", "sampled_product", "save_fields", "signed_laplacian",
    "sine", "sparse_page_rank", "sparse_product", "spectral_radius", "spherical_delaunay", "spherical_dual",
    "subdivide", "symmetric_laplacian", "tangent_basis", "taylor_remainder", "torus", "train", "unit_stars",
    "vertex_gradient", "wave_degree", "wave_kernel_signature", "wave_propagator", "williamson2", "williamson5",
    "williamson6", "with_potential", "write_mesh",
]
