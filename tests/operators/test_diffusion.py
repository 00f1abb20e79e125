"""Diffusion with coefficients is −div (D grad): symmetric, positive semi-definite, right in closed form, and learned."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    FieldError,
    Graph,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid,
    icosphere,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)
from operators.differential import edge_gradient, face_gradient
from operators.diffusion import (
    EdgeDiffusion,
    MeshDiffusion,
    conductance_laplacian,
    diffusion_laplacian,
    directional_diffusivity,
    face_average,
)

U = roundoff(torch.float64)
few = settings(max_examples=15)
RATES = st.sampled_from([0.0, 1e-3, 0.5, 1.0, 2.0, 1e3])


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def size(operator):
    return torch.from_numpy(abs(operator.to_scipy()).toarray())


def drawn(data, count):
    return torch.tensor(data.draw(st.lists(RATES, min_size=count, max_size=count)), dtype=torch.float64)


def tensors(data, mesh):
    """One symmetric positive semi-definite matrix a face, of any rank."""
    m, d = mesh.faces.shape[0], mesh.vertices.shape[1]
    R = data.draw(fields(m * d, d, exact=True)).reshape(m, d, d) / 8
    return R @ R.mT


def corner():
    """Two faces in space, and in the plane."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0.1, 0.2], [0.3, 1, 0.1], [1.4, 0.9, -0.3]], dtype=torch.float64)
    return TriangleMesh(vertices, torch.tensor([[0, 1, 2], [1, 3, 2]]))


def magnitude(mesh, D):
    """|G|ᵀ A |D| |G|, what the stiffness is summed from."""
    G = face_gradient(mesh)
    m, d = mesh.faces.shape[0], G.axes
    block = torch.block_diag(*(G.weight[::d, None, None] * D.abs().amax(dim=(1, 2), keepdim=True).expand(m, d, d)))
    return size(G.stencil).T @ block @ size(G.stencil)


# On surfaces ----------------------------------------------------------------------------------------------------------


@given(mesh=meshes())
def test_unit_diffusivity_gives_the_cotangent_laplacian(mesh):
    L, expected = diffusion_laplacian(mesh, 1.0), cotangent_laplacian(mesh)
    # The two take the area of a face from different corners.
    bound = 16 * U * aspect(mesh) * size(expected.stiffness).sum(1, keepdim=True)
    assert_within(dense(L.stiffness), dense(expected.stiffness), bound)
    assert_within(L.mass, expected.mass, 16 * U * aspect(mesh) * expected.mass)
    eye = torch.eye(3, dtype=torch.float64).expand(mesh.faces.shape[0], 3, 3)
    tensor = MeshDiffusion(mesh)(eye).stiffness
    assert_within(dense(tensor), dense(expected.stiffness), 64 * U * aspect(mesh) * magnitude(mesh, eye))


@given(data=st.data())
def test_stiffness_is_symmetric_kills_constants_and_is_positive_semi_definite(data):
    mesh = data.draw(meshes())
    D = tensors(data, mesh) if data.draw(st.booleans()) else drawn(data, mesh.faces.shape[0])
    L = diffusion_laplacian(mesh, D)
    C, scale = dense(L.stiffness), size(L.stiffness)
    assert torch.equal(C, C.T)
    assert_within(L.stiffness.row_sums(), 0.0, 16 * U * scale.sum(1))
    # Rounding of slopes is magnified by the shape of the face, and relative to that face's own coefficient.
    D = D if D.ndim == 3 else D[:, None, None] * torch.eye(3)
    slack = 64 * len(C) * U * aspect(mesh) * float(magnitude(mesh, D.double()).max())
    assert torch.linalg.eigvalsh(C)[0] >= -slack


@pytest.mark.parametrize("columns", [2, 3])
@given(data=st.data())
def test_stiffness_is_the_gradient_of_the_faces_weighted_by_the_tensors(columns, data):
    mesh = data.draw(meshes(planar=columns == 2))
    mesh = TriangleMesh(mesh.vertices[:, :columns], mesh.faces)
    D, G = tensors(data, mesh), face_gradient(mesh)
    weighted = torch.block_diag(*(G.weight[::columns, None, None] * D))
    expected = G.matrix().T @ weighted @ G.matrix()
    bound = 64 * U * aspect(mesh) * magnitude(mesh, D)
    assert_within(dense(diffusion_laplacian(mesh, D).stiffness), expected, bound)


@given(data=st.data())
def test_isotropic_tensors_are_the_numbers(data):
    mesh = data.draw(meshes())
    d = drawn(data, mesh.faces.shape[0])
    D = d[:, None, None] * torch.eye(3, dtype=torch.float64)
    bound = 64 * U * aspect(mesh) * magnitude(mesh, D)
    assert_within(dense(diffusion_laplacian(mesh, D).stiffness), dense(diffusion_laplacian(mesh, d).stiffness), bound)


@few
@given(mesh=meshes(planar=True), D=st.sampled_from([((2.0, 0.5), (0.5, 1.0)), ((1.0, 0.0), (0.0, 0.0))]))
def test_linear_functions_carry_a_constant_flux_inside_a_plane(mesh, D):
    """With one D everywhere: (L x) = 0 at inner vertices and ½ xᵀ C x = ½ area a·D a."""
    flat = TriangleMesh(mesh.vertices[:, :2], mesh.faces)
    tensor = torch.tensor(D, dtype=torch.float64)
    L = diffusion_laplacian(flat, tensor.expand(flat.faces.shape[0], 2, 2))
    pairs = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1).values
    edges, count = torch.unique(pairs, dim=0, return_counts=True)
    inside = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inside[edges[count == 1].reshape(-1)] = False
    x = flat.vertices - flat.vertices.mean(0)
    scale = magnitude(flat, tensor.expand(flat.faces.shape[0], 2, 2)) @ x.abs()
    assert_within(L.stiffness(x)[inside], 0.0, 64 * U * aspect(mesh) * scale[inside])
    energy = x.T @ L.stiffness(x)
    assert_within(energy, mesh.area * tensor, 128 * U * aspect(mesh) * float((x.abs().T @ scale).max()))


def test_anisotropic_rectangle_has_its_closed_spectrum():
    """Neumann eigenvalues π² (α i² + β j²) of D = diag(α, β) on the unit square."""
    mesh = grid(25, 25)
    D = directional_diffusivity(mesh, torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(mesh.faces.shape[0], 3), 3.0, 0.5)
    eigenvalues = torch.linalg.eigvalsh(diffusion_laplacian(mesh, D).symmetrized().matrix())[1:8]
    modes = sorted(np.pi**2 * (3 * i**2 + 0.5 * j**2) for i in range(5) for j in range(5))[1:8]
    assert_within(eigenvalues, torch.tensor(modes), 0.02 * max(modes))


def test_layers_in_series_conduct_as_their_harmonic_mean():
    """Steady heat through two layers, d = 1 left and 3 right of x = ½: the middle has 3/4 of the drop on its left."""
    mesh = grid(9, 3)
    middle = mesh.vertices[mesh.faces].mean(1)
    L = diffusion_laplacian(mesh, torch.where(middle[:, 0] < 0.5, 1.0, 3.0).double())
    at = mesh.vertices[:, 0]
    profile = torch.where(at < 0.5, 1.5 * at, 0.75 + 0.5 * (at - 0.5))[:, None]
    inside = (at > 0) & (at < 1)
    assert_within(L.stiffness(profile)[inside], 0.0, 64 * U * 3)


@given(data=st.data())
def test_directions_give_their_two_rates_and_nothing_out_of_the_face(data):
    mesh = data.draw(meshes())
    m = mesh.faces.shape[0]
    points = mesh.vertices - mesh.vertices.mean(0)
    a, b = (points[mesh.faces[:, k]] - points[mesh.faces[:, 0]] for k in (1, 2))
    normal = torch.nn.functional.normalize(torch.linalg.cross(a, b), dim=1)
    along, across = drawn(data, m), data.draw(RATES)
    D = directional_diffusivity(mesh, 3 * a + 2 * a.norm(dim=1, keepdim=True) * normal, along, across)
    tangent = a / a.norm(dim=1, keepdim=True)
    side = torch.linalg.cross(normal, tangent)
    bound = 64 * U * aspect(mesh) * (along + across)[:, None]
    for vector, rate in ((tangent, along[:, None]), (side, across), (normal, 0.0)):
        assert_within((D @ vector[..., None])[..., 0], rate * vector, bound)
    assert torch.equal(D, D.mT)
    diffusion_laplacian(mesh, D)


@few
@given(data=st.data(), power=st.integers(-30, 30))
def test_scaling_turning_and_moving_the_surface(data, power):
    mesh = data.draw(meshes())
    d, D = drawn(data, mesh.faces.shape[0]), tensors(data, mesh)
    scaled = TriangleMesh(mesh.vertices * 2.0**power, mesh.faces)
    assert torch.equal(diffusion_laplacian(scaled, d).stiffness.values, diffusion_laplacian(mesh, d).stiffness.values)
    # The square root of 2A in the slopes of tensors is exact for even powers only.
    assert torch.equal(
        diffusion_laplacian(TriangleMesh(mesh.vertices * 4.0**power, mesh.faces), D).stiffness.values,
        diffusion_laplacian(mesh, D).stiffness.values,
    )
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    moved = TriangleMesh(mesh.vertices @ turn + 3 * mesh.vertices.abs().max(), mesh.faces)
    bound = 256 * U * aspect(mesh) * float(magnitude(mesh, D).max())
    turned = dense(diffusion_laplacian(moved, (turn.T @ D @ turn + (turn.T @ D @ turn).mT) / 2).stiffness)
    assert_within(turned, dense(diffusion_laplacian(mesh, D).stiffness), bound)


@given(data=st.data())
def test_face_average_is_the_mean_of_the_corners(data):
    mesh = data.draw(meshes())
    x = data.draw(fields(mesh.num_nodes, 2, exact=True)).mT
    expected = (x[:, mesh.faces[:, 0]] + x[:, mesh.faces[:, 1]] + x[:, mesh.faces[:, 2]]) / 3
    assert_within(face_average(mesh, x), expected, 4 * U * x.abs().max())


# Learning -------------------------------------------------------------------------------------------------------------


def test_gradients_in_the_coefficients_and_in_the_vertices():
    mesh = corner()
    x = torch.randn(4, 2, dtype=torch.float64)
    for d in (2, 3):

        def slope(vertices, numbers, root):
            surface = TriangleMesh(vertices, mesh.faces)
            diffusion = MeshDiffusion(surface)
            averaged = face_average(surface, numbers.exp())
            return diffusion(averaged) @ x, diffusion(root @ root.mT) @ x, diffusion(numbers[0].exp()) @ x

        inputs = (mesh.vertices[:, :d].clone(), torch.randn(4).double(), torch.randn(2, d, d).double())
        inputs = tuple(value.requires_grad_() for value in inputs)
        assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(lambda *inputs: slope(*inputs)[:2], inputs)


def test_gradients_in_direction_and_rates():
    mesh = corner()
    direction = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([2.0, 0.5], dtype=torch.float64, requires_grad=True)
    vertices = mesh.vertices.clone().requires_grad_()

    def values(vertices, direction, rates):
        surface = TriangleMesh(vertices, mesh.faces)
        D = directional_diffusivity(surface, direction, rates[0], rates)
        return diffusion_laplacian(surface, D).stiffness.values

    assert torch.autograd.gradcheck(values, (vertices, direction, rates))


def test_training_recovers_a_diffusivity_from_its_flow():
    mesh = icosphere(1)
    diffusion = MeshDiffusion(mesh)
    truth = 1 + (mesh.vertices[mesh.faces].mean(1)[:, 0] > 0).double()
    x = torch.randn(42, 32, dtype=torch.float64)
    flow = diffusion(truth) @ x
    learned = torch.nn.Parameter(torch.zeros(mesh.faces.shape[0], dtype=torch.float64))
    optimizer = torch.optim.Adam([learned], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (diffusion(learned.exp()) @ x - flow).square().mean().backward()
        optimizer.step()
    assert_within(learned.detach().exp(), truth, 0.05)


def test_a_batch_of_coefficients_is_a_batch_of_laplacians():
    mesh = torus(6, 5)
    diffusion, m = MeshDiffusion(mesh), mesh.faces.shape[0]
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    numbers, R = torch.rand(2, m, dtype=torch.float64), torch.randn(2, m, 3, 3, dtype=torch.float64)
    edges = EdgeDiffusion(robust_laplacian(mesh))
    conductances = torch.rand(2, edges.weights.numel(), dtype=torch.float64)
    for build, coefficients in ((diffusion, numbers), (diffusion, R @ R.mT), (edges, conductances)):
        single = torch.stack([build(c) @ member for c, member in zip(coefficients, x, strict=True)])
        torch.testing.assert_close(build(coefficients) @ x, single, rtol=1e-13, atol=1e-12)


# On edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [combinatorial_laplacian, random_walk_laplacian])
@given(data=st.data())
def test_conductances_weigh_the_edge_gradient(build, data):
    L = build(data.draw(graphs()))
    diffusion = EdgeDiffusion(L)
    k = drawn(data, diffusion.weights.numel())
    K = diffusion(k)
    G = edge_gradient(L)
    kept = G.weight != 0
    B = G.matrix()[kept]
    expected = B.T @ torch.diag(G.weight[kept] * k) @ B
    assert torch.equal(dense(K.stiffness), dense(K.stiffness).T)
    assert_within(dense(K.stiffness), expected, 8 * U * len(expected) * expected.abs().sum(1, keepdim=True))
    assert torch.equal(K.mass, L.mass)
    assert (torch.linalg.eigvalsh(dense(K.stiffness)) >= -32 * len(expected) * U * expected.abs().sum()).all()


@few
@given(data=st.data())
def test_unit_conductance_gives_the_laplacian_back(data):
    domain = data.draw(st.one_of(graphs(), meshes()))
    L = combinatorial_laplacian(domain) if isinstance(domain, Graph) else robust_laplacian(domain)
    base = domain if isinstance(domain, Graph) else L
    diffusion = EdgeDiffusion(base)
    back = conductance_laplacian(base, torch.ones_like(diffusion.weights))
    assert_within(dense(back.stiffness), dense(L.stiffness), 16 * U * size(L.stiffness).sum(1, keepdim=True))
    i, j = diffusion.edges
    assert (i < j).all()
    assert torch.equal(torch.argsort(i * L.shape[0] + j), torch.arange(i.numel()))


def test_conductances_are_learned():
    graph = Graph(torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]]), 3, torch.ones(6, dtype=torch.float64))
    x = torch.randn(3, 2, dtype=torch.float64)
    k = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    diffusion = EdgeDiffusion(graph)
    assert torch.autograd.gradcheck(lambda k: diffusion(k.square()) @ x, k)
    assert torch.autograd.gradgradcheck(lambda k: diffusion(k.square()) @ x, k)


# Errors and the object ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("diffusivity", "message"),
    [
        (torch.ones(79), r"shape \(\.\.\., 80\) or \(\.\.\., 80, 3, 3\), not \(79,\)"),
        (torch.ones(42), r"not \(42,\): average it to the faces with face_average"),
        (torch.ones(80, 2, 2), r"not \(80, 2, 2\)"),
        (torch.ones(80, dtype=torch.float32), r"float32 but the domain torch\.float64"),
        (torch.ones(80, device="meta"), "on meta but the domain on cpu"),
        (torch.full((80,), torch.nan), "non-finite"),
        (torch.full((80, 3, 3), torch.inf), "non-finite"),
        (torch.linspace(-1, 1, 80), "negative in 40 places.*softplus"),
        (torch.tensor(-1.0), "negative in 80 places"),
        (torch.ones(80, 3, 3).triu(), r"not symmetric on every face: use \(D \+ D\.mT\) / 2"),
        (-torch.eye(3).expand(80, 3, 3), r"negative eigenvalue on 80 faces, the least -1.*R @ R\.mT"),
        (torch.full((80,), 1e308, dtype=torch.float64), "overflow torch.float64"),
        ([1.0] * 80, "must be a torch.Tensor, not list"),
    ],
)
def test_bad_coefficients_are_refused_with_their_cure(diffusivity, message):
    if isinstance(diffusivity, torch.Tensor) and "float32" not in message:
        diffusivity = diffusivity.double()
    with pytest.raises(FieldError, match=message):
        MeshDiffusion(icosphere(1))(diffusivity)
    with pytest.raises(FieldError, match=message):
        diffusion_laplacian(icosphere(1), diffusivity)


def test_a_tensor_that_is_negative_only_out_of_the_face_is_welcome():
    mesh = grid(3, 3)
    D = torch.diag(torch.tensor([1.0, 1.0, -5.0], dtype=torch.float64)).expand(8, 3, 3)
    expected = dense(diffusion_laplacian(mesh, 1.0).stiffness)
    assert_within(dense(diffusion_laplacian(mesh, D).stiffness), expected, 64 * U)


@pytest.mark.parametrize(
    ("conductance", "message"),
    [
        (torch.ones(3), r"shape \(\.\.\., 2\), one for each edge i < j, not \(3,\)"),
        (torch.ones(2, dtype=torch.float32), "float32 but the domain"),
        (torch.tensor([1.0, torch.inf]), "non-finite"),
        (torch.tensor([1.0, -1.0]), "negative in 1 places"),
        (None, "not NoneType"),
    ],
)
def test_bad_conductances_are_refused_with_their_cure(conductance, message):
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3, torch.ones(4, dtype=torch.float64))
    if conductance is not None and "float32" not in message:
        conductance = conductance.double()
    with pytest.raises(FieldError, match=message):
        conductance_laplacian(graph, conductance)


def test_bases_that_edges_do_not_determine_are_refused():
    with pytest.raises(DomainError, match=r"before symmetrized\(\)"):
        EdgeDiffusion(robust_laplacian(torus(8, 6)).symmetrized())
    obtuse = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.1, 0]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(DomainError, match=r"not negative: use robust_laplacian"):
        EdgeDiffusion(cotangent_laplacian(obtuse))


def test_bad_directions_and_averages_are_refused():
    mesh = grid(3, 3)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(8, 3)
    with pytest.raises(FieldError, match="zero or normal to its face on 8 faces"):
        directional_diffusivity(mesh, up, 1.0, 1.0)
    with pytest.raises(FieldError, match=r"direction must have shape \(\.\.\., 8, 3\), not \(8, 2\)"):
        directional_diffusivity(mesh, up[:, :2], 1.0, 1.0)
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 9\), not \(8,\)"):
        face_average(mesh, torch.ones(8))


def test_on_another_mesh():
    def rate(mesh):
        return 1 + face_average(mesh, mesh.vertices[:, 2]).square()

    mesh, other = icosphere(1), torus(8, 6)
    for diffusivity in (rate, 2.0):
        moved = diffusion_laplacian(mesh, diffusivity).on(other)
        assert torch.equal(moved.stiffness.values, diffusion_laplacian(other, diffusivity).stiffness.values)
    with pytest.raises(NotImplementedError, match="built from tensors"):
        diffusion_laplacian(mesh, rate(mesh)).on(other)
    assert MeshDiffusion(mesh).on(other)(rate(other)).shape == (48, 48)
    narrow = MeshDiffusion(mesh).to(torch.float32).on(other)
    assert narrow(rate(other).float()).dtype == torch.float32
    edges = EdgeDiffusion(robust_laplacian(mesh)).on(other)
    assert edges(torch.ones_like(edges.weights)).shape == (48, 48)
    bare = robust_laplacian(mesh)
    bare.recipe = None
    with pytest.raises(NotImplementedError, match="made from tensors"):
        EdgeDiffusion(bare).on(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept_and_a_pickle_and_a_float32_copy_agree(dtype):
    mesh = icosphere(1).to(dtype)
    d = torch.rand(80, dtype=dtype)
    for build, c in (
        (MeshDiffusion(mesh), d),
        (MeshDiffusion(mesh), d[:, None, None] * torch.eye(3, dtype=dtype)),
        (EdgeDiffusion(robust_laplacian(mesh)), torch.rand(120, dtype=dtype)),
    ):
        L = build(c)
        assert L.dtype == L.mass.dtype == dtype
        assert torch.equal(pickle.loads(pickle.dumps(build))(c).stiffness.values, L.stiffness.values)
        assert build.state_dict() == {}
        narrow = pickle.loads(pickle.dumps(build)).to(torch.float32)(c.float())
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.stiffness.values, L.stiffness.values.float(), rtol=1e-5, atol=1e-5)


def test_flows_solve_and_stay_symmetric_on_every_real_mesh(real_mesh):
    m = real_mesh.faces.shape[0]
    d = torch.rand(m, dtype=torch.float64) + 0.1
    diffusion = MeshDiffusion(real_mesh)
    edge = real_mesh.vertices[real_mesh.faces[:, 1]] - real_mesh.vertices[real_mesh.faces[:, 0]]
    x = torch.randn(real_mesh.num_nodes, 1, dtype=torch.float64)
    G = face_gradient(real_mesh)
    for coefficients in (d, directional_diffusivity(real_mesh, edge, 1.0, d)):
        L = diffusion(coefficients)
        C = L.stiffness.to_scipy()
        assert (C != C.T).nnz == 0
        assert_within(L.stiffness.row_sums(), 0.0, 16 * U * torch.from_numpy(abs(C).sum(1)))
        g = G.vectors(G @ x)
        flux = g * d[:, None, None] if coefficients.ndim == 1 else coefficients @ g
        scale = abs(G.stencil.to_scipy())
        size_of = torch.from_numpy(scale @ x.abs().numpy())
        bound = torch.from_numpy(scale.T @ (1.1 * G.weight[:, None] * size_of).numpy()) / L.mass[:, None]
        assert_within(-(G.divergence() @ G.flat(flux)), L @ x, 64 * U * aspect(real_mesh) * bound)
    plain = cotangent_laplacian(real_mesh).stiffness.to_scipy()
    assert abs(diffusion(torch.ones_like(d)).stiffness.to_scipy() - plain).max() <= 64 * U * abs(plain).max()


def test_what_is_round_off_on_a_face_does_not_depend_on_the_others():
    mesh = icosphere(0)
    D = torch.eye(3, dtype=torch.float64).repeat(20, 1, 1)
    D[0] *= 1e12
    D[0, 0, 1] = 1e-4
    assert diffusion_laplacian(mesh, D).shape == (12, 12)
    D[1, 0, 1] = 1e-4
    with pytest.raises(FieldError, match="not symmetric"):
        diffusion_laplacian(mesh, D)
