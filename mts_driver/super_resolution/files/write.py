"""Dense trajectories in the formats that others read."""

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from ase.io import write

from mts_driver.errors import UserError
from mts_driver.super_resolution.files.stored import Stored
from mts_driver.super_resolution.frames import Piece

ASE = (".extxyz", ".xyz")
MDANALYSIS = (".dcd", ".h5md", ".xtc", ".trr")


class Output(Protocol):
    """A file that frames are added to; a context manager."""

    def add(self, piece: Piece) -> int:
        """Write frames; return how many."""
        ...

    def __enter__(self) -> "Output": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_format(path: Path, *, open_gaps: bool) -> None:
    """Require a format that is known, and its package.

    Raises
    ------
    UserError
        If it is another; or gaps may stay open, which MDAnalysis' formats cannot say.
    """
    suffix = path.suffix.lower()
    if suffix not in (*ASE, *MDANALYSIS):
        raise UserError(f"output={str(path)!r}: write one of {', '.join((*ASE, *MDANALYSIS))}.")
    if suffix in MDANALYSIS:
        if open_gaps:
            raise UserError(
                f"output={str(path)!r}: only .extxyz can say where a gap was left open."
            )
        _mdanalysis()
    elif open_gaps and suffix != ".extxyz":
        raise UserError(f"output={str(path)!r}: only .extxyz can say where a gap was left open.")


def open_output(path: Path, stored: Stored, every_fs: float, frames: int) -> Output:
    """Open a file for ``frames`` frames of what was stored, every so often.

    Raises
    ------
    UserError
        If its cell has no box in the formats of MDAnalysis.
    """
    if path.suffix.lower() in ASE:
        return _Ase(path, stored, every_fs)
    return _MDAnalysis(path, stored, every_fs, frames)


class _Ase:
    """Frames with ``time_ps``, ``stored`` and, behind an open gap, another ``segment``."""

    def __init__(self, path: Path, stored: Stored, every_fs: float) -> None:
        atoms = stored.atoms
        self._start_fs = stored.start_fs
        self._path, self._every_fs, self._segment = path, every_fs, -1
        self._atoms = Atoms(atoms.numbers, cell=atoms.cell, pbc=atoms.pbc)
        self._atoms.set_masses(atoms.get_masses())
        for key in ("charge", "multiplicity"):
            if key in atoms.info:
                self._atoms.info[key] = atoms.info[key]
        path.unlink(missing_ok=True)

    def __enter__(self) -> "_Ase":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def add(self, piece: Piece) -> int:
        self._segment += piece.begins
        frames = []
        for k, x in enumerate(piece.positions_A):
            frame = self._atoms.copy()
            frame.set_positions(x)
            if piece.velocities_A_fs is not None:
                frame.set_velocities(piece.velocities_A_fs[k] / units.fs)
            time_ps = 1e-3 * (self._start_fs + self._every_fs * (piece.first + k))
            frame.info |= {
                "time_ps": round(time_ps, 9),
                "stored": bool(piece.stored[k]),
                "segment": self._segment,
            }
            frames.append(frame)
        write(self._path, frames, format="extxyz", append=True)
        return len(frames)


class _MDAnalysis:
    """Frames in Å, ps and Å/ps, in the formats that have velocities with these."""

    def __init__(self, path: Path, stored: Stored, every_fs: float, frames: int) -> None:
        mda, atoms = _mdanalysis(), stored.atoms
        self._velocities = path.suffix.lower() in (".h5md", ".trr")
        self._velocities &= stored.frames.velocities_A_fs is not None
        self._every_ps, self._start_ps = 1e-3 * every_fs, 1e-3 * stored.start_fs
        if atoms.pbc.any() and np.abs(np.triu(atoms.cell.array, 1)).max() > 1e-6:
            raise UserError(
                f"output={str(path)!r}: this format needs the first vector of the cell along x and "
                "the second in the plane of x and y: write .extxyz."
            )
        self._universe = mda.Universe.empty(
            len(atoms), trajectory=True, velocities=self._velocities
        )
        self._box = atoms.cell.cellpar() if atoms.pbc.all() else None
        more: dict[str, Any] = {"dt": self._every_ps}
        if path.suffix.lower() == ".h5md":
            more |= {"n_frames": frames, "positions": True, "forces": False}
            more |= {"velocities": self._velocities}
            more |= {"timeunit": "ps", "lengthunit": "Angstrom", "velocityunit": "Angstrom/ps"}
        self._writer = mda.Writer(str(path), len(atoms), **more)

    def __enter__(self) -> "_MDAnalysis":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, piece: Piece) -> int:
        step = self._universe.trajectory.ts
        for k, x in enumerate(piece.positions_A):
            step.frame = piece.first + k
            step.time = self._start_ps + self._every_ps * step.frame
            step.dimensions = self._box
            step.positions = x
            if self._velocities and piece.velocities_A_fs is not None:
                step.velocities = 1e3 * piece.velocities_A_fs[k]
            self._writer.write(self._universe.atoms)
        return len(piece.positions_A)


def _mdanalysis() -> Any:
    try:
        import MDAnalysis
    except ModuleNotFoundError as error:
        raise UserError(
            "this format needs MDAnalysis: pip install 'mts-driver[superres]'."
        ) from error
    return MDAnalysis
