"""Where to continue from, and checkpoints that a kill cannot leave half written."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from mts_driver.errors import UserError
from mts_driver.files import keep_backup
from mts_driver.runs.input.read import RunInput


def newest_checkpoint(run: RunInput) -> tuple[Path, int]:
    """Find the complete checkpoint with the most steps: RESTART or a ``<checkpoint>`` output.

    Returns
    -------
    Path, int
        The file, and the steps done in it.

    Raises
    ------
    UserError
        If there is none.
    """
    folder = run.path.parent
    names, candidates = _candidates(run)
    steps = [(step, path) for path in candidates if (step := _steps_done(path)) is not None]
    if not steps:
        raise UserError(
            f"restart=True: {folder.resolve()} holds no complete checkpoint "
            f"({', '.join(sorted(names))}): start anew without it."
        )
    step, path = max(steps, key=lambda pair: (pair[0], pair[1].stat().st_mtime))
    return path, step


def _candidates(run: RunInput) -> tuple[set[str], list[Path]]:
    folder = run.path.parent
    names = {"RESTART", *(f"{run.prefix}.{name}" for name in run.checkpoints), *run.checkpoints}
    paths = [path for name in names for path in (folder / name, *folder.glob(f"{name}_*"))]
    return names, [path for path in paths if path.is_file()]


def set_aside_checkpoints(run: RunInput) -> None:
    """Rename the checkpoints of an earlier run, so that no restart mistakes them for this one's."""
    for path in _candidates(run)[1]:
        keep_backup(path)
        path.unlink()


def _steps_done(path: Path) -> int | None:
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError):
        return None
    if root.tag != "simulation" or root.find(".//beads/q") is None:
        return None
    return int((root.findtext("step") or "0").strip())


def write_checkpoints_well() -> None:
    """Make i-PI write checkpoints that are never half written and lose no digit.

    Each goes to a new file that then replaces the old one. Numbers that need more than i-PI's 9
    digits get 17, so that a restarted run is the uninterrupted one.
    """
    from integrators.ipi.replacements import print_values_by, write_checkpoints_by

    print_values_by(_show)
    write_checkpoints_by(_write)


def _show(kind: type, value: Any, text: str) -> str:
    if kind in (str, dict):
        # i-PI writes & and < as they are, as in ase:MODULE:CALLABLE?a=1&b=2, and cannot read that
        # again
        return escape(text)
    # i-PI leaves out what is printed like its default: keep its own form wherever it is exact
    return f"{value:25.17e}" if kind is float and float(text) != value else text


def _write(output: Any, store: bool, native: Callable[[Any, bool], None]) -> None:
    if not (output.active() and output.overwrite):
        native(output, store)
        return
    name = output.filename
    if not output._continued:
        keep_backup(Path(name))
    output._continued, output.filename = True, f"{name}.part"
    try:
        native(output, store)
        os.replace(output.filename, name)
    finally:
        Path(output.filename).unlink(missing_ok=True)  # half written, on a full disk
        output.filename = name
