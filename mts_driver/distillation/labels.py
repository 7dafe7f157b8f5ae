"""The labelled frames of a distillation: an extended-XYZ file that grows frame by frame."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread, write

from mts_driver.errors import UserError


class LabelFile:
    """Teacher labels on disk; nothing that was computed is lost when the program is killed.

    Every frame carries ``kind`` (md, hot, shaken, stretched, stiff), ``split`` (train, test),
    ``teacher``, the energy (eV) and the forces (eV/Å); ASE reads the file.

    Parameters
    ----------
    path : Path
        Created with the first frame; frames of an earlier run are taken over.
    teacher : str
        Specification of the teacher; frames of another one are refused.

    Raises
    ------
    UserError
        If the file holds labels of another teacher.
    """

    def __init__(self, path: Path, *, teacher: str) -> None:
        self.path = path
        self.teacher = teacher
        self.frames: list[Atoms] = list(_complete_frames(path)) if path.exists() else []
        for atoms in self.frames:
            if atoms.info.get("teacher") != teacher:
                raise UserError(
                    f"labels in '{path}' are of the teacher {atoms.info.get('teacher')!r}, this "
                    f"run uses {teacher!r}: give another --work folder, or remove the file."
                )
        if path.exists():
            # a frame that a kill cut short is dropped, so that new ones follow a complete one
            partial = path.with_suffix(".part")
            write(partial, self.frames, format="extxyz")
            partial.replace(path)

    def of(self, kind: str) -> list[Atoms]:
        """Return the frames of one kind, in the order in which they were labelled."""
        return [atoms for atoms in self.frames if atoms.info["kind"] == kind]

    def add(
        self,
        atoms: Atoms,
        *,
        kind: str,
        split: str,
        energy_eV: float,
        forces_eV_A: np.ndarray,
        velocities_A_fs: np.ndarray | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> None:
        """Append a labelled frame to memory and disk.

        Raises
        ------
        UserError
            If the teacher returned a number that is not finite.
        """
        if not (np.isfinite(energy_eV) and np.isfinite(forces_eV_A).all()):
            raise UserError(
                f"the teacher {self.teacher!r} returned NaN or infinity for a frame of kind "
                f"{kind!r}: the {len(self.frames)} labels so far are kept in '{self.path}'; check "
                "the structure for overlapping atoms."
            )
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        # not as a calculator's results: those would not survive ASE's round trip with other arrays
        frame.info.update(
            kind=kind, split=split, teacher=self.teacher, teacher_energy=energy_eV, **(extra or {})
        )
        frame.set_array("teacher_forces", np.array(forces_eV_A, float))
        if velocities_A_fs is not None:
            frame.set_array("velocities_A_fs", np.array(velocities_A_fs, float))
        write(self.path, frame, format="extxyz", append=True)
        self.frames.append(frame)


def _complete_frames(path: Path) -> Iterator[Atoms]:
    """Yield the frames up to the first that is cut short."""
    try:
        yield from iread(path, index=":", format="extxyz")
    except (ValueError, OSError, KeyError, IndexError):
        return
