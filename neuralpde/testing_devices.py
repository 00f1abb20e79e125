"""`assert_device_agnostic`: dtype and device of the result are those of the input, whatever the defaults are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from integrators.state import parts_of, state_map, subtract
from neuralpde.testing_bounds import roundoff
from neuralpde.testing_flow_cases import FlowCase, States, flow_cases
from neuralpde.testing_measured import Measured, fact
from neuralpde.testing_operators import hold
from neuralpde.testing_search import Search, words
from neuralpde.testing_states import largest

_FACTORIES = {
    torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.linspace, torch.logspace, torch.eye, torch.rand,
    torch.randn, torch.randint, torch.randperm, torch.tensor, torch.as_tensor,
}  # fmt: skip


_NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)


def assert_device_agnostic(
    subject: Any,
    domain: Any = None,
    *,
    states: States | None = None,
    search: Search = Search(examples=25),  # noqa: B008 (frozen)
) -> Measured:
    """Assert that an operator or right-hand side works on any device, in either precision, whatever the defaults are.

    What is checked: no tensor is made without `device=` while it is applied (looked for in every call of a factory such as
    torch.zeros; numbers, of no axes, are free); float64 goes in and nothing of less precision is computed on the way; the
    default dtype changes no bit of the result; `.to(float32)` and back takes every tensor along, with results within round-off;
    where there is a CUDA device, the result there is the one on the CPU. Without one, kernels of that device are not run.

    Tolerance: 64 times what one unit round-off (of float32, where that is used) in the input makes of the result.

    Args:
        subject: an operator, a right-hand side, or a function of a domain that gives one.
        domain, states, search: as of `assert_right_hand_side`.

    Raises:
        LawBrokenError: an AssertionError that tells what is made or converted, and where.
    """
    __tracebackhide__ = True
    return hold(subject, DEVICE_LAWS, flow_cases(subject, domain, states), search)


DeviceLaw = Callable[[FlowCase], Measured | None]


def nothing_is_made_on_the_default_device(case: FlowCase) -> Measured:
    """No factory is called without a device while the operator is applied."""
    case.result()  # what is kept between calls is made now
    with _Factories() as seen:
        case.result()
    told = f"{', '.join(sorted(set(seen.made)))}: pass device=x.device, or use x.new_zeros(…), torch.zeros_like(x)"
    return fact(words(nothing_is_made_on_the_default_device), not seen.made, told)


def precision_is_kept_inside(case: FlowCase) -> Measured | None:
    """float64 goes in, and no field of less precision is computed on the way out."""
    if parts_of(case.x)[0].real.dtype != torch.float64:
        return None
    with torch.no_grad(), _Narrowing() as seen:
        case.result()
    told = f"{', '.join(sorted(set(seen.narrowed)))}: a dtype that is written down instead of taken from x?"
    return fact(words(precision_is_kept_inside), not seen.narrowed, told)


def the_default_dtype_changes_nothing(case: FlowCase) -> Measured:
    """Built and applied under torch.set_default_dtype of either precision, the result is the same to the last bit."""
    name = words(the_default_dtype_changes_nothing)
    results = []
    for dtype in (torch.float32, torch.float64):
        with _default(dtype):
            fresh = FlowCase(case.build, case.domain, case.other, case.seed, case.states)
            results.append(fresh.applied(fresh.subject, case.x))
    single, double = results
    for a, b in zip(parts_of(single), parts_of(double), strict=True):
        if a.dtype != b.dtype:
            return fact(name, False, f"the result is {a.dtype} under one default and {b.dtype} under the other")
    return Measured(name, largest(subtract(single, double)), 0.0, "none: not a bit may change")


def float32_and_back(case: FlowCase) -> Measured | None:
    """`.to(float32)` takes all tensors along; the result is that of float64 within round-off; `.to(float64)` brings them back."""
    name = words(float32_and_back)
    if not isinstance(case.subject, torch.nn.Module) or parts_of(case.x)[0].real.dtype != torch.float64:
        return None
    single = copy.deepcopy(case.subject).to(torch.float32)
    narrow = state_map(lambda part: part.to(torch.complex64 if part.is_complex() else torch.float32), case.x)
    found = case.applied(single, narrow)
    for part, like in zip(parts_of(found), parts_of(case.result()), strict=True):
        wanted = torch.complex64 if like.is_complex() else torch.float32
        if part.dtype != wanted:
            return fact(name, False, f"after .to(float32) the result is {part.dtype}: a tensor that is no buffer or parameter?")
    back = case.applied(
        single.to(torch.float64),
        state_map(lambda part: part.to(torch.complex128 if part.is_complex() else torch.float64), narrow),
    )
    noise = case.noise * roundoff(torch.float32) / roundoff(torch.float64)
    rule = "64 times what one unit round-off of float32 in the input makes of the result"
    wide = state_map(lambda part, like: part.to(like.dtype), found, case.result())
    error = max(largest(subtract(wide, case.result())), largest(subtract(back, case.result())))
    return Measured(name, error, 64 * noise, rule)


def cuda_gives_what_the_cpu_gives(case: FlowCase) -> Measured | None:
    """On a CUDA device, if there is one."""
    if not torch.cuda.is_available() or not isinstance(case.subject, torch.nn.Module):
        return None
    there = case.applied(copy.deepcopy(case.subject).to("cuda"), state_map(lambda part: part.to("cuda"), case.x))
    home = state_map(lambda part: part.cpu(), there)
    rule = "64 times what one unit round-off in the input makes of the result"
    return Measured(words(cuda_gives_what_the_cpu_gives), largest(subtract(home, case.result())), 64 * case.noise, rule)


DEVICE_LAWS: tuple[DeviceLaw, ...] = (
    nothing_is_made_on_the_default_device,
    precision_is_kept_inside,
    the_default_dtype_changes_nothing,
    float32_and_back,
    cuda_gives_what_the_cpu_gives,
)
"""The laws of `assert_device_agnostic`, in its order."""


class _Factories(TorchFunctionMode):
    """Notes every tensor with an axis that is made without saying where."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _FACTORIES and kwargs.get("device") is None and isinstance(result, Tensor) and result.ndim:
            copied = func in (torch.tensor, torch.as_tensor) and args and isinstance(args[0], Tensor)
            if not copied:
                self.made.append(f"torch.{func.__name__} makes a tensor of shape {list(result.shape)} without device=")
        return result


class _Narrowing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every field of less precision than float64 that is computed from one of float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrowed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        wide = any(isinstance(a, Tensor) and a.dtype in (torch.float64, torch.complex128) for a in args)
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if wide and isinstance(part, Tensor) and part.ndim and part.dtype in _NARROW:
                self.narrowed.append(f"{func} makes {part.dtype} of float64, shape {list(part.shape)}")
        return result


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
