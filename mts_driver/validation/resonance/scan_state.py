"""What a scan has done so far, in a file: a scan that was killed goes on from it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json


@dataclass
class ScanState:
    """Rows of points, and what they share.

    Attributes
    ----------
    file : Path
        Where it is kept.
    identity : dict
        Settings and structure, which must be the same when it goes on.
    rows : list of dict
        In the order of the points.
    lengths_A : dict of str to float, or None
        Average lengths of bonds, by kind, Å; None before they are known.
    """

    file: Path
    identity: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    lengths_A: dict[str, float] | None = None

    @classmethod
    def load(cls, file: Path, settings: dict[str, Any]) -> "ScanState":
        """Return what the file holds; a new state if there is none.

        Raises
        ------
        UserError
            If it belongs to other settings, or holds something else.
        """
        identity = json.loads(json.dumps(settings))
        if not file.exists():
            return cls(file, identity)
        remedy = "remove it to start anew."
        found = read_json(file, keys=["settings", "rows"], remedy=remedy)
        before = found["settings"]
        for name in sorted(identity):
            if before.get(name) != identity[name]:
                raise UserError(
                    f"'{file}' is a scan with {name}={before.get(name)}, not {identity[name]}: "
                    f"give another json_file, or {remedy}"
                )
        return cls(file, identity, found["rows"], found.get("lengths_A"))

    def save(self) -> None:
        """Write all of it."""
        write_json(
            self.file,
            {"settings": self.identity, "lengths_A": self.lengths_A, "rows": self.rows},
        )
