"""The labelled frames of a distillation: an extended-XYZ file that grows frame by frame."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread, write

from mts_driver.errors import UserError
from mts_driver.files import replacing


class LabelFile:
    """Teacher labels on disk; nothing that was computed is lost when the program is killed.

    Every frame carries ``kind`` (md, hot, shaken, stretched, stiff …), ``split`` (train, test),
    ``system``, ``teacher``, the energy (eV) and the forces (eV/Å); ASE reads the file.

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
        self.frames: list[Atoms] = list(complete_frames(path))
        for atoms in self.frames:
            if not {"kind", "split", "system", "teacher_energy"} <= set(atoms.info):
                raise UserError(
                    f"'{path}' is not a file of labels of this version of mts-driver (a frame has "
                    f"only {sorted(atoms.info)}): give another --work folder, or remove the file."
                )
            if atoms.info.get("teacher") != teacher:
                raise UserError(
                    f"labels in '{path}' are of the teacher {atoms.info.get('teacher')!r}, this "
                    f"run uses {teacher!r}: give another --work folder, or remove the file."
                )
        if path.exists():
            # a frame that a kill cut short is dropped, so that new ones follow a complete one
            with replacing(path) as part:
                write(part, self.frames, format="extxyz")

    def of(self, kind: str, system: str | None = None) -> list[Atoms]:
        """Return the frames of one kind, of one system or all, in the order of their labelling."""
        return [
            atoms
            for atoms in self.frames
            if atoms.info["kind"] == kind and system in (None, atoms.info["system"])
        ]

    def add(
        self,
        atoms: Atoms,
        *,
        kind: str,
        split: str,
        system: str,
        energy_eV: float,
        forces_eV_A: np.ndarray,
        arrays: Mapping[str, np.ndarray] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a labelled frame to memory and disk, with its ``force_weight`` if it has one.

        Parameters
        ----------
        arrays, info : mappings, optional
            More to keep with the frame, by atom or as a whole.

        Raises
        ------
        UserError
            If the teacher returned a number that is not finite, or the disk is full.
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
            {**(info or {}), "kind": kind, "split": split, "system": system},
            teacher=self.teacher,
            teacher_energy=float(energy_eV),
        )
        frame.set_array("teacher_forces", np.array(forces_eV_A, float))
        if atoms.has("force_weight"):
            frame.set_array("force_weight", atoms.get_array("force_weight"))
        for name, values in (arrays or {}).items():
            frame.set_array(name, np.asarray(values))
        try:
            write(self.path, frame, format="extxyz", append=True)
        except OSError as error:
            raise UserError(
                f"labels cannot be written to '{self.path}' ({error}): the {len(self.frames)} so "
                "far are kept; make room, or give another --work folder, and run the same command."
            ) from error
        self.frames.append(frame)


def complete_frames(path: Path) -> Iterator[Atoms]:
    """Yield the frames of a file up to the first that is cut short; none if it does not exist."""
    if not path.exists():
        return
    try:
        yield from iread(path, index=":", format="extxyz")
    except (ValueError, OSError, KeyError, IndexError):
        return
