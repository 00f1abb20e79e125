"""The benchmark's tables are the ones that others read by name, each with methods that can be made."""

from integrators import Integrator
from neuralpde.bench_methods import METHODS

TABLES = [
    *("heat-1e-3", "heat-1e-6", "cahn-hilliard-1e-3", "cahn-hilliard-1e-6", "allen-cahn-1e-3", "allen-cahn-1e-6"),
    *("wave", "grand"),
]


def test_tables_and_methods():
    assert list(METHODS) == TABLES
    for target, rtol, methods in METHODS.values():
        assert 0 < target <= 1e-3
        assert 0 < rtol <= 1e-3
        assert methods(2.0)
        assert all(isinstance(method, Integrator) for method in methods(2.0).values())
