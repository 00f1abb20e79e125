"""A NeuralPDE encodes, solves, decodes, moves between surfaces, and is differentiable both ways."""

import pytest
import torch
from torch import nn

from neuralpde import (
    Adjoint,
    AttachPositions,
    BeltramiFlow,
    Direct,
    Dopri5,
    Exponential,
    FieldError,
    Heat,
    KeepChannels,
    NeuralPDE,
    Norm,
    PadChannels,
    Rayleigh,
    RightHandSide,
    ScaledDotProduct,
    SolverWarning,
    TriangleMesh,
    UnitaryFlow,
    bumpy,
    icosphere,
    robust_laplacian,
    torus,
)

T = torch.linspace(0, 0.3, 4, dtype=torch.float64)


class Reaction(RightHandSide):
    """du/dt = −κ L u + tanh(W u): mild diffusion, so that it can also be solved backwards."""

    def __init__(self, laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.kappa = nn.Parameter(torch.tensor(0.02, dtype=laplacian.dtype))
        self.mix = nn.Linear(2, 2, dtype=laplacian.dtype)

    def forward(self, t, x):
        return torch.tanh(self.mix(x)) - self.kappa * (self.laplacian @ x)


def beltrami(mesh: TriangleMesh) -> NeuralPDE:
    flow = BeltramiFlow(ScaledDotProduct(robust_laplacian(mesh), 4))
    return NeuralPDE(flow, Dopri5(), AttachPositions(mesh), KeepChannels(1))


def test_identity_without_coders():
    y0 = torch.randn(2, 42, 1, dtype=torch.float64)
    model = NeuralPDE(Heat(robust_laplacian(icosphere(1))), Exponential())
    out = model(y0, T)
    assert out.shape == (4, 2, 42, 1)
    assert torch.equal(out[0], y0)
    assert torch.equal(out, model.solve(y0, T).x)
    assert model.solve(y0, T).stats.nfe > 0


def gradients(model: NeuralPDE, y0: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    start = y0.clone().requires_grad_()
    (model(start, T)[1:] * torch.linspace(-1, 1, y0.shape[-2], dtype=y0.dtype)[:, None]).square().sum().backward()
    return [start.grad, *[p.grad.clone() for p in model.parameters() if p.grad is not None]]


@pytest.mark.parametrize("equation", ["unitary", "complex", "reaction"])
def test_adjoint_gradient_is_the_direct_gradient(equation):
    laplacian = robust_laplacian(bumpy(icosphere(1)))
    rhs = Reaction(laplacian) if equation == "reaction" else UnitaryFlow(laplacian, 2)
    encode, decode = (nn.Linear(2, 2, dtype=torch.float64) for _ in range(2))
    if equation == "complex":
        encode, decode = nn.Sequential(encode, ToComplex()), nn.Sequential(RealPart(), decode)
    y0 = torch.randn(42, 2, dtype=torch.float64)
    found = []
    for gradient in (Direct(), Adjoint()):
        solver = Dopri5(rtol=1e-9, atol=1e-11, gradient=gradient)
        found.append(gradients(NeuralPDE(rhs, solver, encode, decode), y0))
    assert len(found[0]) == len(found[1]) > 1
    for direct, adjoint in zip(*found, strict=True):
        assert bool(direct.abs().sum() > 0)
        torch.testing.assert_close(adjoint, direct, rtol=1e-5, atol=1e-6 * float(direct.abs().max()))


class ToComplex(nn.Module):
    def forward(self, x):
        return torch.complex(x, x.flip(-1))


class RealPart(nn.Module):
    def forward(self, x):
        return x.real + 2 * x.imag


def test_adjoint_warns_on_diffusion():
    model = NeuralPDE(Heat(robust_laplacian(icosphere(0)), learn=True), Dopri5(gradient=Adjoint()))
    with pytest.warns(SolverWarning, match=r"prefer gradient=Checkpointed\(\)"):
        model(torch.randn(12, 1, dtype=torch.float64), [0.0, 0.01])


def test_on_shares_every_parameter_and_rebuilds_every_operator():
    model = beltrami(icosphere(1))
    moved = model.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in model.parameters()]
    fresh = beltrami(torus(9, 5))
    fresh.load_state_dict(model.state_dict())
    y0 = torch.randn(45, 1, dtype=torch.float64)
    torch.testing.assert_close(moved(y0, T), fresh(y0, T))
    assert model(torch.randn(42, 1, dtype=torch.float64), T).shape == (4, 42, 1)


def test_checkpoints_do_not_carry_the_mesh():
    weights = beltrami(icosphere(1)).state_dict()
    assert all(value.numel() < 40 for value in weights.values())
    beltrami(torus(9, 5)).load_state_dict(weights)


def test_positions_are_centred_and_of_unit_size():
    mesh = icosphere(1, radius=7.0)
    shifted = TriangleMesh(mesh.vertices + torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64), mesh.faces)
    attach = AttachPositions(shifted, scale=2.0)
    joined = attach(torch.zeros(3, 42, 1, dtype=torch.float64))
    assert joined.shape == (3, 42, 4)
    torch.testing.assert_close(joined[1, :, 1:], 2 * mesh.vertices / 7.0, rtol=0, atol=1e-12)
    with pytest.raises(FieldError, match="the field has 12 nodes but the mesh 42"):
        attach(torch.zeros(12, 1, dtype=torch.float64))
    assert attach.on(torus(9, 5)).scale is attach.scale


def test_padding_keeps_norm_and_rayleigh_quotient_and_is_undone():
    laplacian = robust_laplacian(icosphere(1))
    x = torch.randn(2, 42, 1, dtype=torch.float64)
    wide = PadChannels(4)(x)
    assert wide.shape == (2, 42, 4)
    for quantity in (Norm(laplacian), Rayleigh(laplacian)):
        torch.testing.assert_close(quantity.measure(wide), quantity.measure(x), rtol=1e-14, atol=0)
    assert torch.equal(KeepChannels(1)(wide), x)
