"""Which rounds of active learning are done, so that a kill costs none of them."""

import shutil
from pathlib import Path
from typing import Any

from mts_driver.files import read_json, replacing, write_json

MOST_ROUNDS = 6


class Rounds:
    """What has been done, in a file of the work folder.

    Parameters
    ----------
    work : Path
        Folder of the labels.
    output : Path
        The student; several can share a folder of labels.

    Attributes
    ----------
    ended : bool
        Whether there is nothing to go on with.
    distilled : bool
        Whether the first student is there.
    found : list of dict
        What the student showed at the beginning of every round that is done.
    """

    def __init__(self, work: Path, output: Path) -> None:
        self._work, self._stem = work, output.stem
        self._file = work / f"{output.stem}-rounds.json"
        remedy = "give another --work folder, or remove the file."
        kept = read_json(self._file, remedy=remedy) if self._file.exists() else {}
        self.ended: bool = kept.get("ended", True)
        self.distilled: bool = kept.get("distilled", False)
        self.found: list[dict[str, Any]] = kept.get("found", [])

    def file(self, number: int, what: str) -> Path:
        """Return the name of a file of one round."""
        return self._work / f"{self._stem}-round{number}-{what}"

    def begin(self) -> None:
        """Start over; what earlier rounds left would be taken for that of these."""
        self._work.mkdir(parents=True, exist_ok=True)
        for number in range(1, MOST_ROUNDS + 1):
            for what in ("student.safetensors", "training.pt"):
                self.file(number, what).unlink(missing_ok=True)
        self.note(ended=False, distilled=False, found=[])

    def note(self, **changed: Any) -> None:
        """Keep what has changed."""
        self.__dict__.update(changed)
        kept = {"ended": self.ended, "distilled": self.distilled, "found": self.found}
        write_json(self._file, kept)

    def keep(self, output: Path, number: int) -> Path:
        """Return a copy of the student that a round begins with, made when it first began."""
        file = self.file(number, "student.safetensors")
        if not file.exists():
            with replacing(file) as part:
                shutil.copy(output, part)
        return file
