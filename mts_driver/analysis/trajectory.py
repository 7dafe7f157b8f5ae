"""Read i-PI's position trajectories.

i-PI's own reader (3.3.1) fails on a frame that a kill cut short and returns the first digit of the
step, so that the repeated frames of a restarted run cannot be told.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mts_driver.errors import UserError
from mts_driver.structures.bonds import bonded_pairs
from mts_driver.structures.reading.ipi_labels import element_of
from mts_driver.units import BOHR_A

BONDS_FROM = 5
"""Frames."""
FARTHEST = 0.4
"""Of the narrowest width of the cell, between frames; beyond a half the image is not known."""
REPEATED = 10
"""Frames more than are asked for, since a kill may leave the last in some of the files only."""
_CELL = re.compile(r"CELL\(abcABC\):((?:\s+[-+.\deE]+){6})")
_STEP = re.compile(r"Step:\s*(\d+)")
_UNIT = re.compile(r"(positions|cell)\{(\w+)\}")
_ANGSTROM = {"angstrom": 1.0, "atomic_unit": BOHR_A, "bohr": BOHR_A, None: BOHR_A}


@dataclass(frozen=True)
class Trajectory:
    """Frames of one run, in the order of steps; beads of a path integral follow one another.

    Attributes
    ----------
    symbols : array of str, shape (N,)
        Elements, of isotopes as well.
    steps : array of int, shape (F,)
        Step of every frame.
    positions : array, shape (F, N, 3)
        Å, not wrapped into the cell.
    cells : array, shape (F, 3, 3)
        Cell vectors in rows, Å.
    """

    symbols: np.ndarray
    steps: np.ndarray
    positions: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, step: float) -> "Trajectory":
        """Return the frames of later steps than ``step``."""
        keep = self.steps > step
        return Trajectory(self.symbols, self.steps[keep], self.positions[keep], self.cells[keep])

    def first(self) -> Atoms:
        """Return the first frame as a periodic structure."""
        return self._atoms(0)

    def molecules(self) -> np.ndarray:
        """Return the number of the molecule of every atom, shape (N,).

        By bonds that most of a few frames have: in a single one a bond may be stretched.
        """
        some = np.unique(np.linspace(0, len(self) - 1, BONDS_FROM).round().astype(int))
        count = coo_matrix((len(self.symbols),) * 2)
        for frame in some:
            i, j, _ = bonded_pairs(self._atoms(frame))
            count = count + coo_matrix((np.ones(len(i)), (i, j)), shape=count.shape)
        return np.asarray(connected_components(count > 0.5 * len(some), directed=False)[1])

    def _atoms(self, frame: int) -> Atoms:
        return Atoms(self.symbols.tolist(), self.positions[frame], cell=self.cells[frame], pbc=True)


def read_trajectory(paths: Iterable[Path]) -> Trajectory:
    """Read ``<trajectory format='xyz'> positions </trajectory>`` outputs, one file a bead.

    An incomplete last frame is left out, and of a step that a restarted run wrote twice the later
    frame is kept.

    Raises
    ------
    UserError
        If there is no file, no complete frame, or the files are of different atoms.
    """
    paths = list(paths)
    beads = [_read_file(path) for path in paths]
    frames = sorted(
        ((step, bead, *frame) for bead, found in enumerate(beads) for step, frame in found.items()),
        key=lambda f: f[:2],
    )
    if not frames:
        raise UserError(f"no complete frame in {', '.join(map(str, paths)) or 'no file'}.")
    if len({tuple(frame[2]) for frame in frames}) > 1:
        raise UserError(f"{', '.join(map(str, paths))} hold frames of different atoms.")
    return Trajectory(
        symbols=np.array(frames[0][2]),
        steps=np.array([f[0] for f in frames]),
        positions=np.array([f[3] for f in frames]),
        cells=np.array([f[4] for f in frames]),
    )


def displacements(trajectory: Trajectory) -> np.ndarray | str:
    """Return displacements from the first frame, (F, N, 3), Å, or why they cannot be known.

    Steps between frames go to the nearest image, in coordinates scaled by the cell of each frame:
    cells may fluctuate without moving what is many cells away (von Bülow et al., J. Chem. Phys.
    2020, 153, 021101).
    """
    cells = trajectory.cells
    inverse = np.linalg.inv(cells)
    # widths of a cell are the inverse lengths of the columns of its inverse
    limit = FARTHEST / np.linalg.norm(inverse, axis=1).max()
    scaled = trajectory.positions @ inverse
    apart = np.diff(scaled, axis=0)
    steps = (apart - np.round(apart)) @ cells[1:]
    farthest = float(np.linalg.norm(steps, axis=2).max())
    if farthest > limit:
        return (
            f"an atom moves {farthest:.1f} Å between two stored frames, in a cell of "
            f"{limit / FARTHEST:.1f} Å, and may have moved by an image: store frames more often "
            "(mts prepare --stride)"
        )
    moved = np.zeros_like(trajectory.positions)
    np.cumsum(steps, axis=0, out=moved[1:])
    return moved


_Frame = tuple[list[str], np.ndarray, np.ndarray]


def _read_file(path: Path) -> dict[int, _Frame]:
    lines = path.read_text(errors="replace").splitlines()
    frames: dict[int, _Frame] = {}
    start = 0
    while start < len(lines):
        try:
            end = start + 2 + int(lines[start])
            step, frame = _read_frame(lines[start + 1], lines[start + 2 : end], end <= len(lines))
        except (IndexError, ValueError) as error:
            if start > 0 and end >= len(lines):
                break
            raise UserError(
                f"{path}, line {start + 1}: no i-PI xyz frame ({error}): write positions with "
                "<trajectory format='xyz'>."
            ) from error
        frames[step] = frame
        start = end
    return frames


def _read_frame(comment: str, rows: list[str], complete: bool) -> tuple[int, _Frame]:
    if not complete:
        raise ValueError("the file ends within the frame")
    cell, step = _CELL.search(comment), _STEP.search(comment)
    if cell is None or step is None:
        raise ValueError("its second line has no CELL(abcABC) and Step")
    units = dict(_UNIT.findall(comment))
    lengths, angles = np.split(np.array(cell.group(1).split(), float), 2)
    lengths = lengths * _ANGSTROM[units.get("cell")]
    words = [row.split() for row in rows]
    # X is ASE's symbol for what is no element
    symbols = [element_of(word[0]) or "X" for word in words]
    positions = np.array([word[1:4] for word in words], float).reshape(len(words), 3)
    positions *= _ANGSTROM[units.get("positions")]
    return int(step.group(1)), (symbols, positions, cellpar_to_cell([*lengths, *angles]))


def last_frames(file: Path, natoms: int, last: int | None) -> Iterable[tuple[int, str, list[str]]]:
    """Line, comment and rows of all complete frames of an xyz file, or of the last of them.

    A few more than asked for, which a restart may have repeated.
    """
    frames = _complete_frames(file, natoms)
    return frames if last is None else deque(frames, maxlen=last + REPEATED)


def _complete_frames(file: Path, natoms: int) -> Iterator[tuple[int, str, list[str]]]:
    with file.open(errors="replace") as stream:
        start = 0
        while len(lines := list(islice(stream, natoms + 2))) == natoms + 2:
            if not lines[-1].endswith("\n"):
                return
            yield start, lines[1], lines[2:]
            start += natoms + 2


def columns_by_step(file: Path, symbols: Sequence[str], last: int | None) -> dict[int, np.ndarray]:
    """Return vectors (N, 3) of the last frames by step; of a step written twice the later counts.

    Raises
    ------
    UserError
        If a frame is damaged, or of other atoms than ``symbols``.
    """
    found = {}
    for start, comment, rows in last_frames(file, len(symbols), last):
        step = _STEP.search(comment)
        labels = [(row.split() or ["X"])[0] for row in rows]
        if step is None or [element_of(label) or "X" for label in labels] != list(symbols):
            raise UserError(f"{file}, line {start + 1}: no frame of i-PI of the atoms of the run.")
        try:
            found[int(step.group(1))] = np.array([row.split()[1:4] for row in rows], float)
        except ValueError as error:
            raise UserError(f"{file}, line {start + 1}: the frame is damaged ({error}).") from error
    return found
