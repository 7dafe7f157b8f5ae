"""A watch for holes that can be put aside with its trajectory."""

import io
from typing import Any

from ase import Atoms
from ase.io import read, write

from mts_driver.simulation.holes import Watch


class ResumableWatch(Watch):
    """A `Watch` that can be put aside between two outer steps."""

    def saved(self) -> dict[str, Any]:
        """Return its memory in plain types; the hardest frame as extended XYZ."""
        text = io.StringIO()
        if self._hardest is not None:
            write(text, self._hardest, format="extxyz")
        return {
            "holes": self.holes,
            "hard_frames": self.hard_frames,
            "largest_eV_A": self.largest_eV_A,
            "window": list(self._window),
            "medians": list(self._medians),
            "hardest_eV_A": self._hardest_eV_A,
            "hardest": text.getvalue(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `saved` returned."""
        self.holes, self.hard_frames = saved["holes"], saved["hard_frames"]
        self.largest_eV_A = saved["largest_eV_A"]
        self._window, self._medians = saved["window"], saved["medians"]
        self._hardest_eV_A = saved["hardest_eV_A"]
        if saved["hardest"]:
            frame = read(io.StringIO(saved["hardest"]), format="extxyz")
            assert isinstance(frame, Atoms)
            self._hardest = frame
