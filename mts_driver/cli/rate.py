"""What ``mts serve`` shows while it answers."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live


class RateLine:
    """A line that shows the rate on a terminal, and nothing elsewhere."""

    def __init__(self, console: Console, stats: Any) -> None:
        self.stats = stats
        self.live = Live(console=console, refresh_per_second=2, transient=True)
        self.shown = console.is_terminal and not console.quiet
        self.last = 0.0

    def __enter__(self) -> Any:
        if self.shown:
            self.live.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.live.stop()

    def update(self) -> None:
        """Show the rate, twice a second at most."""
        now = time.monotonic()
        if self.shown and now - self.last > 0.5:
            self.last = now
            self.live.update(f"{self.stats.model}: {rate(self.stats)}")


def rate(stats: Any) -> str:
    """Say how many calls there were, and how long they took."""
    calls, wall = stats.calls, max(stats.wall_s, 1e-9)
    mean = 1e3 * stats.model_s / calls if calls else 0.0
    return f"{calls} calls, {calls / wall:.1f} calls/s, {mean:.2f} ms a call"
