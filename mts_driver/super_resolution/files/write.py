"""Dense trajectories in the formats that others read."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ase import Atoms, units
from ase.io import write

from mts_driver.errors import UserError
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


def open_output(path: Path, atoms: Atoms, every_fs: float, frames: int) -> Output:
    """Open a file for ``frames`` frames of atoms, every so often."""
    if path.suffix.lower() in ASE:
        return _Ase(path, atoms, every_fs)
    return _MDAnalysis(path, atoms, every_fs, frames)


class _Ase:
    """Frames with ``time_ps``, ``stored`` and, behind an open gap, another ``segment``."""

    def __init__(self, path: Path, atoms: Atoms, every_fs: float) -> None:
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
            time_ps = 1e-3 * self._every_fs * (piece.first + k)
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

    def __init__(self, path: Path, atoms: Atoms, every_fs: float, frames: int) -> None:
        mda = _mdanalysis()
        self._velocities = path.suffix.lower() in (".h5md", ".trr")
        self._every_ps = 1e-3 * every_fs
        self._universe = mda.Universe.empty(
            len(atoms), trajectory=True, velocities=self._velocities
        )
        self._box = atoms.cell.cellpar() if atoms.pbc.all() else None
        more: dict[str, Any] = {"dt": self._every_ps}
        if path.suffix.lower() == ".h5md":
            more |= {"n_frames": frames, "positions": True, "velocities": True, "forces": False}
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
            step.time = self._every_ps * step.frame
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


def write_all(output: Output, pieces: Iterable[Piece], tell: Any) -> int:
    """Write pieces as they come; ``tell`` hears how many frames there are."""
    frames = 0
    for piece in pieces:
        frames += output.add(piece)
        tell(frames)
    return frames
