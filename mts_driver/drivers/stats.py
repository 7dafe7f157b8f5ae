"""Counters of a driver, in a small JSON file that is updated in place at every call.

The file is memory-mapped and has a fixed width, so that an update costs microseconds and a reader
(``mts run``) sees every call that has been answered.
"""

import json
import mmap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WIDTH = 512


class Stats:
    """Calls and time of one driver.

    Parameters
    ----------
    model : str
        Specification of the potential, for the reader.
    path : Path, optional
        Where to keep the numbers for others to read.
    """

    def __init__(self, model: str, path: Path | None = None) -> None:
        self.model = model
        self.state = "loading"
        self.calls = 0
        self.structures = 0
        self.model_s = 0.0
        self.last_ms = 0.0
        self._start = time.time()
        self._map: mmap.mmap | None = None
        if path is not None:
            with open(path, "w+b") as file:
                file.truncate(_WIDTH)
                self._map = mmap.mmap(file.fileno(), _WIDTH)
        self.write()

    def count(self, structures: int, seconds: float) -> None:
        """Record a call that evaluated some structures in the given time."""
        self.calls += 1
        self.structures += structures
        self.model_s += seconds
        self.last_ms = 1e3 * seconds
        self.write()

    def add_up(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Take the sums of several drivers that answer as one; the first has answered last."""
        self.calls = sum(part.get("calls", 0) for part in parts)
        self.structures = sum(part.get("structures", 0) for part in parts)
        self.model_s = sum(part.get("model_s", 0.0) for part in parts)
        self.last_ms = parts[0].get("last_ms", 0.0)
        self.write()

    def reset(self) -> None:
        """Forget the calls so far, which only warmed the model up."""
        self.calls = self.structures = 0
        self.model_s = 0.0
        self._start = time.time()
        self.write()

    def enter(self, state: str) -> None:
        """Move to ``ready`` (model loaded), ``connected`` or ``done``."""
        self.state = state
        self.write()

    def write(self) -> None:
        """Bring the file up to date."""
        if self._map is not None:
            text = json.dumps(self.as_dict())
            self._map[:] = text.encode().ljust(_WIDTH - 1)[: _WIDTH - 1] + b"\n"

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers: calls, structures, model_s, last_ms, wall_s, state, model."""
        return {
            "calls": self.calls,
            "structures": self.structures,
            "model_s": round(self.model_s, 6),
            "last_ms": round(self.last_ms, 4),
            "wall_s": round(time.time() - self._start, 3),
            "state": self.state,
            "model": self.model[-200:],
        }


def read_stats(path: Path) -> dict[str, Any]:
    """Read a driver's file; an empty dictionary before the driver has written it."""
    for _ in range(5):
        try:
            found = json.loads(path.read_bytes().rstrip(b"\0 \n") or b"{}")
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return {}
        except ValueError:  # caught between two bytes of an update
            time.sleep(1e-3)
    return {}
