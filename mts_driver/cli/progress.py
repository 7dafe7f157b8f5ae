"""What ``mts run`` shows while it runs: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_EVERY_S = 30.0


class RunProgress:
    """Turn the engine's events into a progress bar or lines.

    Parameters
    ----------
    console : rich.console.Console
        Where to print; a quiet one shows nothing.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.total = 0
        self._last_plain = 0.0

    def __enter__(self) -> "RunProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def tell(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)

    def on_event(self, event: dict[str, Any]) -> None:
        """Show an event of the engine."""
        match event["event"]:
            case "loaded":
                self.total = event["total"]
                self.tell(f"i-PI has read the input: step {event['step']} of {self.total}")
            case "started" if self.console.is_terminal and not self.console.quiet:
                self.bar = Progress(
                    TextColumn("step {task.completed}/{task.total}"),
                    BarColumn(bar_width=20),
                    TextColumn("{task.fields[text]}"),
                    TimeRemainingColumn(),
                    console=self.console,
                )
                self.task = self.bar.add_task("", total=self.total, text="timing single steps")
                self.bar.start()
            case "step":
                self._show(event)
            case "end":
                self.stop()

    def _show(self, event: dict[str, Any]) -> None:
        text = describe(event)
        if self.bar is not None:
            self.bar.update(self.task, completed=event["step"], text=text)
        elif time.monotonic() - self._last_plain > _PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            remaining = (self.total - event["step"]) * event["loop_s"] / max(event["steps"], 1)
            self.tell(f"step {event['step']}/{self.total}  {text}  {remaining:.0f} s left")


def describe(event: dict[str, Any]) -> str:
    """One line: speed, temperatures at O, largest difference of teacher and student."""
    days = event["loop_s"] / 86400.0
    parts = [f"{event['steps'] * event['timestep_fs'] * 1e-6 / days:.3f} ns/day"] if days else []
    temperatures = event["temperatures_K"]
    parts += [f"T({k}) {temperatures[k]:.0f} K" for k in ("H", "heavy") if k in temperatures]
    if event["max_force_difference_eV_A"] is not None:
        parts.append(f"max|ΔF| {event['max_force_difference_eV_A']:.2f} eV/Å")
    return "  ".join(parts)
