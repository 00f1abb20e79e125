"""`pytest --pde mypackage.operators:MyLaplacian` runs every law that applies to an object, one test a law, without a test file.

The tests come after those of the files and folders that pytest collects as usual; -k chooses among them by the law's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from neuralpde.testing_items import Subject

_FOUND = pytest.StashKey[list[tuple[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options of the plugin."""
    group = parser.getgroup("neuralpde", "property tests of operators and right-hand sides")
    group.addoption(
        "--pde",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="run every law that applies to this Laplacian, operator, gradient, right-hand side or integrator, or function of a "
        "domain that gives one (may be repeated)",
    )
    group.addoption(
        "--pde-examples", type=int, default=200, metavar="N", help="examples to draw for each law of --pde (default: 200)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find what --pde names, so that a wrong name is told before anything runs. The kit is imported only then."""
    specs = config.getoption("--pde")
    if not specs:
        return
    if config.getoption("--pde-examples") < 1:
        raise pytest.UsageError("--pde-examples must be at least 1")
    try:
        from neuralpde.testing_items import resolve
    except ModuleNotFoundError as error:
        raise pytest.UsageError(f"--pde needs {error.name}: pip install 'neuralpde-toolkit[test]'") from error
    config.stash[_FOUND] = [(spec, resolve(spec, config.invocation_params.dir)) for spec in dict.fromkeys(specs)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the laws, before -k chooses."""
    found = config.stash.get(_FOUND, [])
    if not found:
        return
    from neuralpde.testing_items import Subject
    from neuralpde.testing_search import Search

    search = Search(config.getoption("--pde-examples"), folder=config.invocation_params.dir / ".neuralpde")
    for spec, subject in found:
        collector: Subject = Subject.from_parent(session, name=spec, nodeid=spec, subject=subject, search=search)
        items.extend(collector.collect())
