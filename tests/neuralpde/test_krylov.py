"""Regularised solutions from a Krylov space, against dense ones."""

import pytest
import torch

from neuralpde.krylov import Dense, Lanczos

N = 30
G = torch.Generator().manual_seed(0)
A = torch.randn(20, N, generator=G, dtype=torch.float64)
H = A.T @ A
B = torch.randn(N, N, generator=G, dtype=torch.float64)
R = B @ B.T + torch.eye(N, dtype=torch.float64)
RHS = torch.randn(N, generator=G, dtype=torch.float64)


def lanczos() -> Lanczos:
    return Lanczos(lambda v: H @ v, lambda v: R @ v, lambda v: torch.linalg.solve(R, v), RHS)


def test_every_shift_from_one_basis() -> None:
    space = lanczos()
    space.grow(100)
    assert space.full
    for shift in (1e-2, 1.0, 1e3):
        expected = torch.linalg.solve(H + shift * R, RHS)
        x, residual = space.solve(shift)
        assert residual < 1e-8
        torch.testing.assert_close(x, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
        torch.testing.assert_close(Dense(H, R, RHS).solve(shift)[0], expected, rtol=1e-8, atol=1e-8)


def test_orthonormal_in_the_metric_and_honest_about_its_residual() -> None:
    space = lanczos()
    space.grow(8)
    V = torch.stack(space.vectors[:8])
    torch.testing.assert_close(V @ R @ V.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
    x, residual = space.solve(0.5)
    left = RHS - (H + 0.5 * R) @ x
    true = float(torch.sqrt(left @ torch.linalg.solve(R, left)) / torch.sqrt(RHS @ torch.linalg.solve(R, RHS)))
    assert residual == pytest.approx(true, rel=1e-6)


def test_eigenvalues_and_an_early_end() -> None:
    space = lanczos()
    space.grow(100)
    top = float(torch.linalg.eigvals(torch.linalg.solve(R, H)).real.max())
    assert space.largest == pytest.approx(top, rel=1e-9)
    assert Dense(H, R, RHS).largest == pytest.approx(top, rel=1e-9)
    # One direction is all there is.
    short = Lanczos(lambda v: 3 * v, lambda v: v, lambda v: v, RHS)
    short.grow(10)
    assert short.full
    torch.testing.assert_close(short.solve(1.0)[0], RHS / 4)


def test_what_is_not_seen_stays() -> None:
    seen = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    x, _ = Dense(seen, torch.eye(2, dtype=torch.float64), torch.tensor([4.0, 0.0], dtype=torch.float64)).solve(0.0)
    assert x.tolist() == [2.0, 0.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="zero"):
        Lanczos(lambda v: v, lambda v: v, lambda v: v, torch.zeros(3))
