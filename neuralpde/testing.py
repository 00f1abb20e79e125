"""Property tests for operators and equations: what to draw, the laws to hold it against, and the counter-examples.

Strategies (for Hypothesis): `graphs`, `large_graphs`, `meshes`, `damaged_meshes`, `grids`, `point_clouds`, `surface_samples`, or
`domains` of every kind; `fields`, `states`, `times`; `right_hand_sides`; `skew_hermitian_matrices`, `skew_operators`,
`stochastic_operators`, `positive_operators`; `permutations`, `rigid_motions`.

    from neuralpde.testing import Hardness, fields, meshes

    @given(data=st.data(), mesh=meshes(never=[Hardness.NON_MANIFOLD]))
    def test_my_operator_kills_constants(data, mesh):
        ...

Laws: `assert_laplacian`, `assert_adjoint_pair`, `assert_conserved`, `assert_dissipated`, `assert_equivariant`, `assert_order`,
`assert_gradients`, `assert_device_agnostic`, `assert_right_hand_side`; each returns what it `Measured`. `pytest --pde` runs all
that apply; `Search` says how hard to look. A law that is not meant to hold is left out by name, `without=[law]`, of those in
`LAPLACIAN_LAWS`, `GEOMETRIC_LAWS`, `OPERATOR_LAWS` and `FLOW_LAWS`.

Counter-examples: `save_counterexample`, `load_counterexample`, `replay`.

All this needs the `test` extra; `import neuralpde` does not import it.
"""

from __future__ import annotations

from neuralpde.testing_adjoint import assert_adjoint_pair
from neuralpde.testing_bounds import aspect, assert_within, roundoff
from neuralpde.testing_devices import assert_device_agnostic
from neuralpde.testing_equations import Growth, domains, knn_laplacian, laplacian_of, right_hand_sides
from neuralpde.testing_fields import Profile, fields, states, times
from neuralpde.testing_flows import assert_conserved, assert_dissipated
from neuralpde.testing_generators import positive_operators, skew_hermitian_matrices, skew_operators, stochastic_operators
from neuralpde.testing_gradients import assert_gradients
from neuralpde.testing_graphs import graphs, large_graphs
from neuralpde.testing_grids import grids
from neuralpde.testing_laplacian import GEOMETRIC_LAWS, LAPLACIAN_LAWS, assert_laplacian
from neuralpde.testing_measured import LawBrokenError, Measured
from neuralpde.testing_meshes import Hardness, damaged_meshes, hardness_of, meshes
from neuralpde.testing_motions import moved, permutations, permuted, rigid_motions
from neuralpde.testing_operators import OPERATOR_LAWS
from neuralpde.testing_order import assert_order
from neuralpde.testing_points import Scatter, point_clouds, scatter_of, surface_samples
from neuralpde.testing_replay import ReplayError, load_counterexample, replay, save_counterexample
from neuralpde.testing_right_hand_side import FLOW_LAWS, assert_equivariant, assert_right_hand_side
from neuralpde.testing_search import Search

__all__ = [
    "FLOW_LAWS",
    "GEOMETRIC_LAWS",
    "LAPLACIAN_LAWS",
    "OPERATOR_LAWS",
    "Growth",
    "Hardness",
    "LawBrokenError",
    "Measured",
    "Profile",
    "ReplayError",
    "Scatter",
    "Search",
    "aspect",
    "assert_adjoint_pair",
    "assert_conserved",
    "assert_device_agnostic",
    "assert_dissipated",
    "assert_equivariant",
    "assert_gradients",
    "assert_laplacian",
    "assert_order",
    "assert_right_hand_side",
    "assert_within",
    "damaged_meshes",
    "domains",
    "fields",
    "graphs",
    "grids",
    "hardness_of",
    "knn_laplacian",
    "laplacian_of",
    "large_graphs",
    "load_counterexample",
    "meshes",
    "moved",
    "permutations",
    "permuted",
    "point_clouds",
    "positive_operators",
    "replay",
    "right_hand_sides",
    "rigid_motions",
    "roundoff",
    "save_counterexample",
    "scatter_of",
    "skew_hermitian_matrices",
    "skew_operators",
    "states",
    "stochastic_operators",
    "surface_samples",
    "times",
]
