"""The mutants of `mutants.py`: made by mutmut's operators, and put in place of the functions of this process.

Mutated is what mutmut 3 mutates (bodies and plain default values of functions and methods), and decorated functions as well.
Left out and counted: texts and pictures for people, that is all within `raise`, `warnings.warn`, `__repr__`, `extra_repr` and
`plot`, and strings with a blank.
"""

import ast
import random
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType

try:
    import libcst as cst
    from coverage import Coverage  # noqa: F401  mutmut brings it
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.file_mutation import NEVER_MUTATE_FUNCTION_NAMES, MutationVisitor
    from mutmut.mutation.mutators import mutation_operators
    from mutmut.mutation.pragma_handling import IgnoredCode
except ImportError as error:
    sys.exit(f"the mutants are mutmut's: pip install 'mutmut>=3.8,<4' ({error})")

LIVES, UNREACHED = "lives", "no test runs it"
FOR_PEOPLE = {"__repr__", "extra_repr", "plot"}


@dataclass
class Mutant:
    """One change of one file, in the body of a function of the lines `first` to `last`, or its parameters."""

    path: str
    line: int
    first: int
    last: int
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode
    fate: str = ""
    test: str = ""

    @cached_property
    def source(self) -> str:
        return self.module.deep_replace(self.old, self.new).code

    @property
    def lives(self) -> bool:
        return self.fate in (LIVES, UNREACHED)

    @property
    def diff(self) -> str:
        """The lines that differ."""
        old, new = self.module.code.splitlines(), self.source.splitlines()
        while old and new and old[-1] == new[-1]:
            old.pop(), new.pop()
        same = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return "\n".join([*(f"- {line.strip()}" for line in old[same:]), *(f"+ {line.strip()}" for line in new[same:])])


class Mutations(MutationVisitor):
    """mutmut's mutations of one module, those of decorated functions too, without what is for people."""

    def __init__(self, path: str) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.path, self.mutants, self.texts, self.depth = path, [], 0, 0
        wrapper = MetadataWrapper(cst.parse_module(Path(path).read_text(encoding="utf-8")))
        self.module = wrapper.module
        wrapper.visit(self)

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return node.name.value in NEVER_MUTATE_FUNCTION_NAMES
        return bool(super()._skip_node_and_children(node))

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.depth += for_people(node)
        return bool(super().on_visit(node))

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self.depth -= for_people(original_node)
        super().on_leave(original_node)

    def _create_mutations(self, node: cst.CSTNode) -> None:
        known = len(self.mutations)
        super()._create_mutations(node)
        for mutation in self.mutations[known:]:
            function = mutation.contained_by_top_level_function
            if isinstance(function, cst.FunctionDef) and self.depth:
                self.texts += 1
            elif isinstance(function, cst.FunctionDef):
                here, body = (self.get_metadata(PositionProvider, part) for part in (node, function.body))
                lines = here.start.line, body.start.line, body.end.line
                self.mutants.append(Mutant(self.path, *lines, self.module, node, mutation.mutated_node))


def for_people(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Call):
        return cst.Module([]).code_for_node(node.func) == "warnings.warn"
    if isinstance(node, cst.SimpleString):
        return " " in node.value
    return isinstance(node, cst.Raise) or (isinstance(node, cst.FunctionDef) and node.name.value in FOR_PEOPLE)


def sample(mutants: dict[str, list[Mutant]], size: int, seed: int, least: int = 8) -> list[Mutant]:
    """`size` mutants in proportion to the modules, at least `least` of each; all if size is 0."""
    total, chosen = sum(map(len, mutants.values())), []
    for path, found in mutants.items():
        share = min(len(found), max(least, round(size * len(found) / total)) if size else len(found))
        chosen += [found[k] for k in sorted(random.Random(f"{seed} {path}").sample(range(len(found)), share))]
    return chosen


def outermost(code: CodeType) -> list[CodeType]:
    """The functions and methods of a module, in their order."""
    codes = [const for const in code.co_consts if isinstance(const, CodeType) and not const.co_name.startswith("<")]
    return [found for const in codes for found in ([const] if const.co_flags & 1 else outermost(const))]  # 0: a class


def parameters(node: ast.AST) -> list[str]:
    """The parameters of the same functions, in the same order."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [ast.unparse(node.args)]
    return [found for child in ast.iter_child_nodes(node) for found in parameters(child)]


def put_in_place(mutant: Mutant, functions: list[FunctionType]) -> bool:
    """Give the live functions the mutant's code; False where only a new import can."""
    path, texts = str(Path(mutant.path).resolve()), (mutant.module.code, mutant.source)
    codes = zip(*(outermost(compile(text, path, "exec", dont_inherit=True)) for text in texts), strict=True)
    for (old, new), before, after in zip(codes, *(parameters(ast.parse(text)) for text in texts), strict=True):
        if old == new and before == after:
            continue
        live = [function for function in functions if function.__code__ == old and function.__code__.co_filename == path]
        for function in live:
            scope = dict(function.__globals__)
            exec(f"from __future__ import annotations\ndef stub({after}): pass", scope)
            function.__defaults__, function.__kwdefaults__ = scope["stub"].__defaults__, scope["stub"].__kwdefaults__
            try:
                function.__code__ = new
            except ValueError:  # another number of free variables
                return False
        if not live:
            return False
    return True
