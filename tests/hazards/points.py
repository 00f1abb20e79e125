"""Point clouds on which robust_laplacian dies or lies: what PointCloud and its Laplacian do."""

import torch
from cases import Cases, check, main

import neuralpde as npde
from operators.point_cloud import point_cloud_laplacian

cases = Cases()
refuses, answers = cases.refuses, cases.answers
P = npde.icosphere(2).vertices.double()
n = len(P)


def laplacian(points, neighbours=30):
    return point_cloud_laplacian(npde.PointCloud(points), neighbours)


def refused(names, pattern, points=P, neighbours=30, error=npde.DomainError):
    refuses(names, error, pattern, lambda: laplacian(points, neighbours))


def with_row(row, index=0):
    points = P.clone()
    points[index] = torch.as_tensor(row, dtype=P.dtype)
    return points


line = torch.linspace(0, 1, 50, dtype=P.dtype)[:, None] * torch.tensor([[1.0, 2.0, 3.0]], dtype=P.dtype)
K = "neighbours must be an integer from 3"
refused("pc_k0", K, neighbours=0)
refused("pc_k1", K, neighbours=1)
refused("pc_k2", K, neighbours=2)
refused("pc_kneg", K, neighbours=-5)
refused("pc_k_float", K, neighbours=5.5)
refused("pc_k_ge_n", K, neighbours=n)
refused("pc_1_point pc_2_points pc_3_points", K, P[:3], 3)
refused("pc_fewer_points_than_neighbors pc_few", K, P[:20])
refused("pc_empty", "empty", P[:0])
refused("pc_nan", r"non-finite values, the first \(nan\)", with_row([float("nan")] * 3))
refused("pc_inf", r"non-finite values, the first \(inf\)", with_row([float("inf")] * 3))
refused("pc_huge", "change the unit of length", P * 1e160)
refused("pc_tiny", "change the unit of length", P * 1e-160)
refused("pc_all_same pc_same", "coincide", P * 0 + 1)
refused("pc_duplicates", "162 points|324 points", torch.cat([P, P]))
refused("pc_many_dup_of_one", "points coincide with another one", torch.cat([P, P[:1].repeat(40, 1)]))
refused("pc_collinear", "lie on one line", line)
refused("pc_outlier", "as far from its nearest neighbour", with_row([1e3, 0, 0]), error=npde.DomainWarning)
generator = torch.Generator().manual_seed(0)
volume = torch.rand(500, 3, dtype=P.dtype, generator=generator)
refused("pc_volume_random", "fill a volume", volume, error=npde.DomainWarning)


def renamed():
    """The library below breaks ties by order; the spectrum may not care by more than the 5 % that is documented."""
    points = torch.nn.functional.normalize(torch.randn(300, 3, dtype=P.dtype, generator=generator), dim=1)
    spectra = []
    for order in (torch.arange(300), torch.randperm(300, generator=generator)):
        symmetric = laplacian(points[order]).symmetrized().stiffness.to_scipy().toarray()
        spectra.append(torch.linalg.eigvalsh(torch.from_numpy(symmetric))[:10])
    check((spectra[0] - spectra[1]).abs().max() < 0.05 * spectra[0].max(), f"{spectra[0]} and {spectra[1]}")
    check(spectra[0][0].abs() < 1e-10 and spectra[0][1] > 1, "not one component")


answers("pc_permutation pc_vertex_permutation", renamed)

if __name__ == "__main__":
    main(cases)
