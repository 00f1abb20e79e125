"""The machinery of the hazard tables: each is a script that runs its cases and prints one JSON line for each."""

import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any

Errors = type[Exception] | tuple[type[Exception], ...]


class WrongAnswer(Exception):  # noqa: N818 (an outcome, not an error of the code)
    """An answer that is not the right one."""


def check(condition: Any, message: str = "") -> None:
    """What `assert` does, also under python -O."""
    if not bool(condition):
        raise WrongAnswer(message or "a condition does not hold")


class Cases:
    """Cases by the name they have in the survey of what the libraries below us do with bad input."""

    def __init__(self) -> None:
        self.functions: dict[str, Callable[[], None]] = {}

    def _add(self, names: str, function: Callable[[], None]) -> None:
        for name in names.split():
            if name in self.functions:
                raise ValueError(f"{name} is listed twice")
            self.functions[name] = function

    def refuses(self, names: str, error: Errors, pattern: str, attempt: Callable[[], Any]) -> None:
        """Every name stands for this attempt, which must raise this error with a text that matches."""

        def function() -> None:
            try:
                result = attempt()
            except error as caught:
                check(re.search(pattern, str(caught), re.DOTALL), f"{pattern!r} is not in the error {str(caught)[:300]!r}")
            else:
                raise WrongAnswer(f"accepted: {str(result)[:200]}")

        self._add(names, function)

    def answers(self, names: str, attempt: Callable[[], None]) -> None:
        """Every name stands for this attempt, which checks the answer itself."""
        self._add(names, attempt)

    def run(self, chosen: Iterable[str] = ()) -> None:
        """Run all cases, or the chosen; the line before a crash or hang says which case it was."""
        # What torch and PyG deprecate in themselves, while their parts are imported, is not ours.
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in chosen or self.functions:
            print(json.dumps({"started": name}), flush=True)
            problem = None
            try:
                self.functions[name]()
            except WrongAnswer as wrong:
                problem = str(wrong)
            except Exception:
                problem = traceback.format_exc()[-1500:]
            print(json.dumps({"name": name, "problem": problem, "optimized": not __debug__}), flush=True)


def main(cases: Cases) -> None:
    """Run the cases that the command line names, or all."""
    cases.run(sys.argv[1:])
