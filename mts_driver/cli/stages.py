"""Progress of work in stages: a bar for each on a terminal, a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_PLAIN_EVERY_S = 15.0


class StageProgress:
    """Shows ``stage, details`` with how much is done; a context manager.

    Parameters
    ----------
    console : rich.console.Console
        Where to print; a quiet one shows nothing.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_plain = 0.0

    def __enter__(self) -> "StageProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: float, total: float) -> None:
        """Show that ``done`` of ``total`` of a stage is done; details follow a comma."""
        stage = what.partition(",")[0]
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[stage], description=what, completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_plain > _PLAIN_EVERY_S:
            self._last_plain = now
            self._console.print(f"{what}: {min(1.0, done / max(total, 1e-9)):.0%}")
