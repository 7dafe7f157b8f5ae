"""A bar that shows how far a trajectory is."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY_S = 0.2


class StepBar:
    """Outer steps done, on a terminal or in a notebook; a context manager.

    Parameters
    ----------
    done, total : int
        Outer steps.
    show : bool
        Whether to show anything.
    """

    def __init__(self, done: int, total: int, *, show: bool) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not (show and (console.is_terminal or console.is_jupyter)),
        )
        self._task = self._bar.add_task("", completed=done, total=total, text="")
        self._last = 0.0

    def __enter__(self) -> "StepBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, text: str) -> None:
        """Move the bar, a few times a second."""
        if done == total or time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            self._bar.update(self._task, completed=done, text=text)
