"""The progress bar of a long solve."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A bar on standard error that fills from t[0] to t[-1]; it vanishes when the solve ends."""

    def __init__(self, title: str) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %  {task.fields[steps]:,} steps"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.progress.add_task(title, total=1.0, steps=0)
        self.steps = 0

    def reach(self, fraction: float) -> None:
        """Show one more step, and the fraction of the time span that is done."""
        self.steps += 1
        self.progress.update(self.task, completed=fraction, steps=self.steps)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
