"""The progress bar of a long computation."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import track


def shown(count: int, title: str, progress: bool) -> Iterator[int]:
    """0 … count − 1, with a bar on standard error that vanishes at the end, if one is wanted."""
    if not progress:
        return iter(range(count))
    return iter(track(range(count), title, console=Console(stderr=True), transient=True))
