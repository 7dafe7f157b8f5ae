"""Where a student is wrong: the outer steps that show it, and the frames to learn from.

A *hole* is a frame at which the student's forces are far off or a bond has left the thermal range;
a *hard* frame is one of the largest |F_teacher − F_student| of a run that is otherwise in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from mts_driver.structures.masses import LONGEST_XH_A, hydrogen_bonds_to_heavy

HOLE_EV_A = 3.0
"""|F_teacher − F_student| of an atom, eV/Å. Trajectories die at 2.5 to 5.4, below the clip of 6.5;
good students stay below 1."""
HOLE_XH_A = 1.45
"""Å, for X up to fluorine: half as much again as at rest. Larger X add what their covalent radius
exceeds that of carbon by, which makes 1.74 for S–H."""
HARD_EV_A, HARD_RATIO = 0.75, 3.0
"""A frame is hard above this many eV/Å, or above this multiple of the run's typical largest."""
LEARNABLE_EV_A = 50.0
"""A force of the teacher above this, that of an O-H bond of 0.66 Å, comes after the end: atoms have
been thrown onto one another, and the frame would only spoil the training."""
WINDOW = 100
"""Outer steps of which at most one gives a hard frame."""
MOST_FRAMES = 200
"""In each file: a run that diverges must not fill the disk."""

HOLES_FILE, HARD_FILE = "holes.extxyz", "hard.extxyz"

Label = tuple[float, np.ndarray]
Keep = Callable[[str, Atoms], bool]
"""``keep(file, frame)``: store a frame; returns whether it was stored."""


@dataclass(frozen=True)
class Seen:
    """A system at the end of an outer step.

    Attributes
    ----------
    step : int
        Outer steps done.
    time_fs : float
        Simulated time, fs.
    positions : array, shape (B, N, 3)
        Of all beads, Å.
    cell : array, shape (3, 3)
        Rows are lattice vectors, Å.
    differences : array, shape (B, N, 3)
        Teacher − student, eV/Å.
    teacher : callable
        ``teacher(bead)`` returns the teacher's energy (eV) and forces (N, 3) (eV/Å), or None.
    """

    step: int
    time_fs: float
    positions: np.ndarray
    cell: np.ndarray
    differences: np.ndarray
    teacher: Callable[[int], Label | None]


class Watch:
    """Looks at one system after every outer step, and keeps the frames to learn from.

    Parameters
    ----------
    start : ase.Atoms
        Tells the elements, whether there is a cell, and which heavy atom each hydrogen belongs to;
        a hydrogen that is bound to none is not followed.
    keep : callable
        Receives the frames.
    hole_eV_A : float
        |F_teacher − F_student| of an atom above which a frame is a hole, eV/Å.

    Attributes
    ----------
    holes : int
        Outer steps at which a hole showed.
    hard_frames : int
        Frames kept although they are no holes.
    largest_eV_A : float
        Largest |F_teacher − F_student| of an atom so far, eV/Å.
    """

    def __init__(self, start: Atoms, keep: Keep, *, hole_eV_A: float = HOLE_EV_A) -> None:
        self.holes = self.hard_frames = 0
        self.largest_eV_A = 0.0
        self._keep, self._hole_eV_A = keep, hole_eV_A
        self._start = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
        self._hydrogen, self._heavy = bonds_to_hydrogen(start).T
        self._longest2 = _longest_A(start.numbers[self._heavy]) ** 2
        bonds = start.positions[self._hydrogen] - start.positions[self._heavy]
        # positions are not wrapped later, so a bond keeps the image that it starts in
        self._shifts = np.zeros_like(bonds)
        if start.pbc.any() and len(bonds):
            nearest = find_mic(bonds, start.cell, start.pbc)[0]
            self._shifts = np.rint((nearest - bonds) @ np.linalg.pinv(start.cell.array))
        self._any_shift = bool(self._shifts.any())
        self._last: tuple[Seen, float, int, int] | None = None
        self._window: list[float] = []
        self._medians: list[float] = []
        self._hardest: Atoms | None = None
        self._hardest_eV_A = 0.0

    def look(self, seen: Seen) -> str | None:
        """Return why this step is a hole ("not finite", "force difference", "bond"), or None.

        Frames with positions that are not finite, or with absurd forces of the teacher, are
        counted, but not kept.
        """
        squares = np.einsum("bni,bni->bn", seen.differences, seen.differences)
        worst = int(squares.argmax())  # the first NaN, if there is one
        largest = float(np.sqrt(squares.flat[worst]))
        # written so that a NaN is kept, where max() could drop it
        if not largest <= self.largest_eV_A:
            self.largest_eV_A = largest
        here = bool(np.isfinite(seen.positions.sum()))
        reason = None
        if not (here and np.isfinite(largest)):
            reason = "not finite"
        elif largest > self._hole_eV_A:
            reason = "force difference"
        elif (stretched := self._too_long(seen)) is not None:
            reason, worst = "bond", stretched
        bead, atom = divmod(worst, squares.shape[1])
        if reason is None:
            self._last = (seen, largest, bead, atom)
            self._compare(*self._last)
            return None
        self._last = None
        self.holes += 1
        if here:
            frame = self._frame(seen, largest, bead, atom, reason)
            if _learnable(frame):
                self._keep(HOLES_FILE, frame)
        return reason

    def close(self, *, blown_up: bool = False) -> None:
        """Keep the hardest frame of the window that the run ended in.

        Parameters
        ----------
        blown_up : bool
            The run died between two outer steps: keep the last frame, whatever it looked like.
            ``teacher`` of what was seen last must still answer for it.
        """
        if blown_up and self._last is not None:
            self._hardest, self._hardest_eV_A = None, 0.0
            self.hard_frames += self._keep(HARD_FILE, self._frame(*self._last, "hard"))
        self._end_window()

    def _frame(self, seen: Seen, largest: float, bead: int, atom: int, reason: str) -> Atoms:
        """Turn what was seen into a frame, with the teacher's labels if they are finite."""
        frame = Atoms(
            self._start.numbers, seen.positions[bead], cell=seen.cell, pbc=self._start.pbc
        )
        frame.info.update(
            step=seen.step,
            time_fs=seen.time_fs,
            max_force_difference_eV_A=largest,
            atom=atom,
            reason=reason,
        )
        label = seen.teacher(bead)
        if label is not None and np.isfinite(label[0]) and np.isfinite(label[1]).all():
            frame.info["teacher_energy"] = label[0]
            frame.set_array("teacher_forces", np.array(label[1], float))
        return frame

    def _too_long(self, seen: Seen) -> int | None:
        """Bead · N + hydrogen of the bond that is furthest beyond its bound, if any is."""
        if not len(self._hydrogen):
            return None
        x = seen.positions
        bonds = x.take(self._hydrogen, axis=1) - x.take(self._heavy, axis=1)
        if self._any_shift:
            bonds += self._shifts @ seen.cell
        excess = np.einsum("bni,bni->bn", bonds, bonds) - self._longest2
        bead, k = divmod(int(excess.argmax()), len(self._hydrogen))
        return bead * x.shape[1] + int(self._hydrogen[k]) if excess[bead, k] > 0 else None

    def _compare(self, seen: Seen, largest: float, bead: int, atom: int) -> None:
        self._window.append(largest)
        if largest > self._hardest_eV_A:
            self._hardest_eV_A = largest
            self._hardest = self._frame(seen, largest, bead, atom, "hard")
        if len(self._window) == WINDOW:
            self._end_window()

    def _end_window(self) -> None:
        if self._hardest is None:
            return
        self._medians.append(float(np.median(self._window)))
        bound = min(HARD_EV_A, HARD_RATIO * float(np.median(self._medians)))
        if self._hardest_eV_A > bound:
            self.hard_frames += self._keep(HARD_FILE, self._hardest)
        self._window, self._hardest, self._hardest_eV_A = [], None, 0.0


def _learnable(frame: Atoms) -> bool:
    if not frame.has("teacher_forces"):
        return True
    forces = frame.get_array("teacher_forces")
    return bool((np.square(forces).sum(1) <= LEARNABLE_EV_A**2).all())


def bonds_to_hydrogen(atoms: Atoms) -> np.ndarray:
    """Hydrogen and heavy atom of every X-H bond, shape (M, 2); hydrogens bound to none are left."""
    i, j = neighbor_list("ij", atoms, LONGEST_XH_A)
    bound = atoms.numbers != 1
    bound[i[atoms.numbers[j] != 1]] = True
    kept = np.flatnonzero(bound)
    if not (atoms.numbers[kept] == 1).any():
        return np.zeros((0, 2), int)
    return kept[hydrogen_bonds_to_heavy(atoms[kept])]


def _longest_A(numbers: np.ndarray) -> np.ndarray:
    larger = covalent_radii[numbers] - covalent_radii[atomic_numbers["C"]]
    return HOLE_XH_A + np.maximum(larger, 0.0)
