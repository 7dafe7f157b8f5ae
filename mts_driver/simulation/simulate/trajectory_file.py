"""The frames of a trajectory in an extended-XYZ file that a restart continues."""

import fcntl
import io
import os
from pathlib import Path
from types import TracebackType

from ase import Atoms
from ase.io import write

from mts_driver.errors import UserError
from mts_driver.files import check_output, keep_backup


class TrajectoryFile:
    """Frames one after the other; a context manager.

    Parameters
    ----------
    path : Path
        The file; one of another run is kept as ``#name#0#``.
    continue_at : int or None
        Bytes that a checkpoint knows of; what was written after it is taken again. None: new.

    Raises
    ------
    UserError
        If the file cannot be written, is shorter than the checkpoint says, or another process is
        writing it.
    """

    def __init__(self, path: Path, *, continue_at: int | None) -> None:
        check_output(path, name="trajectory")
        if continue_at is None:
            keep_backup(path)
            path.unlink(missing_ok=True)  # what is kept may be the same file under another name
            self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
            self._lock(path)
            return
        size = path.stat().st_size if path.is_file() else 0
        if size < continue_at:
            raise UserError(
                f"trajectory '{path}' has {size} bytes, but its checkpoint has written "
                f"{continue_at}: put the file back, or remove the checkpoint to start anew."
            )
        self._file = open(path, "ab")  # noqa: SIM115
        self._lock(path)
        os.truncate(path, continue_at)

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"trajectory '{path}' is being written by another process, whose frames would be "
                "lost: wait for its end, or give another trajectory and checkpoint."
            ) from None
        except OSError:  # a file system without locks
            pass

    def __enter__(self) -> "TrajectoryFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, frame: Atoms) -> None:
        """Append a frame."""
        text = io.StringIO()
        write(text, frame, format="extxyz")
        self._file.write(text.getvalue().encode())

    def size(self) -> int:
        """Bring all frames to the disk, and return their bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()


def require_two_files(trajectory: str | Path | None, checkpoint: str | Path | None) -> None:
    """Refuse files of which one would replace the other, or be read as another format.

    Raises
    ------
    UserError
        For one file for both, or a trajectory whose name says another format.
    """
    if trajectory is None:
        return
    if Path(trajectory).suffix not in (".extxyz", ".xyz"):
        raise UserError(
            f"trajectory={str(trajectory)!r}: frames are written as extended XYZ; give a name that "
            "ends in .extxyz or .xyz."
        )
    if checkpoint is not None and Path(trajectory).resolve() == Path(checkpoint).resolve():
        raise UserError(f"trajectory and checkpoint are both {str(checkpoint)!r}: give two files.")
