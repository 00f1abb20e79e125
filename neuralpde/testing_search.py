"""How the kit looks for a counter-example: on drawn examples, shrunk and saved, or on the one that is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure, Unsatisfiable
from torch import Tensor

from neuralpde.testing_measured import LawBrokenError, Measured, fact
from neuralpde.testing_replay import ReplayError, save_counterexample
from operators import DomainError, Graph, Grid, Laplacian, PointCloud, TriangleMesh

T = TypeVar("T")


@dataclass(frozen=True)
class Search:
    """How hard to look.

    Args:
        examples: drawn for each call.
        derandomize: draw the same ones every time; False for others in every run.
        folder: where a counter-example is saved for replay, made when needed; None saves nothing.
    """

    examples: int = 200
    derandomize: bool = True
    folder: str | os.PathLike[str] | None = ".neuralpde"

    def __call__(self, subject: str, strategy: st.SearchStrategy[T], check: Callable[[T], Measured | None]) -> Measured:
        """The worst that `check` measures over the drawn examples. Raises LawBrokenError, shrunk, at the first that is broken.

        An example for which `check` raises DomainError is refused, and another one drawn.
        """
        __tracebackhide__ = True
        worst: Measured | None = None
        failed: list[Any] = []
        refusal: list[str] = []

        @settings(
            max_examples=self.examples,
            derandomize=self.derandomize,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def search(example: T) -> None:
            nonlocal worst
            try:
                measured = check(example)
            except DomainError as error:
                refusal[:] = [str(error)]
                reject()
            except LawBrokenError as broken:
                failed[:] = [example, broken]
                raise
            if measured is not None and (worst is None or measured.ratio > worst.ratio):
                worst = measured

        try:
            search()
        except (LawBrokenError, FlakyFailure) as error:
            # Hypothesis runs the smallest counter-example last.
            example, broken = failed
            if isinstance(error, FlakyFailure):
                again = "(not every time: it depends on more than its input)"
                broken = LawBrokenError(replace(broken.measured, where=f"{broken.measured.where} {again}".strip()), subject)
            shrunk = LawBrokenError(broken.measured, subject, told(example), self.save(subject, broken.measured.law, example))
            raise shrunk from broken.__cause__
        except Unsatisfiable:
            raise AssertionError(
                f"{subject} refused every domain that was drawn, the last with: {refusal[0] if refusal else 'nothing'}. "
                "Give a strategy of domains that it takes"
            ) from None
        if worst is None:
            raise AssertionError(f"no law of {subject} applies to what was drawn")
        return worst

    def save(self, subject: str, law: str, example: Any) -> str:
        """Save a counter-example; how to load it."""
        if self.folder is None:
            return ""
        objects = example.data if isinstance(getattr(example, "data", None), dict) else {"example": example}
        for key, value in objects.items():
            if isinstance(value, Laplacian):
                objects[key] = {"stiffness": value.stiffness, "mass": value.mass}
        try:
            path = save_counterexample(self.folder, f"{subject}: {law}", **objects)
        except ReplayError as error:
            return str(error)
        return f"neuralpde.testing.replay({str(path)!r})"


def checked(subject: str, laws: Iterable[Callable[[T], Measured | None]], case: T) -> Measured | None:
    """The worst of several laws on one case. Raises LawBrokenError at the first that is broken, or that crashes."""
    worst: Measured | None = None
    for law in laws:
        try:
            measured = law(case)
        except (DomainError, LawBrokenError):
            raise
        except Exception as error:
            crash = fact(words(law), False, f"it raises {type(error).__name__}: {error}")
            raise LawBrokenError(crash, subject, told(case)) from error
        if measured is None:
            continue
        if not measured.holds:
            raise LawBrokenError(measured, subject, told(case))
        if worst is None or measured.ratio > worst.ratio:
            worst = measured
    return worst


def words(law: Callable[..., Any]) -> str:
    """The name of a law: that of its function, with spaces."""
    return law.__name__.strip("_").replace("_", " ")


def name_of(subject: Any) -> str:
    """What a message calls the object under test."""
    return getattr(subject, "__name__", type(subject).__name__)


def told(example: Any) -> str:
    """A counter-example in words, short enough to read."""
    if hasattr(example, "told"):
        return str(example.told())
    if isinstance(example, Graph):
        (i, j), w = example.edge_index.tolist(), example.edge_weight.tolist()
        edges = ", ".join(f"{a}→{b} ({c:g})" for a, b, c in list(zip(i, j, w, strict=True))[:24])
        return f"Graph of {example.nodes} nodes, {len(w)} edges: {edges or 'none'}{' …' if len(w) > 24 else ''}"
    if isinstance(example, TriangleMesh):
        return f"TriangleMesh, vertices {_rows(example.vertices)}, faces {_rows(example.faces)}"
    if isinstance(example, PointCloud):
        return f"PointCloud {_rows(example.points)}"
    if isinstance(example, Grid):
        return f"Grid of shape {example.shape}, spacing {_rows(example.spacing)}, {[end.value for end in example.boundary]}"
    if isinstance(example, Laplacian):
        return f"Laplacian, stiffness {_rows(example.stiffness.matrix())}, mass {_rows(example.mass)}"
    if isinstance(example, Tensor):
        return _rows(example)
    if isinstance(example, tuple):
        return "\n".join(told(part) for part in example)
    return repr(example)


def _rows(tensor: Tensor) -> str:
    shown = tensor.detach()[:24] if tensor.ndim else tensor.detach()
    numbers = shown.tolist() if shown.is_complex() or not shown.is_floating_point() else _rounded(shown.tolist())
    return f"{numbers}{' …' if tensor.ndim and len(tensor) > 24 else ''}".replace("'", "")


def _rounded(numbers: Any) -> Any:
    return [_rounded(x) for x in numbers] if isinstance(numbers, list) else f"{numbers:.6g}"


def is_strategy(domain: Any) -> bool:
    """Whether this draws domains, rather than being one."""
    return isinstance(domain, st.SearchStrategy)
