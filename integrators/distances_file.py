"""The file that says which distances are held: two atoms, counted from 0, and angstroms, a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEADER = "# atoms (from 0) whose distance is held, and the distance in angstrom\n"


def written(pairs: np.ndarray, lengths_A: np.ndarray) -> str:
    """Return the text for pairs (M, 2) and lengths (M,)."""
    together = zip(pairs.tolist(), lengths_A.tolist(), strict=True)
    return HEADER + "".join(f"{i} {j} {length!r}\n" for (i, j), length in together)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (M, 2) and lengths (M,), Å.

    Raises
    ------
    ValueError
        If the file is missing or no such file.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error})") from error
    pairs, lengths = [], []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            i, j, length = int(words[0]), int(words[1]), float(words[2])
        except (ValueError, IndexError):
            words = []
        if len(words) != 3:
            raise ValueError(
                f"line {number} of {str(path)!r} is {line.strip()!r}; write two atoms, counted "
                "from 0, and their distance in angstrom, e.g. 0 1 0.98"
            )
        pairs.append((i, j))
        lengths.append(length)
    if not pairs:
        raise ValueError(f"{str(path)!r} names no distance; write one a line, or remove the tag")
    return np.array(pairs, np.int64), np.array(lengths)
