"""Sources, meshes and options on which potpourri3d dies or lies: what the geodesic solvers do."""

import math

import torch
from cases import Cases, check, main

import neuralpde as npde
from operators.geodesics import HeatMethod, VectorHeatMethod, geodesic_distance, geodesic_path, log_map

cases = Cases()
refuses, answers = cases.refuses, cases.answers
sphere = npde.icosphere(2).to(torch.float64)
V, F = sphere.vertices, sphere.faces
n = len(V)
both = npde.TriangleMesh(torch.cat([V, V + 5]), torch.cat([F, F + n]))


def refused(names, pattern, attempt):
    refuses(names, npde.DomainError, pattern, attempt)


def on_mesh(names, pattern, vertices, faces):
    refused(names, pattern, lambda: geodesic_distance(npde.TriangleMesh(vertices, faces), 0))


def with_face(*corners):
    return torch.cat([F, torch.tensor([corners])])


def moved(value):
    vertices = V.clone()
    vertices[3, 0] = value
    return vertices


on_mesh("heat_all_same", "no area", V * 0 + 1, F)
on_mesh("heat_empty", "empty", V[:0], F[:0])
on_mesh("heat_no_faces", "faces are empty", V, F[:0])
on_mesh("heat_float_faces", "must hold integers", V, F.double() + 0.25)
on_mesh("heat_huge", "change the unit of length", V * 1e160, F)
on_mesh("heat_tiny", "change the unit of length", V * 1e-160, F)
on_mesh("heat_inf_vertex", "non-finite", moved(math.inf), F)
on_mesh("heat_nan_vertex", "non-finite", moved(math.nan), F)
on_mesh("heat_index_neg", "negative index -1", V, with_face(0, 1, -1))
on_mesh("heat_index_oob flip_face_oob vheat_connlap_oob", f"index {n}", V, with_face(0, 1, n))
on_mesh("heat_unreferenced vheat_unreferenced_frames", "belong to no face", torch.cat([V, V[:1] * 2]), F)

for name, source in {"huge": 10**9, "oob": n, "neg": -1}.items():
    refused(f"heat_source_{name}", f"there is no vertex {source}", lambda s=source: geodesic_distance(sphere, s))
refused("heat_source_float", "whole numbers", lambda: geodesic_distance(sphere, 0.5))
refused("heat_multisource_oob", f"there is no vertex {n}", lambda: geodesic_distance(sphere, [0, n]))
refused("heat_multisource_empty", "one or more", lambda: geodesic_distance(sphere, []))
for name, value in {"0": 0.0, "_neg": -1.0, "_nan": math.nan}.items():
    refused(f"heat_tcoef{name}", "smoothing must lie between", lambda v=value: HeatMethod(sphere, v))

refused("vheat_oob_source", f"there is no vertex {n}", lambda: log_map(sphere, n))
refused("vheat_nan_value", "two finite components", lambda: VectorHeatMethod(sphere).transport(0, [math.nan, 0.0]))
refused("vheat_nonmanifold", "more than two faces", lambda: log_map(book(), 0))
refused("vheat_inconsistent", "disagree in orientation", lambda: log_map(npde.TriangleMesh(V, flipped()), 0))
refused("vheat_bowtie", "two fans of faces meet", lambda: log_map(bowtie(), 0))
refused("flip_disconnected", "different components", lambda: geodesic_path(both, 0, n))
refused("flip_oob", f"there is no vertex {n}", lambda: geodesic_path(sphere, 0, n))


def flipped():
    faces = F.clone()
    faces[0] = faces[0].flip(0)
    return faces


def book():
    points = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0.5], [0, 0, 1]], dtype=torch.float64)
    return npde.TriangleMesh(points, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))


def bowtie():
    points = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], dtype=torch.float64)
    return npde.TriangleMesh(points, torch.tensor([[0, 1, 2], [0, 3, 4]]))


def two_components():
    distance = geodesic_distance(both, 0)
    check(torch.isinf(distance[n:]).all(), "another component has a finite distance")
    check(distance[0] == 0 and 2.8 < float(distance[:n].max()) < 3.4, f"the farthest is at {float(distance[:n].max())}")
    logarithm = log_map(both, 0)
    check(torch.isfinite(logarithm[:n]).all() and torch.isinf(logarithm[n:]).all(), "the logarithm")
    carried = VectorHeatMethod(both).transport(0, [1.0, 0.0])
    check(torch.allclose(carried[:n].norm(dim=1), torch.ones(n).double(), atol=1e-6) and not carried[n:].any(), "transport")


def triangles_in_a_list():
    again = npde.TriangleMesh(V, F.tolist())
    check(torch.equal(geodesic_distance(again, 0), geodesic_distance(sphere, 0)))


answers("heat_disconnected vheat_disconnected_extend vheat_disconnected_log", two_components)
answers("heat_list_of_triangles", triangles_in_a_list)
answers("flip_same_vertex", lambda: check(torch.equal(geodesic_path(sphere, 7, 7), V[[7]])))

if __name__ == "__main__":
    main(cases)
