"""Finding what a right-hand side reaches beside its arguments: parameters, tensors it merely holds, random numbers, autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from integrators.solution import State
from integrators.state import parts_of

Edge = tuple[Any, int]


class Surroundings:
    """What the evaluations of f depend on without being told: the autocast of the moment, and the random generators.

    `random` tells whether the search for captured tensors drew random numbers, `shared` whether a gradient has to pass through
    history that was made outside, and that others will want again.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kinds = {"cpu", device.type}
        self.autocast = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), torch.is_autocast_cache_enabled())
            for kind in self.kinds
            if torch.amp.is_autocast_available(kind)
        ]
        self.random = False
        self.shared = False
        self.evaluations = 0

    def dice(self) -> tuple[Tensor, ...]:
        """The states of the random generators."""
        device = (torch.cuda.get_rng_state(self.device),) if self.device.type == "cuda" else ()
        return (torch.get_rng_state(), *device)

    def throw(self, dice: tuple[Tensor, ...]) -> None:
        """Set the random generators back."""
        torch.set_rng_state(dice[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(dice[1], self.device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """As it was: the autocast of the forward pass, and the random generators left as they are found."""
        before = self.dice() if self.random else None
        try:
            with ExitStack() as stack:
                for kind, dtype, enabled, cached in self.autocast:
                    stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cached))
                yield
        finally:
            if before is not None:
                self.throw(before)


def reached_tensors(f: Any, t: Tensor, x0: State) -> tuple[list[Tensor], Surroundings]:
    """What f, and the linear part that a method may use of it, reach beside the state and the time.

    Costs one evaluation, or two if f holds tensors with a history; draws no random number for good.
    """
    around = Surroundings(parts_of(x0)[0].device)
    probe = leaves_of(x0)
    start = t.detach().clone().requires_grad_(t.requires_grad)
    dice = around.dice()

    def evaluate() -> Any:
        around.evaluations += 1
        value: list[Any] = [f(start, probe)]
        linear = getattr(f, "linear", None)
        if linear is not None:
            value.append(linear @ probe)
        return value

    try:
        found, around.shared = captured_tensors(evaluate, (*parts_of(probe), start), f)
    except RuntimeError as error:
        if "in-place operation" in str(error) and "leaf Variable" in str(error):
            raise ValueError(
                "the right-hand side changes its argument x in place: write x = x + ... instead of x += ..."
            ) from error
        raise
    finally:
        after = around.dice()
        around.random = any(not torch.equal(a, b) for a, b in zip(dice, after, strict=True))
        if around.random:
            around.throw(dice)
    return found, around


def captured_tensors(evaluate: Callable[[], Any], inputs: Iterable[Tensor], f: object) -> tuple[list[Tensor], bool]:
    """The tensors with a gradient that `evaluate()` reaches, other than `inputs` (which must be leaves).

    Also whether some were reached only through history made outside.

    They are the parameters of the modules that f is or holds and the captured tensors themselves, so that a gradient flows to `k`
    where k = exp(log_k) was computed outside, and no further: k's own history is left to the caller's backward pass. A tensor
    that depends on another captured one, or that cannot be found as an object, is replaced by the leaves behind it: then
    nothing can be counted twice.
    """
    own = {id(part) for part in inputs}
    leaves: dict[int, Tensor] = {id(p): p for module in _modules(f) for p in module.parameters() if p.requires_grad and p.is_leaf}
    with torch.enable_grad():
        before = _clock()
        roots = [part for part in _tensors(evaluate()) if part.requires_grad]
    found, outer = _boundary(roots, before)
    leaves.update((id(leaf), leaf) for leaf in found)
    held: list[Tensor] = []
    shared = False
    if outer:
        seen: dict[Edge, Tensor] = {}
        with torch.enable_grad(), _Arguments(seen):
            again = _tensors(evaluate())
        seen.update(((part.grad_fn, part.output_nr), part) for part in again if part.grad_fn is not None)
        held = [seen[edge] for edge in outer if edge in seen]
        behind = {id(leaf): leaf for leaf in _leaves_behind(node for node, _ in outer)}
        # A leaf that also feeds a held tensor would be reached twice.
        if len(held) < len(outer) or _related(held) or behind.keys() & leaves.keys():
            leaves.update(behind)
            held, shared = [], True
    return [leaf for key, leaf in leaves.items() if key not in own] + held, shared


class Known:
    """The tensors that a gradient is taken in, to notice when f reaches another one after all (in a branch on t or x)."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        known = list(known)
        self.leaves = {id(part) for part in known if part.is_leaf}
        self.edges = {(part.grad_fn, part.output_nr) for part in known if not part.is_leaf}
        self.cleared: set[Any] = set()

    def require(self, roots: Iterable[Tensor], starts: Iterable[Tensor]) -> None:
        """Raise RuntimeError if `roots` depend on a tensor that neither is nor stems from a known one or from `starts`."""
        leaves = self.leaves | {id(part) for part in starts}
        pending: list[Edge] = [(part.grad_fn, part.output_nr) for part in roots if part.grad_fn is not None]
        missing = any(part.grad_fn is None and part.requires_grad and id(part) not in leaves for part in roots)
        seen: set[Any] = set()
        while pending and not missing:
            edge = pending.pop()
            node = edge[0]
            if node in seen or (self.edges and edge in self.edges):
                continue
            seen.add(node)
            following = node.next_functions
            if following:
                pending.extend([e for e in following if e[0] is not None and e[0] not in seen])
            else:
                variable = getattr(node, "variable", None)
                missing = variable is not None and id(variable) not in leaves
        if missing:
            raise RuntimeError(
                "the right-hand side reaches a tensor with a gradient that it did not reach when the solve began (a branch "
                "on t or x?), so its gradient would be lost: make it a parameter of the right-hand side, or use "
                "gradient=Direct()"
            )


@contextmanager
def quiet(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Without the hooks of these tensors, which must see a whole gradient once and not each piece of it."""
    tensors = list(tensors)
    hooks = [(part._backward_hooks, dict(part._backward_hooks)) for part in tensors if part._backward_hooks]
    retained = [(part, part.grad) for part in tensors if not part.is_leaf and part.retains_grad]
    for live, _ in hooks:
        live.clear()
    try:
        yield
    finally:
        for live, items in hooks:
            live.update(items)
        for part, grad in retained:
            part.grad = grad


def _modules(f: Any, depth: int = 3) -> list[torch.nn.Module]:
    """The modules that a right-hand side is or plainly holds: as itself, method, partial or closure."""
    if isinstance(f, torch.nn.Module):
        return [f]
    if depth == 0 or isinstance(f, (Tensor, type)):
        return []
    held: list[Any] = [getattr(f, "__self__", None), getattr(f, "__wrapped__", None)]
    if isinstance(f, functools.partial):
        held += [f.func, *f.args, *f.keywords.values()]
    for cell in getattr(f, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not yet filled
            continue
    return [module for item in held if item is not None for module in _modules(item, depth - 1)]


def _clock() -> int:
    """A number between those of the autograd nodes that this thread has made and those to come."""
    node = torch.zeros((), requires_grad=True).exp().grad_fn
    return int(node._sequence_nr())  # type: ignore[union-attr]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in _tensors(item)] if isinstance(value, (tuple, list)) else []


def _boundary(roots: list[Tensor], before: int) -> tuple[list[Tensor], list[Edge]]:
    """The leaves, and the edges into nodes made before, that the roots were computed from."""
    leaves = [part for part in roots if part.grad_fn is None]
    outer: dict[Edge, None] = {}
    pending: list[Edge] = [(part.grad_fn, part.output_nr) for part in roots if part.grad_fn is not None]
    seen: set[Any] = set()
    while pending:
        node, index = pending.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            if node not in seen:
                seen.add(node)
                leaves.append(variable)
        elif node._sequence_nr() <= before:
            outer[(node, index)] = None
        elif node not in seen:
            seen.add(node)
            pending.extend(edge for edge in node.next_functions if edge[0] is not None)
    return leaves, list(outer)


def _leaves_behind(nodes: Iterable[Any]) -> list[Tensor]:
    pending, seen, leaves = list(nodes), set(), []
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.append(variable)
        pending.extend(parent for parent, _ in node.next_functions)
    return leaves


def _related(tensors: list[Tensor]) -> bool:
    """Whether one of the tensors was computed from another."""
    nodes = {part.grad_fn for part in tensors}
    pending = [parent for node in nodes if node is not None for parent, _ in node.next_functions]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        if node in nodes:
            return True
        seen.add(node)
        pending.extend(parent for parent, _ in node.next_functions)
    return False


class _Arguments(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every tensor with a history that an operation is given."""

    def __init__(self, seen: dict[Edge, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for part in _tensors([*args, *(kwargs or {}).values()]):
            if part.grad_fn is not None:
                self.seen.setdefault((part.grad_fn, part.output_nr), part)
        return func(*args, **(kwargs or {}))


def leaves_of(x: State) -> State:
    """The state detached, wanting gradients."""
    if isinstance(x, tuple):
        return tuple(_leaf(part) for part in parts_of(x))
    return _leaf(x)


def _leaf(part: Tensor) -> Tensor:
    # Only a copy of what inference mode made can want a gradient.
    return (part.clone() if part.is_inference() else part.detach()).requires_grad_()
