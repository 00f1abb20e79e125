"""Faults of the kind that people make, one small builder each, with what is wrong and the laws that may find it.

`FAULTS` holds for every one the public call of the kit that is given it, by default examples, and the names of laws of which one
must be the one that is broken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import neuralpde as npde
from integrators.fixed import FixedStep
from integrators.state import combine
from neuralpde.polyakov import PolyakovFlow
from neuralpde.slopes import NodeSlopes
from neuralpde.symmetry import Permutation, RigidMotion
from neuralpde.testing_adjoint import assert_adjoint_pair
from neuralpde.testing_devices import assert_device_agnostic
from neuralpde.testing_gradients import assert_gradients
from neuralpde.testing_laplacian import assert_laplacian
from neuralpde.testing_order import assert_order
from neuralpde.testing_right_hand_side import assert_equivariant, assert_right_hand_side
from operators import Graph, Laplacian, Operator, SparseOperator, TriangleMesh
from operators.normalisation import Over, Softmax


@dataclass(frozen=True)
class Fault:
    """What is wrong, the call that must find it, and the laws of which one must be named."""

    wrong: str
    find: Callable[..., Any]
    subject: Any
    laws: tuple[str, ...]
    how: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.wrong


class Matrix(Operator):
    """A stiffness and a mass as dense matrices, with nothing checked: L = M⁻¹ C."""

    def __init__(self, stiffness: torch.Tensor, mass: torch.Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(stiffness.shape)
        self.register_buffer("stiffness", stiffness)
        self.register_buffer("mass", stiffness.new_ones(len(stiffness)) if mass is None else mass)

    def forward(self, x):
        return self.stiffness @ x / self.mass[:, None]

    def inner(self, x, y):
        return (self.mass[:, None] * x.conj() * y).sum(dim=(-2, -1))


def weights(graph: Graph, loops: bool = False) -> torch.Tensor:
    """W of an undirected graph, repeated edges added up."""
    W = torch.zeros(graph.nodes, graph.nodes, dtype=graph.edge_weight.dtype)
    source, target = graph.edge_index
    W.index_put_((target, source), graph.edge_weight, accumulate=True)
    return W if loops else W - W.diag().diag()


def stiffness(graph: Graph) -> torch.Tensor:
    """D − W, without a fault."""
    W = weights(graph.undirected())
    return W.sum(1).diag() - W


def cotangents(mesh: TriangleMesh, per_face: Callable[[torch.Tensor, int], torch.Tensor] = lambda cot, f: cot) -> torch.Tensor:
    """C by the cotangent formula, face by face, `per_face` changing the three weights of a face."""
    C = torch.zeros(mesh.num_nodes, mesh.num_nodes, dtype=mesh.vertices.dtype)
    for f, face in enumerate(mesh.faces):
        p = mesh.vertices[face]
        a, b = p.roll(-1, 0) - p, p.roll(1, 0) - p
        wide = torch.nn.functional.pad(torch.stack([a, b]), (0, 3 - p.shape[1]))
        cot = (a * b).sum(1) / torch.linalg.cross(wide[0], wide[1]).norm(dim=1) / 2
        for k, w in enumerate(per_face(cot, f)):
            i, j = face[(k + 1) % 3], face[(k + 2) % 3]
            C[i, i] += w
            C[j, j] += w
            C[i, j] -= w
            C[j, i] -= w
    return C


def areas(mesh: TriangleMesh) -> torch.Tensor:
    return npde.cotangent_laplacian(mesh).mass


# -- Laplacians of graphs


def sign_flipped(graph: Graph):
    return Matrix(-stiffness(graph))


def self_loops_kept(graph: Graph):
    W = weights(graph.undirected(), loops=True)
    return Matrix(W.sum(1).diag() - (W - W.diag().diag()))


def repeated_edges_dropped(graph: Graph):
    W = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    i, j = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]].unique(dim=1)
    first = {}
    for a, b, w in zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True):
        first.setdefault((min(a, b), max(a, b)), w)
    W[i, j] = torch.tensor(
        [first[min(a, b), max(a, b)] for a, b in zip(i.tolist(), j.tolist(), strict=True)], dtype=torch.float64
    )
    W = torch.maximum(W, W.T)
    return Matrix(W.sum(1).diag() - W)


def directions_kept(graph: Graph):
    W = weights(graph)
    return Matrix(W.sum(1).diag() - W)


def one_for_isolated_nodes(graph: Graph):
    C = stiffness(graph)
    return Matrix(C + (C.diag() == 0).to(C.dtype).diag())


def degree_of_the_wrong_end(graph: Graph):
    C = stiffness(graph)
    degree = C.diag().where(C.diag() > 0, torch.ones(()).double())
    return Matrix(C / degree, degree)  # divides column j by the degree of j, where D⁻¹ C divides row i


def float32_inside(graph: Graph):
    return Matrix(stiffness(graph).float().double())


class InPlace(Matrix):
    def forward(self, x):
        x -= x.mean(-2, keepdim=True)
        return super().forward(x)


def input_changed(graph: Graph):
    return InPlace(stiffness(graph))


class Mixed(Matrix):
    def forward(self, x):
        # (batch, n, c) read as (n, batch · c), without moving the axis of the nodes to the front.
        return (self.stiffness @ x.reshape(len(self.mass), -1)).reshape(x.shape)


def batch_mixed_with_channels(graph: Graph):
    return Mixed(stiffness(graph))


def one_component_pinned(graph: Graph):
    C = stiffness(graph)
    C[-1, -1] += 1e-3 * C.diag().max().clamp(min=1.0)
    return Matrix(C)


def weights_by_index(graph: Graph):
    order = torch.arange(graph.nodes, dtype=torch.float64)
    factor = 1 + 0.1 * (order[:, None] + order)
    W = weights(graph.undirected()) * factor
    return Matrix(W.sum(1).diag() - W)


def last_edge_forgotten(graph: Graph):
    pairs = (graph.edge_index[0] < graph.edge_index[1]).nonzero()[:-1, 0]
    half = Graph(graph.edge_index[:, pairs], graph.nodes, 2 * graph.edge_weight[pairs])
    return Matrix(stiffness(half))


# -- Laplacians of surfaces


def mass_forgotten(mesh: TriangleMesh):
    return Matrix(cotangents(mesh))


def mass_on_the_wrong_side(mesh: TriangleMesh):
    mass = areas(mesh)
    return Matrix(mass[:, None] * cotangents(mesh) / mass, mass)  # C M⁻¹


def one_triangle_dropped(mesh: TriangleMesh):
    return Matrix(cotangents(mesh, lambda cot, f: cot if f else 0 * cot), areas(mesh))


def boundary_edges_twice(mesh: TriangleMesh):
    C = cotangents(mesh)
    for i, j in npde.boundary_edges(mesh).reshape(2, -1).T.tolist():
        w = -C[i, j].clone()
        C[i, i] += w
        C[j, j] += w
        C[i, j] -= w
        C[j, i] -= w
    return Matrix(C, areas(mesh))


def cotangents_made_positive(mesh: TriangleMesh):
    return Matrix(cotangents(mesh, lambda cot, f: cot.abs()), areas(mesh))


def cotangents_clamped(mesh: TriangleMesh):
    return Matrix(cotangents(mesh, lambda cot, f: cot.clamp(min=0.0)), areas(mesh))


def absolute_position(mesh: TriangleMesh):
    C = cotangents(mesh)
    height = mesh.vertices[:, 0]
    W = (C.diag().diag() - C) * (1 + 0.1 * torch.tanh(height[:, None] + height))
    return Matrix(W.sum(1).diag() - W, areas(mesh))


# -- pairs


def unweighted_divergence(mesh: TriangleMesh):
    gradient = npde.face_gradient(mesh)
    matrix = gradient.stencil.adjoint()
    return gradient, Matrix_(-matrix.values, matrix.pattern, gradient.mass)


class Matrix_(Operator):  # noqa: N801
    """−M⁻¹ Gᵀ: the areas of the faces are forgotten."""

    def __init__(self, values, pattern, mass):
        super().__init__()
        self.sparse, self.shape = SparseOperator(pattern, values), pattern.shape
        self.register_buffer("mass", mass)

    def forward(self, x):
        return self.sparse(x) / self.mass[:, None]

    def inner(self, x, y):
        return (self.mass[:, None] * x.conj() * y).sum(dim=(-2, -1))


class Transposed(Operator):
    """A Hermitian-looking operator i W whose adjoint forgets to conjugate."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix_", matrix)
        self.shape = tuple(matrix.shape)

    def forward(self, x):
        return self.matrix_ @ x.to(self.matrix_.dtype)

    def adjoint(self):
        return Transposed(self.matrix_.T)


def adjoint_not_conjugated(graph: Graph):
    W = weights(graph)
    return Transposed(torch.complex(W, W.tril() - W.triu()))


# -- right-hand sides


class Leaking(npde.RightHandSide):
    """Declares its mass, and loses it through a reaction."""

    def __init__(self, laplacian: Laplacian):
        super().__init__()
        self.laplacian = laplacian

    def forward(self, t, u):
        return -(self.laplacian @ u) - 0.01 * u

    @property
    def invariants(self):
        return (npde.Mass(self.laplacian),)


class Growing(Leaking):
    """Declares that its norm never increases, and grows."""

    def forward(self, t, u):
        return -(self.laplacian @ u) + 0.01 * u

    @property
    def invariants(self):
        return (npde.Norm(self.laplacian, npde.Law.NON_INCREASING),)


class WrongSplit(Leaking):
    """`linear` and `nonlinear` are not what `forward` gives: the diffusion is counted twice."""

    def forward(self, t, u):
        return -(self.laplacian @ u) + u - u**3

    @property
    def linear(self):
        return npde.Heat(self.laplacian).linear

    def nonlinear(self, t, u):
        return -(self.laplacian @ u) + u - u**3

    @property
    def invariants(self):
        return ()


class OwnParameters(npde.Heat):
    """`.on` builds a new equation, with parameters of its own."""

    def __init__(self, laplacian: Laplacian):
        super().__init__(laplacian, 0.5, learn=True)

    def on(self, domain):
        return OwnParameters(self.laplacian.on(domain))


class PositionForced(npde.RightHandSide):
    """Declares rigid motion as a symmetry, and is pushed along the first axis."""

    def __init__(self, mesh: TriangleMesh):
        super().__init__()
        self.heat, self.mesh = npde.Heat(npde.cotangent_laplacian(mesh)), mesh

    def forward(self, t, u):
        return self.heat(t, u) + self.mesh.vertices[:, :1]

    def on(self, domain):
        return PositionForced(domain)


class WrongAxis(npde.ScaledDotProduct):
    """Says that its rows sum to one, and divides by the sums of the columns."""

    def forward(self, z):
        pattern = self.edges.pattern
        shares = Softmax(Over.COLUMNS)(self.score(z), self.edges.weight, pattern).mean(0)
        return SparseOperator(pattern, shares)


class NumberedAttention(npde.ScaledDotProduct):
    """A node's number is a feature of it."""

    def score(self, z):
        return super().score(z) + 0.1 * self.edges.pattern.col


def attending(kind: type, L: Laplacian):
    diffusivity = kind(L, 2)
    with torch.no_grad():
        diffusivity.query.weight.normal_(generator=torch.Generator().manual_seed(0))
    return npde.BeltramiFlow(diffusivity)


def attention_over_the_wrong_axis(L: Laplacian):
    return attending(WrongAxis, L)


def attention_by_number(L: Laplacian):
    return attending(NumberedAttention, L)


class NothingTakenAway(npde.BeltramiFlow):
    """A z instead of A z − z."""

    def _spread(self, A, rate, z):
        return rate * (A @ z)


def minus_z_forgotten(L: Laplacian):
    return NothingTakenAway(npde.ScaledDotProduct(L, 2))


class OneSided(NodeSlopes):
    """An edge has the coefficient of one of its ends, and not of the other where it flows back."""

    def diffuse(self, g, u):
        low, high = self.edges.edges
        flow = self.edges.weights[:, None] * self.differences(u)
        there, back = (g.index_select(-1, end)[..., None] * flow for end in (low, high))
        total = torch.zeros_like(u).index_add(-2, low, there).index_add(-2, high, -back)
        return total / self.edges.mass[:, None]


def indicator_of_the_receiver(L: Laplacian):
    return PolyakovFlow(OneSided(L), 2.0)


# -- gradients, dtypes, devices, order


def gradient_detached(x: torch.Tensor, kappa: torch.Tensor):
    return kappa.item() * x**2


def second_derivative_lost(x: torch.Tensor):
    return x**2 + x.detach() ** 2 * x


class DefaultDtype(Matrix):
    def forward(self, x):
        return super().forward(x) + (torch.ones(1) * 0.1).to(x.dtype) * super().forward(x)


def default_dtype_leaks(graph: Graph):
    return DefaultDtype(stiffness(graph))


class MadeOnTheCpu(Matrix):
    def forward(self, x):
        return super().forward(x) * torch.ones(len(self.mass), 1, dtype=x.dtype)


def made_on_the_cpu(graph: Graph):
    return MadeOnTheCpu(stiffness(graph))


class NoBuffer(Matrix):
    def __init__(self, stiffness):
        super().__init__(stiffness)
        self.factor = stiffness.new_ones(len(stiffness), 1)

    def forward(self, x):
        return super().forward(x) * self.factor


def tensor_that_does_not_move(graph: Graph):
    return NoBuffer(stiffness(graph))


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's method with the second stage at the old time, right for autonomous equations alone."""

    def step(self, f, t, x, h):
        first = f(t, x)
        return combine(x, h, [0.5, 0.5], [first, f(t, combine(x, h, [1.0], [first]))])


SYMMETRIC, KERNEL, PSD = "symmetric in its inner product", "constants of each component are killed", "positive semidefinite"
JOINS, RENUMBERED = "joins what the domain joins", "renumbering the nodes renumbers the operator"
ADJOINT, REPEATED, MOVED = "adjoint in their inner products", "edges that are repeated add up", "equivariant under RigidMotion"
DEFAULT_DEVICE = "nothing is made on the default device"
LOST = ("mass: conserved, at once", "mass is conserved")
GROWS = ("norm: never increases, at once", "norm never increases")
LEAVES = ("maximum principle: never increases, at once", "maximum principle never increases")
IN_X, IN_KAPPA = "gradient in tensor 0 of shape (6, 1)", "gradient in tensor 1 of shape ()"
assert_flow = assert_right_hand_side
AREA, HARMONIC = "energy of the coordinates is the area", "linear functions are harmonic inside"
x, kappa = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None], torch.tensor(0.7, dtype=torch.float64)

FAULTS = [
    Fault("sign of L flipped", assert_laplacian, sign_flipped, (PSD,)),
    Fault("self-loops kept in the degree", assert_laplacian, self_loops_kept, (KERNEL,)),
    Fault("repeated edges dropped", assert_laplacian, repeated_edges_dropped, (JOINS, RENUMBERED, REPEATED)),
    Fault("directed edges not symmetrised", assert_laplacian, directions_kept, (SYMMETRIC,)),
    Fault("isolated nodes with 1 on the diagonal", assert_laplacian, one_for_isolated_nodes, (KERNEL,)),
    Fault("degree of the wrong end", assert_laplacian, degree_of_the_wrong_end, (SYMMETRIC, KERNEL)),
    Fault("assembled in float32", assert_laplacian, float32_inside, (KERNEL, SYMMETRIC, PSD)),
    Fault("input changed in place", assert_laplacian, input_changed, ("leaves its input alone",)),
    Fault("batch mixed with channels", assert_laplacian, batch_mixed_with_channels, ("a batch is a loop",)),
    Fault("constants not killed on one component", assert_laplacian, one_component_pinned, (KERNEL,)),
    Fault("weights that depend on the numbering", assert_laplacian, weights_by_index, (RENUMBERED,)),
    Fault("the last edge forgotten", assert_laplacian, last_edge_forgotten, (JOINS, RENUMBERED)),
    Fault("weights that depend on the numbering, as a symmetry", assert_equivariant, weights_by_index,
          ("equivariant under Permutation",), {"symmetry": Permutation()}),
    Fault("mass forgotten", assert_laplacian, mass_forgotten, ("lengths twice as long make a quarter",)),
    Fault("mass on the wrong side", assert_laplacian, mass_on_the_wrong_side, (SYMMETRIC, KERNEL)),
    Fault("one triangle's cotangents dropped", assert_laplacian, one_triangle_dropped, (JOINS, RENUMBERED, AREA)),
    Fault("boundary edges counted twice", assert_laplacian, boundary_edges_twice, (AREA, PSD, JOINS)),
    Fault("negative cotangents made positive", assert_laplacian, cotangents_made_positive, (AREA, HARMONIC)),
    Fault("negative cotangents clamped", assert_laplacian, cotangents_clamped, (AREA, HARMONIC, JOINS)),
    Fault("weights that depend on the absolute position", assert_laplacian, absolute_position, ("rigid motion changes nothing",)),
    Fault("divergence without the areas", assert_adjoint_pair, unweighted_divergence, (ADJOINT,), {"sign": -1}),
    Fault("adjoint without a conjugate", assert_adjoint_pair, adjoint_not_conjugated, (ADJOINT,)),
    Fault("mass declared and lost", assert_flow, Leaking, LOST),
    Fault("dissipation declared, norm grows", assert_flow, Growing, GROWS),
    Fault("linear + nonlinear is not forward", assert_flow, WrongSplit, ("linear plus nonlinear is forward",)),
    Fault("`on` copies the parameters", assert_flow, OwnParameters, ("another domain shares the parameters",)),
    Fault("pushed along an axis", assert_equivariant, PositionForced, (MOVED,), {"symmetry": RigidMotion()}),
    Fault("attention normalised over the wrong axis", assert_flow, attention_over_the_wrong_axis, LEAVES),
    Fault("attention that knows its nodes by number", assert_flow, attention_by_number, ("equivariant under Permutation",)),
    Fault("minus z forgotten", assert_flow, minus_z_forgotten, LEAVES),
    Fault("an edge that diffuses differently in its two directions", assert_flow, indicator_of_the_receiver, LOST),
    Fault("gradient cut by item()", lambda f: assert_gradients(f, x, kappa), gradient_detached, (IN_KAPPA,)),
    Fault("second derivative lost", lambda f: assert_gradients(f, x), second_derivative_lost, (IN_X,)),
    Fault("default dtype leaks in", assert_device_agnostic, default_dtype_leaks,
          ("the default dtype changes nothing", DEFAULT_DEVICE)),
    Fault("a tensor is made on the default device", assert_device_agnostic, made_on_the_cpu, (DEFAULT_DEVICE,)),
    Fault("a tensor is no buffer", assert_device_agnostic, tensor_that_does_not_move, ("float32 and back",)),
    Fault("a method of order p − 1", lambda method: assert_order(method, 2), Heun, ("converges with order 2",)),
]  # fmt: skip
