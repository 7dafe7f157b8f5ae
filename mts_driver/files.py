"""Files that are never half written, and folders that are known to take them before the work."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to, which takes the place of ``path`` when the block ends well.

    Yields
    ------
    Path
        ``NAME.part`` with the suffix of ``path`` kept, so that writers which look at it agree;
        removed if the block fails.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, found: dict[str, Any], *, keep: bool = False) -> None:
    """Write a JSON file in one go; ``keep`` backs up an earlier one as i-PI does."""
    if keep:
        keep_backup(path)
    with replacing(path) as part:
        part.write_text(json.dumps(found, indent=2) + "\n")


def keep_backup(path: Path) -> Path | None:
    """Keep the file of an earlier run as ``#name#0#``, ``#name#1#``, ..., as i-PI does.

    The file stays where it is as well, until it is replaced.
    """
    if not path.exists():
        return None
    for k in range(10_000):
        backup = path.with_name(f"#{path.name}#{k}#")
        try:
            os.link(path, backup)
        except FileExistsError:
            continue
        return backup
    raise UserError(f"{path.parent} holds 10000 backups of {path.name}: remove some of them.")


def require_writable(folder: Path, *, name: str) -> None:
    """Check, before the work, that a file can be made in a folder that exists or can be made.

    Parameters
    ----------
    folder : Path
        Nothing is left in it, and no parent is made.
    name : str
        The argument that names it, for the message, such as ``--output run``.

    Raises
    ------
    UserError
        If the folder, or the nearest parent that exists, is a file or cannot be written.
    """
    nearest = folder
    try:
        while not os.path.lexists(nearest) and nearest != nearest.parent:
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(
            f"{name}: files cannot be made in {str(nearest)!r} ({error.strerror or error}): choose "
            "another folder, or make this one writable."
        ) from error


def require_file(path: Path, *, name: str) -> None:
    """Check, before the work, that a file can be written: a new one, or in place of an old one.

    Parameters
    ----------
    path : Path
        Left as it is.
    name : str
        The argument that names it, for the message.

    Raises
    ------
    UserError
        If its folder does not exist or cannot be written, or the file that is there cannot.
    """
    if not path.resolve().parent.is_dir():
        raise UserError(
            f"{name}: the folder of {str(path)!r} does not exist: make it, or choose another file."
        )
    if not os.path.lexists(path):
        require_writable(path.resolve().parent, name=name)
        return
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise UserError(
            f"{name}: {str(path)!r} cannot be written ({error.strerror or error}): choose another "
            "file, or make this one writable."
        ) from error
