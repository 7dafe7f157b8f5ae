"""The labelled frames of a distillation: an extended-XYZ file that grows frame by frame."""

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread, read, write
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

from mts_driver.distillation.labels.kinds import Kind
from mts_driver.errors import UserError


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
            atoms.info["system"] = str(atoms.info["system"])
        drop_what_follows(self.frames, path)

    def of(self, kind: str, system: str | None = None) -> list[Atoms]:
        """Return the frames of one kind, of one system or all, in the order of their labelling."""
        wanted = None if system is None else as_read(system)
        return [
            atoms
            for atoms in self.frames
            if atoms.info["kind"] == kind and wanted in (None, atoms.info["system"])
        ]

    def require_same(self, systems: Sequence[Atoms]) -> None:
        """Refuse structures that are others than those which the labels were made for.

        Raises
        ------
        UserError
            If elements, periodicity, charge or spin of a system differ.
        """
        for atoms in systems:
            name = str(atoms.info["system"])
            # fragments have atoms and charges of their own
            labelled = next((f for f in self.of(Kind.MD, name) if "center" not in f.info), atoms)
            for key in ("atoms", "periodicity", "charge", "multiplicity"):
                before, now = (_said(key, a) for a in (labelled, atoms))
                if before != now:
                    raise UserError(
                        f"labels in '{self.path}' are of {name!r} with {key} {before}, the "
                        f"structure has {now}: give another --work folder, or remove the file."
                    )

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
        """Append a labelled frame to disk and memory, with its ``force_weight`` if it has one.

        Memory holds what the file does, to its last digit, so that a killed run which reads the
        file goes on as if nothing had been.

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
            kept = append(self.path, frame)
        except OSError as error:
            raise UserError(
                f"labels cannot be written to '{self.path}' ({error}): the {len(self.frames)} so "
                "far are kept; make room, or give another --work folder, and run the same command."
            ) from error
        kept.info["system"] = str(kept.info["system"])
        self.frames.append(kept)


def _said(key: str, atoms: Atoms) -> str:
    values: dict[str, Any] = {
        "atoms": atoms.symbols,
        "periodicity": atoms.pbc.tolist(),
        "charge": int(atoms.info.get("charge", 0)),
        "multiplicity": int(atoms.info.get("multiplicity", 1)),
    }
    return str(values[key])


def append(path: Path, frame: Atoms) -> Atoms:
    """Append a frame to a file and return what stands there, rounded as the format does."""
    end = path.stat().st_size if path.exists() else 0
    write(path, frame, format="extxyz", append=True)
    with path.open() as stream:
        stream.seek(end)
        kept = read(io.StringIO(stream.read()), format="extxyz")
    assert isinstance(kept, Atoms)
    return kept


def drop_what_follows(frames: Sequence[Atoms], path: Path) -> None:
    """Take off the file what a kill left behind these complete frames of it."""
    if path.exists():
        os.truncate(path, _end_of_frames(path, len(frames)))


def complete_frames(path: Path) -> Iterator[Atoms]:
    """Yield the frames of a file up to the first that is cut short; none if it does not exist.

    Raises
    ------
    UserError
        If it does not begin as a frame does: what follows the last frame is removed later, which
        would be all of a file of another kind.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        first = stream.readline(100)
        if first and not first.strip().isdigit():
            raise UserError(
                f"'{path}' holds no frames in extended XYZ: give another folder, or remove it."
            )
        stream.seek(0)
        text = stream.read(_end_of_frames(path)).decode(errors="replace")
    try:
        yield from iread(io.StringIO(text), index=":", format="extxyz")
    except (ValueError, OSError, KeyError, IndexError):
        return


def _end_of_frames(path: Path, most: float = math.inf) -> int:
    """Bytes of so many frames with all their lines; the last number of another may be cut short."""
    end = found = 0
    with path.open("rb") as stream:
        while found < most and (count := stream.readline()).strip().isdigit():
            rows = list(islice(stream, int(count) + 1))
            if len(rows) < int(count) + 1 or not rows[-1].endswith(b"\n"):
                break
            found, end = found + 1, stream.tell()
    return end


@lru_cache
def as_read(system: str) -> str:
    """Return the name of a system as it comes back from a file: 02 is a number to the format."""
    return str(key_val_str_to_dict(key_val_dict_to_str({"system": system}))["system"])
