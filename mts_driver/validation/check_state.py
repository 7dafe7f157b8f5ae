"""Where a check has got to, on disk, so that a killed one continues as if nothing had been."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError
from mts_driver.files import first_difference
from mts_driver.tensor_files import load_tensors, save_tensors

STATE_FILE = "state.pt"
SAVE_EVERY_S = 30.0


class StateFile:
    """A file with tensors and plain types, written now and then and replaced in one step.

    Parameters
    ----------
    path : Path
        In the work folder of a check.
    identity : dict
        What the trajectory depends on, JSON-able; the state of another one is not continued.
    every_s : float
        Shortest time between two writes, s.
    force : bool
        Whether a state that cannot be continued is passed over.
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], *, every_s: float, force: bool = False
    ) -> None:
        self.path, self._identity, self._every_s = path, identity, every_s
        self._force = force
        self._last = -math.inf

    def load(self) -> dict[str, Any] | None:
        """Return what was written last, or None if there is nothing to continue from.

        Raises
        ------
        UserError
            If it cannot be read or belongs to another check, and there is no ``force``.
        """
        if not self.path.exists():
            return None
        try:
            return self._load()
        except UserError:
            if self._force:
                return None
            raise

    def _load(self) -> dict[str, Any]:
        remedy = "choose another work folder, or start anew with force=True."
        found = load_tensors(self.path, remedy=remedy)
        try:
            before = json.loads(found["identity"])
        except (KeyError, ValueError) as error:
            raise UserError(f"'{self.path}' is not a check's ({error}): {remedy}") from error
        now = json.loads(json.dumps(self._identity))
        if (name := first_difference(before, now)) is not None:
            raise UserError(
                f"'{self.path}' is the state of a check with {name}={before.get(name)}, not "
                f"{now.get(name)}: {remedy}"
            )
        return found

    def save(self, contents: Callable[[], dict[str, Any]]) -> None:
        """Write ``contents()``, unless the last time is too short ago."""
        if time.monotonic() - self._last < self._every_s:
            return
        save_tensors(self.path, {**contents(), "identity": json.dumps(self._identity)})
        self._last = time.monotonic()
