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

_WIDTH = 4096
_LONGEST = 200
"""Of the end of the model's name, in characters, of up to 12 bytes each when escaped."""
_NUMBERS = b'{"calls": %d, "structures": %d, "model_s": %.6f, "last_ms": %.4f, "wall_s": %.3f, '


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
        self.enter("loading")

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
        words = json.dumps({"state": state, "model": self.model[-_LONGEST:]})
        self._words = words[1:].encode()
        self.write()

    def write(self) -> None:
        """Bring the file up to date."""
        if self._map is not None:
            # between two evaluations: a fifth of the time of an encoder
            numbers = (self.calls, self.structures, self.model_s, self.last_ms, self.wall_s)
            text = _NUMBERS % numbers + self._words
            self._map[:] = text.ljust(_WIDTH - 1) + b"\n"

    @property
    def wall_s(self) -> float:
        """Seconds since the start, or the last reset."""
        return time.time() - self._start


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
