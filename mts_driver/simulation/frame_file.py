"""Frames in a file that grows while a run goes on."""

import io
import os
import re
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.io import write

from mts_driver.files import keep_backup
from mts_driver.simulation.holes import MOST_FRAMES


class FrameFile:
    """An extended-XYZ file of at most 200 frames that grows frame by frame, no step twice.

    Parameters
    ----------
    path : Path
        Created with the first frame.
    restarted : bool
        Whether to continue a file that is there; a frame that a kill cut short is taken off it.
    """

    def __init__(self, path: Path, *, restarted: bool) -> None:
        self.path = path
        self._known: set[tuple[int, int]] = set()
        if not path.exists():
            return
        if restarted:
            self._known, end = _complete_frames(path)
            os.truncate(path, end)
        else:
            keep_backup(path)
            path.unlink()

    def add(self, frame: Atoms) -> bool:
        """Append a frame, unless the file is full or holds its step; return whether it did."""
        key = (frame.info["step"], frame.info.get("system", 0))
        if key in self._known or len(self._known) >= MOST_FRAMES:
            return False
        self._known.add(key)
        text = io.StringIO()
        write(text, frame, format="extxyz")
        # in one piece, so that a kill hardly ever leaves half a frame
        with open(self.path, "a") as stream:
            stream.write(text.getvalue())
        return True


def _complete_frames(path: Path) -> tuple[set[tuple[int, int]], int]:
    """Step and system of all complete frames, and the position in the file where they end."""
    found, end = set(), 0
    with open(path, "rb") as stream:
        while (count := stream.readline()).strip().isdigit():
            comment = stream.readline()
            rows = list(islice(stream, int(count)))
            if len(rows) < int(count) or not rows[-1].endswith(b"\n"):
                break
            step, system = (
                re.search(rb"\b%s=(\d+)" % key, comment) for key in (b"step", b"system")
            )
            if step:
                found.add((int(step[1]), int(system[1]) if system else 0))
            end = stream.tell()
    return found, end
