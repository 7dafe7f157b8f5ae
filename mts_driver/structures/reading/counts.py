"""Numbers of atoms that an (ext)xyz file announces, against what it holds.

ASE's reader and that of i-PI believe a number: a wrong one ends in a search for lines that may take
for ever, or in frames that are left out in silence.
"""

from pathlib import Path
from typing import IO, Any

from ase.io.formats import open_with_compression

from mts_driver.errors import UserError

MOST_VECTORS = 3
"""Lines ``VEC1`` to ``VEC3`` behind a frame, of a dialect that ASE reads."""


def check_counts(path: Path, *, most_frames: int | None = None) -> None:
    """Require that every frame has its atoms, and that nothing follows the last.

    Parameters
    ----------
    most_frames : int, optional
        How many frames are looked at, of a large file.

    Raises
    ------
    UserError
        Naming the frame.
    """
    with open_with_compression(str(path), "rb") as file:
        number = 0
        line = file.readline()
        while line.strip() and (most_frames is None or number < most_frames):
            try:
                count = int(line)
            except ValueError:
                if number == 0:
                    return  # no such file, as its reader will say
                raise UserError(
                    f"structure file {str(path)!r} has {_shown(line)} behind frame {number - 1}, "
                    "where the next one's number of atoms, or nothing, should be: repair the file."
                ) from None
            held = _rows(file, count)
            if held < count or count < 0:
                raise UserError(
                    f"structure file {str(path)!r} announces {count} atoms for frame {number} and "
                    f"has lines for {held}: is the file complete?"
                )
            number += 1
            line = _behind(file)
        if number and not line.strip():
            _check_end(file, path, number)


def _rows(file: IO[Any], count: int) -> int:
    """Pass by the comment and the atoms of a frame; how many there were."""
    file.readline()
    for k in range(count):
        if not file.readline().strip():
            return k
    return max(count, 0)


def _behind(file: IO[Any]) -> bytes:
    """Return the first line behind a frame and its vectors."""
    for _ in range(MOST_VECTORS + 1):
        line = file.readline()
        if not line.lstrip().startswith(b"VEC"):
            break
    return line


def _check_end(file: IO[Any], path: Path, frames: int) -> None:
    for line in file:
        if line.strip():
            raise UserError(
                f"structure file {str(path)!r} has {_shown(line)} behind the empty line that ends "
                f"its {frames} frames: remove one or the other."
            )


def _shown(line: bytes) -> str:
    return repr(line.decode("utf-8", "replace").strip()[:40])
