"""Files that are never half written, and places that are known to take them before the work."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError

BLOCK_BYTES = 4096
"""A full disk still makes files, as long as nothing is in them."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to, which takes the place of ``path`` when the block ends well.

    Yields
    ------
    Path
        ``NAME.part`` with the suffix of ``path`` kept, so that writers which look at it agree;
        removed if the block fails. A link stays one: the file that it leads to is replaced. What
        is no file, such as ``/dev/null``, is written to itself.

    Raises
    ------
    OSError
        With the name of the file, which Python leaves out where a disk is full.
    """
    if _is_device(path):
        yield path
        return
    target = Path(os.path.realpath(path))
    part = _part(target)
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        if error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.stem}.part{path.suffix}")


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def write_json(path: Path, found: Any, *, keep: bool = False) -> None:
    """Write a JSON file in one go; ``keep`` backs up an earlier one as i-PI does.

    NaN and infinity, which JSON has not, become null.
    """
    text = json.dumps(_finite(found), indent=2, allow_nan=False) + "\n"
    if keep:
        keep_backup(path)
    with replacing(path) as part:
        part.write_text(text)


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case float() if not math.isfinite(value):
            return None
    return value


def read_json(path: Path, *, keys: Iterable[str] = (), remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file that a user may have named or changed.

    Parameters
    ----------
    path : Path
        It exists.
    keys : iterable of str
        What it must have.
    remedy : str
        What to do about a file that is something else, for the message.

    Raises
    ------
    UserError
        If it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"'{path}' cannot be read ({error}): {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"'{path}' holds a {type(found).__name__}, which cannot be: {remedy}")
    if missing := [key for key in keys if key not in found]:
        raise UserError(f"'{path}' lacks {', '.join(missing)}: {remedy}")
    return found


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first name, by letter, of what two records have not in common; None: the same.

    Work that goes on from a file compares with it what the file was written for.
    """
    names = sorted(before.keys() | now.keys())
    return next((name for name in names if before.get(name) != now.get(name)), None)


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
        except OSError:
            # not every disk knows two names of one file
            if backup.exists():
                continue
            shutil.copyfile(path, backup)
        return backup
    raise UserError(f"{path.parent} holds 10000 backups of {path.name}: remove some of them.")


def check_output(path: Path, *, name: str, suffix: str = "", force: bool = True) -> None:
    """Check, before the work, that a file can be written.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    name : str
        What messages call it: a parameter such as ``json_file``, or words.
    suffix : str
        What it must end in.
    force : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    UserError
        If one of these is not so, or files cannot be made there.
    """
    what = f"{name}={str(path)!r}" if name.isidentifier() else f"{name} {path}"
    if suffix and path.suffix != suffix:
        raise UserError(f"{what} must end in {suffix}.")
    target = Path(os.path.realpath(path))
    try:
        _exists(_part(target))
    except OSError as error:
        raise UserError(f"{what}: {error.strerror}: choose another name.") from error
    if _is_device(path):
        return
    if target.is_dir():
        raise UserError(f"{what} is a folder: give the name of a file.")
    if target.exists() and not force:
        raise UserError(f"{what} exists: choose another name, or give force=True.")
    if not target.parent.is_dir():
        raise UserError(f"{what}: the folder '{path.parent}' does not exist.")
    require_writable(target.parent, name=what)
    if target.exists():
        try:
            with open(target, "ab"):
                pass
        except OSError as error:
            raise UserError(
                f"{what} cannot be written ({error.strerror or error}): choose another "
                "file, or make this one writable."
            ) from error


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
        If the folder, or the nearest parent that exists, is a file or cannot be written, or a name
        is too long.
    """
    nearest = folder
    try:
        while not _exists(nearest) and nearest != nearest.parent:
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            file.write(bytes(BLOCK_BYTES))
    except OSError as error:
        raise UserError(
            f"{name}: files cannot be made in {str(nearest)!r} ({error.strerror or error}): choose "
            "another folder, or make this one writable."
        ) from error


def _exists(path: Path) -> bool:
    """Whether there is something; an OSError if there can be nothing of this name."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
