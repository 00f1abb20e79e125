"""The test items of `pytest --pde`: which laws apply to an object, one item for each."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from integrators import Integrator
from neuralpde.testing_adjoint import ADJOINT_LAWS
from neuralpde.testing_cases import KINDS, cases, domain_kind, is_builder
from neuralpde.testing_devices import DEVICE_LAWS
from neuralpde.testing_flow_cases import flow_cases, flow_domains
from neuralpde.testing_laplacian import LAPLACIAN_LAWS
from neuralpde.testing_operators import OPERATOR_LAWS, hold
from neuralpde.testing_order import assert_order
from neuralpde.testing_right_hand_side import FLOW_LAWS
from neuralpde.testing_samples import SAMPLES
from neuralpde.testing_search import Search
from operators import Graph, Laplacian, Operator, TriangleMesh

Check = Callable[[Search], Any]
DEVICE_EXAMPLES = 25


@dataclass(frozen=True)
class Applicable:
    """A law that applies to an object: what the item is called, and the call; or why it is left out."""

    name: str
    check: Check | None
    reason: str = ""


def resolve(spec: str, folder: Path) -> Any:
    """The object that MODULE:NAME names, with the folder on the path. Raises pytest.UsageError."""
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise pytest.UsageError(f"--pde {spec}: write MODULE:NAME, as in mypackage.operators:MyLaplacian")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise pytest.UsageError(f"--pde {spec}: importing {module_name} raises {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            there = sorted(n for n in vars(found) if not n.startswith("_"))
            raise pytest.UsageError(f"--pde {spec}: {module_name} has no {name!r}; it has {', '.join(there[:20]) or 'no names'}")
        found = getattr(found, part)
    matrix = isinstance(found, (torch.Tensor, np.ndarray)) or sp.issparse(found)
    if not (callable(found) or matrix or isinstance(found, Integrator)):
        raise pytest.UsageError(
            f"--pde {spec}: a {type(found).__name__} is no function of a domain, operator, right-hand side or integrator"
        )
    return found


def applicable(subject: Any) -> Iterator[Applicable]:
    """The laws that apply, decided by what the object is, or by what it makes of a small domain."""
    if isinstance(subject, Integrator) or (inspect.isclass(subject) and issubclass(subject, Integrator)):
        yield _order(subject)
        return
    if not is_builder(subject):
        yield from _laws(subject, subject, None, "")
        return
    annotated = domain_kind(subject)
    for kind in [annotated] if annotated is not None else list(KINDS):
        label = "" if annotated is not None else f"[{kind.__name__}]"
        try:
            made = subject(SAMPLES[kind][0]())
        except Exception as error:
            reason = f"it does not take a {kind.__name__}: {type(error).__name__}: {error}"
            yield Applicable(f"builds[{kind.__name__}]", None if annotated is None else partial(_fail, reason), reason)
        else:
            yield from _laws(subject, made, kind, label)


def _laws(subject: Any, made: Any, kind: type | None, label: str) -> Iterator[Applicable]:
    """The laws of what a builder gave."""
    matrix = isinstance(made, (torch.Tensor, np.ndarray)) or sp.issparse(made)
    drawn = None if kind is None else KINDS[kind]()
    how: dict[str, Any] = {}
    groups: list[tuple[tuple[Any, ...], Any, int | None]]
    if isinstance(made, tuple) and len(made) == 2:
        subject, how["other"] = _first(subject), lambda case: case.build.__wrapped__(case.domain)[1]
        groups = [((*OPERATOR_LAWS, *ADJOINT_LAWS), partial(cases, **how), None)]
    elif isinstance(made, Operator) or matrix:
        laws: tuple[Any, ...] = LAPLACIAN_LAWS if _is_laplacian(subject, made) else OPERATOR_LAWS
        if not matrix and (isinstance(made, Laplacian) or _knows_its_adjoint(made)):
            laws = (*laws, *ADJOINT_LAWS)
        groups = [(laws, cases, None), (() if matrix else DEVICE_LAWS, flow_cases, DEVICE_EXAMPLES)]
    elif callable(made):
        drawn = None if kind is None else flow_domains(subject, kind)
        groups = [(FLOW_LAWS, flow_cases, None), (DEVICE_LAWS, flow_cases, DEVICE_EXAMPLES)]
    else:
        reason = f"it gives a {type(made).__name__}, which is no operator, matrix, pair or right-hand side"
        yield Applicable(f"builds{label}", partial(_fail, reason), reason)
        return
    # What is built on a Laplacian is held against that of a graph or surface.
    kinds = [] if kind is None else [Graph, TriangleMesh] if kind is Laplacian else [kind]
    samples = [make() for one in kinds for make in SAMPLES[one]] or [None]
    for laws, found, most in groups:
        for law in laws:
            if any(_applies(law, found, subject, domain) for domain in samples):
                yield Applicable(law.__name__ + label, partial(_held, subject, law, found(subject, drawn), most=most))


def _applies(law: Any, found: Any, subject: Any, domain: Any) -> bool:
    """Whether a law says something about a domain, be it by an error."""
    try:
        return law(found(subject, domain)[0]) is not None
    except Exception:
        return True


def _first(subject: Any) -> Any:
    """The function that gives the first of a pair."""

    def first(domain: Any) -> Any:
        return subject(domain)[0]

    first.__name__ = getattr(subject, "__name__", "pair")
    first.__wrapped__ = subject  # type: ignore[attr-defined]
    return first


def _held(subject: Any, law: Any, found: Any, search: Search, most: int | None = None) -> Any:
    __tracebackhide__ = True
    if most is not None:
        search = Search(min(most, search.examples), search.derandomize, search.folder)
    return hold(subject, [law], found, search)


def _fail(reason: str, search: Search) -> None:
    raise AssertionError(reason)


def _order(subject: Any) -> Applicable:
    method = subject if inspect.isclass(subject) else type(subject)
    p = getattr(method, "order", None)
    if not isinstance(p, int):
        return Applicable("order", None, f"{method.__name__} does not tell its order: give it `order: ClassVar[int]`")
    if "dt" not in inspect.signature(method).parameters:
        return Applicable("order", None, f"{method.__name__} chooses its own steps: its order does not show in errors(dt)")
    return Applicable("order", lambda search: assert_order(method, p))


def _is_laplacian(subject: Any, made: Any) -> bool:
    """Whether it is one, or says so by its name; a square matrix is taken for one."""
    if isinstance(made, Laplacian) or not isinstance(made, Operator):
        return True
    names = f"{getattr(subject, '__name__', '')} {type(made).__name__}".lower()
    return made.shape[0] == made.shape[1] and "laplac" in names


def _knows_its_adjoint(made: Operator) -> bool:
    try:
        made.adjoint()
    except NotImplementedError:
        return False
    return True


class Subject(pytest.Collector):
    """The object that one --pde names."""

    def __init__(self, *, subject: Any, search: Search, **how: Any) -> None:
        super().__init__(**how)
        self.subject = subject
        self.search = search

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each law that applies."""
        for law in applicable(self.subject):
            yield LawItem.from_parent(self, name=law.name, law=law, search=self.search)


class LawItem(pytest.Item):
    """One law of one object."""

    def __init__(self, *, law: Applicable, search: Search, **how: Any) -> None:
        super().__init__(**how)
        self.law = law
        self.search = search
        if law.check is None:
            self.add_marker(pytest.mark.skip(reason=law.reason))

    def runtest(self) -> None:
        """Look for a counter-example."""
        if self.law.check is not None:
            measured = self.law.check(self.search)
            if measured is not None:
                self.user_properties.append(("measured", str(measured)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The law that is broken, and the counter-example; with a traceback only where the object itself raised."""
        text = str(excinfo.value)
        if not isinstance(excinfo.value, AssertionError):
            return super().repr_failure(excinfo)
        cause = excinfo.value.__cause__
        if cause is None or isinstance(cause, AssertionError):
            return text
        import traceback

        return text + "\n\n" + "".join(traceback.format_exception(cause)[-4:])

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the report says it is."""
        return self.path, 0, self.nodeid
