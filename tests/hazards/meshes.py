"""Meshes that robust_laplacian and potpourri3d take without a word, or die of: what TriangleMesh and its Laplacians do."""

import numpy as np
import torch
from cases import Cases, check, main

import neuralpde as npde

cases = Cases()
refuses, answers = cases.refuses, cases.answers

sphere = npde.icosphere(2)
V, F = sphere.vertices, sphere.faces
n = len(V)


def robust(vertices, faces):
    return npde.robust_laplacian(npde.TriangleMesh(vertices, faces))


def cotangent(vertices, faces):
    return npde.cotangent_laplacian(npde.TriangleMesh(vertices, faces))


def triangle(height, *, width=1.0):
    points = torch.tensor([[0, 0, 0], [width, 0, 0], [width / 2, height, 0]], dtype=torch.float64)
    return points, torch.tensor([[0, 1, 2]])


def with_face(*corners):
    return torch.cat([F, torch.tensor([corners])])


def moved(index, value):
    vertices = V.clone()
    vertices[index, 0] = value
    return vertices


def extra_vertex(value):
    return torch.cat([V, torch.full((1, 3), value, dtype=V.dtype)])


def laws(laplacian, area=None):
    """L 1 = 0, symmetric, positive semi-definite, the masses add up to the area."""
    dense = torch.from_numpy(laplacian.stiffness.to_scipy().toarray())
    size = float(dense.abs().max())
    u = torch.finfo(laplacian.dtype).eps
    check(dense.isfinite().all(), "not finite")
    check(torch.equal(dense, dense.T), "asymmetric")
    check(float(dense.sum(1).abs().max()) <= 64 * u * size, f"C 1 = {float(dense.sum(1).abs().max()):.1e}")
    check(float(torch.linalg.eigvalsh(dense)[0]) >= -64 * u * size * len(dense), "not positive semi-definite")
    if area is not None:
        mass = float(laplacian.mass.double().sum())
        check(abs(mass - area) <= 1e-6 * area, f"mass {mass}, area {area}")
    return dense


ROBUST, COTAN = "mesh_", "cotan_"
for build in (robust, cotangent):
    own = ROBUST if build is robust else COTAN

    def refused(names, pattern, vertices, faces, build=build, own=own):
        names = " ".join(own + name for name in names.split())
        refuses(names, npde.DomainError, pattern, lambda: build(vertices, faces))

    nan, inf = float("nan"), float("inf")
    if build is robust:
        refused("all_faces_dup", "named twice", V, torch.cat([F, F]))
        refused("dup_face", "1 faces are named twice", V, torch.cat([F, F[:1]]))
        refused("dup_face_flipped", "named twice", V, torch.cat([F, F.flip(1)]))
        refused("face_repeated_index_aaa", "repeat a vertex", V, with_face(5, 5, 5))
        refused("face_repeated_index_aab", "repeat a vertex", V, with_face(5, 5, 6))
        refused("faces_bool", "must hold integers, not torch.bool", V, F > 3)
        refused("faces_float_fractional", "must hold integers, not torch.float", V, F + 0.5)
        refused("nan_unreferenced_vertex", "non-finite", extra_vertex(nan), F)
        refused("unreferenced_vertex", "belong to no face", extra_vertex(2.0), F)
        refused("only_degenerate_face", "repeat a vertex", V[:3], torch.tensor([[0, 1, 1]]))
        refused("verts_complex", "float32 or float64, not torch.complex128", V + 0j, F)
        refused("all_nan", "non-finite", V * nan, F)
        refused("all_vertices_same", "no area", V * 0 + 1, F)
        refused("huge_1e150", "change the unit of length", V * 1e150, F)
        refused("huge_1e160", "change the unit of length", V * 1e160, F)
        refused("huge_1e308", "change the unit of length", V / V.abs().max() * 1e308, F)
        refused("inf_vertex", r"non-finite value, the first \(inf\) at index \[3, 0\]", moved(3, inf), F)
        refused("offset_1e16", "no area", V + 1e16, F)
        refused("zero_area_coincident", "no area", torch.ones(3, 3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
        refused("zero_area_collinear zero_area_collinear_mollify0", "no area", *triangle(0.0))
        refused("sliver_1e12", "no area", *triangle(1e-12))
        refused("empty_both", "vertices is empty", V[:0], F[:0])
        refused("empty_faces", "faces are empty", V, F[:0])
        refused("empty_verts_with_face", "vertices is empty", V[:0], F[:1])
        refused("faces_int8_wrapped", "negative index|wrapped around", V, F.to(torch.int8))
        refused("quads", r"must have shape \(n, 3\), not \(50, 4\) \(triangulate", V, torch.zeros(50, 4, dtype=torch.int64))
        for name, index in {"2pow31": 2**31, "2pow62": 2**62, "eq_nV": n, "huge": 10_000_000}.items():
            refused(f"index_{name}", f"hold the index {index}, but there are only {n} points", V, with_face(0, 1, index))
        refused("tiny_1e_160", "change the unit of length", V * 1e-160, F)
        refused("index_minus1", "negative index -1", V, with_face(0, 1, -1))
    else:
        refused("huge", "change the unit of length", V * 1e200, F)
        refused("tiny", "change the unit of length", V * 1e-200, F)
        refused("repeated_index", "repeat a vertex", V, with_face(0, 0, 1))
        refused("zero_area", "no area", *triangle(0.0))
        refused("zero_area_eps", "no area", *triangle(1e-10))
        refused("sliver", "no area", *triangle(1e-12))
        refused("empty", "empty", V[:0], F[:0])
        refused("index_minus1", "negative index -1", V, with_face(0, 1, -1))
        refused("oob", f"index {n}", V, with_face(0, 1, n))
        refused("int32_overflow", "negative index", V, torch.tensor([[0, 1, 2**31 + 2]]).to(torch.int32))
    refused("nan_vertex" if build is robust else "nan", "non-finite", moved(3, nan), F)

refuses("vertex_areas_oob edges_oob", npde.DomainError, "index 500", lambda: npde.TriangleMesh(V, with_face(0, 1, 500)).edges)
refuses("vertex_areas_unreferenced", npde.DomainError, "belong to no face", lambda: npde.TriangleMesh(extra_vertex(2.0), F).area)
refuses("validate_mesh", npde.DomainError, f"index {n}", lambda: npde.TriangleMesh(V.numpy(), with_face(n, 1, 0).numpy()))


def arrays_or_tensors():
    mine, theirs = robust(V, F), npde.robust_laplacian(npde.TriangleMesh(V.numpy(), F.numpy()))
    laws(mine, sphere.area)
    check(torch.equal(mine.stiffness.values, theirs.stiffness.values))


def planar():
    mesh = npde.TriangleMesh(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), F.new_tensor([[0, 1, 2]]))
    for laplacian in (npde.robust_laplacian(mesh), npde.cotangent_laplacian(mesh)):
        laws(laplacian, 0.5)


def obtuse():
    # The plain formula is what it is: a negative weight, still positive semi-definite; the robust one has none.
    points = torch.tensor([[0, 0, 0], [2, 0, 0], [1, 0.1, 0], [1, -0.1, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    off = laws(cotangent(points, faces), 0.2).fill_diagonal_(0)
    check(off.max() > 0)
    check(laws(robust(points, faces), 0.2).fill_diagonal_(0).max() <= 0, "a negative weight")


def far_from_the_origin():
    near, far = V.float() + 1000, V.double() + 1000
    single, double = cotangent(near, F), cotangent(far, F)
    laws(single)
    check(single.dtype == torch.float32)
    error = (single.stiffness.values.double() - double.stiffness.values).abs().max()
    # The positions themselves are rounded at 1000, on edges of length 0.3: 6e-5 / 0.3 relative.
    check(float(error) < 1e-3 * float(double.stiffness.values.abs().max()), f"error {float(error):.1e}")


def linear_precision():
    # Obtuse triangles at the boundary: only the plain cotangent weights keep linear functions harmonic inside.
    mesh = npde.grid(6, 6)
    points = mesh.vertices.double().clone()
    points[:, 1] *= 0.2
    points[:, 0] += 0.7 * points[:, 1] * 5
    skewed = npde.TriangleMesh(points, mesh.faces)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1).values
    unique, count = torch.unique(edges, dim=0, return_counts=True)
    inside = torch.ones(len(points), dtype=torch.bool)
    inside[unique[count == 1].flatten()] = False
    slope = npde.cotangent_laplacian(skewed).stiffness @ points
    check(bool(inside.any()) and float(slope[inside].abs().max()) < 1e-12, "linear functions are not harmonic")
    check(laws(npde.robust_laplacian(skewed), skewed.area).fill_diagonal_(0).max() <= 0, "a negative weight")


answers("mesh_torch_input", arrays_or_tensors)
answers("mesh_verts_2d", planar)
answers("cotan_obtuse", obtuse)
answers("cotan_float32_large_offset", far_from_the_origin)
answers("mesh_obtuse_boundary", linear_precision)

if __name__ == "__main__":
    np.seterr(all="raise")
    main(cases)
