"""i-PI's process as ``mts run`` sees it: a child whose events come through a pipe."""

import json
import os
import select
from pathlib import Path
from typing import Any

from mts_driver.processes import Child


class EngineProcess(Child):
    """``python -m mts_driver.runs.ipi_process``, with its log beside the input.

    Parameters
    ----------
    settings : dict
        Of `mts_driver.runs.ipi_process.Engine`, but for the two that are known here only.
    folder : Path
        Of the input.
    """

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self._events, theirs = os.pipe()
        self._pending = b""
        try:
            super().__init__(
                "i-PI",
                "mts_driver.runs.ipi_process",
                [json.dumps({**settings, "events_fd": theirs, "parent": os.getpid()})],
                log=folder / "i-pi.log",
                # i-PI's own linear algebra is small: more threads would take the models' cores
                environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=(theirs,),
            )
        except BaseException:
            os.close(self._events)
            raise
        finally:
            os.close(theirs)

    def read(self, *, wait_s: float) -> list[dict[str, Any]]:
        """Return the events that have come, or come within so many seconds; none at the end."""
        if not select.select([self._events], [], [], wait_s)[0]:
            return []
        self._pending += os.read(self._events, 1 << 16)
        *lines, self._pending = self._pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._events)
