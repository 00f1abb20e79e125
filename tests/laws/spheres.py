"""Strategies for Delaunay triangulations of a sphere."""

import numpy as np
import torch
from hypothesis import strategies as st

from operators.shapes import icosphere
from operators.sphere_meshes import spherical_delaunay


@st.composite
def spheres(draw, most=0.5):
    """12 or 42 points, moved by up to `most` of an edge of the icosphere, some faces turned over, on spheres of several sizes.

    With none moved they are an icosphere. Obtuse faces, whose circumcentres lie outside, come with larger moves.
    """
    k = draw(st.integers(0, 1), label="refinements")
    points = icosphere(k).vertices.numpy()
    amplitude = draw(st.floats(0.0, most), label="moved by")
    random = np.random.default_rng(draw(st.integers(0, 999), label="seed"))
    points = points + amplitude * 1.05 / 2**k * random.uniform(-1, 1, points.shape) / np.sqrt(3)
    radius = draw(st.sampled_from([1.0, 0.125, 6.37122e6]), label="radius")
    mesh = spherical_delaunay(torch.from_numpy(radius * points / np.linalg.norm(points, axis=1, keepdims=True)))
    turned = mesh.faces.clone()
    which = torch.from_numpy(random.random(len(turned)) < draw(st.sampled_from([0.0, 0.3]), label="turned over"))
    turned[which] = turned[which].flip(1)
    return type(mesh)(mesh.vertices, turned)
