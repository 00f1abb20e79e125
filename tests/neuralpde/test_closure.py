"""Learned terms: flux form, mass, equivariance, the zero start, and other domains."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from neuralpde.closure import Closure, ConservativeClosure, LocalInvariants
from neuralpde.invariants import Mass
from operators import Graph, TriangleMesh, bumpy, combinatorial_laplacian, edge_gradient, icosphere, robust_laplacian

T0 = torch.zeros((), dtype=torch.float64)


def awake(closure: nn.Module, scale: float = 0.5) -> None:
    """Weights as after training."""
    generator = torch.Generator().manual_seed(1)
    for p in closure.parameters():
        p.data = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def field(n: int, c: int = 1, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*batch, n, c, generator=torch.Generator().manual_seed(2), dtype=dtype)


@pytest.fixture
def mesh() -> TriangleMesh:
    return bumpy(icosphere(1))


def test_local_invariants_are_what_they_say(mesh: TriangleMesh) -> None:
    L = robust_laplacian(mesh)
    u = field(mesh.num_nodes, 2)
    phi = LocalInvariants(L, 2, length=0.7)(u)
    gradient = edge_gradient(L)
    # |∇u|² at a node: half of its edges' w (u_j − u_i)², over its mass.
    square = (gradient.weight[:, None] * (gradient @ u) ** 2).to(torch.float64)
    ends = gradient.stencil.adjoint()
    share = 0.5 * torch.zeros_like(u).index_add(0, ends.pattern.row, square[ends.pattern.col]) / L.mass[:, None]
    expected = torch.cat([u, 0.49 * (L @ u), 0.49**2 * (L @ (L @ u)), 0.49 * share], -1)
    torch.testing.assert_close(phi, expected, rtol=1e-12, atol=1e-10)


def test_conservative_closure_is_a_divergence_of_edge_fluxes(mesh: TriangleMesh) -> None:
    L = robust_laplacian(mesh)
    closure = ConservativeClosure(L)
    awake(closure)
    u = field(mesh.num_nodes)
    p, mobility = closure.potentials(T0, u).chunk(2, -1)
    gradient = edge_gradient(L)
    average = (gradient.stencil.values.abs()[:, None] * mobility[gradient.stencil.pattern.col]).reshape(-1, 2).mean(1)
    flux = (1 + average[:, None]) * (gradient @ p)
    expected = closure.potentials.local.scale * (gradient.divergence() @ flux)
    found = closure(T0, u)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11 * float(found.detach().abs().max()))


def test_mass_is_kept_whatever_the_network_says(mesh: TriangleMesh) -> None:
    L = robust_laplacian(mesh)
    closure = ConservativeClosure(L, channels=2)
    awake(closure)
    rate = closure(T0, field(mesh.num_nodes, 2, (3,)))
    magnitude = (L.mass[:, None] * rate.abs()).sum(-2)
    assert float(((L.mass[:, None] * rate).sum(-2).abs() / magnitude).detach().max()) < 1e-13
    assert [type(i) for i in closure.invariants] == [Mass]
    # A plain closure does not keep it, and does not say so.
    plain = Closure(L, channels=2)
    awake(plain)
    lost = (L.mass[:, None] * plain(T0, field(mesh.num_nodes, 2))).sum(-2)
    assert float(lost.detach().abs().min()) > 1e-3
    assert plain.invariants == ()


@pytest.mark.parametrize("kind", [Closure, ConservativeClosure])
def test_starts_as_nothing(kind: type[Closure], mesh: TriangleMesh) -> None:
    closure = kind(robust_laplacian(mesh))
    assert not closure(T0, field(mesh.num_nodes)).any()
    # Yet its gradient does not vanish: it can start to learn.
    closure(T0, field(mesh.num_nodes)).square().sum().backward()
    (closure(T0, field(mesh.num_nodes)) - 1).square().sum().backward()
    if kind is Closure:
        assert any(p.grad is not None and bool(p.grad.any()) for p in closure.parameters())


@pytest.mark.parametrize("kind", [Closure, ConservativeClosure])
def test_equivariant_under_permutation_and_motion(kind: type[Closure], mesh: TriangleMesh) -> None:
    L = robust_laplacian(mesh)
    closure = kind(L, local=LocalInvariants(L, geometry=True))
    awake(closure)
    u = field(mesh.num_nodes)
    order = torch.randperm(mesh.num_nodes, generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    turned = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)).Q
    moved = TriangleMesh(mesh.vertices[order] @ turned.T + 1.0, place[mesh.faces])
    expected = closure(T0, u)[order]
    found = closure.on(moved)(T0, u[order])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))


def test_channels_mix_at_a_node_and_batches_do_not(mesh: TriangleMesh) -> None:
    closure = Closure(robust_laplacian(mesh), channels=2)
    awake(closure)
    u = field(mesh.num_nodes, 2, (3,)).requires_grad_()
    c = closure(T0, u)
    torch.testing.assert_close(c[1], closure(T0, u[1]))
    (grad,) = torch.autograd.grad(c[1, 5, 0], u)
    assert grad[1, 5, 1] != 0
    assert not grad[0].any()
    assert not grad[2].any()


def test_another_domain_shares_the_parameters(mesh: TriangleMesh) -> None:
    closure = ConservativeClosure(robust_laplacian(mesh))
    awake(closure)
    other = closure.on(icosphere(2))
    assert all(a is b for a, b in zip(closure.parameters(), other.parameters(), strict=True))
    assert other.laplacian is other.potentials.local.laplacian
    assert other(T0, field(162)).shape == (162, 1)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(closure)))
    u = field(mesh.num_nodes)
    torch.testing.assert_close(twin(T0, u), closure(T0, u), rtol=1e-12, atol=1e-12)


def test_float32_and_graphs() -> None:
    ring = torch.arange(8)
    graph = Graph(torch.stack([ring, (ring + 1) % 8]), 8, torch.ones(8, dtype=torch.float64)).undirected()
    L = combinatorial_laplacian(graph).to(torch.float32)
    closure = ConservativeClosure(L)
    awake(closure)
    assert closure(T0, field(8, dtype=torch.float32)).dtype == torch.float32


def test_gradients(mesh: TriangleMesh) -> None:
    closure = ConservativeClosure(robust_laplacian(icosphere(0)), width=3, layers=2)
    awake(closure)
    u = field(12).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: closure(T0, v), (u,))


def test_bad_input(mesh: TriangleMesh) -> None:
    L = robust_laplacian(mesh)
    with pytest.raises(ValueError, match="channels"):
        Closure(L)(T0, field(mesh.num_nodes, 3))
    with pytest.raises(ValueError, match="do not sum to zero"):
        ConservativeClosure(L.symmetrized())
    with pytest.raises(ValueError, match="powers"):
        LocalInvariants(L, 0)
    with pytest.raises(ValueError, match="length"):
        LocalInvariants(L, 1, -1.0)
