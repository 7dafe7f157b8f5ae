"""Where to continue from, and checkpoints that a kill cannot leave half written."""

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from mts_driver.errors import UserError
from mts_driver.files import keep_backup
from mts_driver.runs.input.read import RunInput
from mts_driver.units import AU_TIME_FS, BOLTZMANN_EV_K, HARTREE_EV


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


def changes(wanted: RunInput, goes_on: RunInput) -> list[str]:
    """Say where an input and the checkpoint that is to go on with it differ.

    A restart is what the checkpoint says but for the number of steps.
    """
    new, old = (ET.parse(run.path).getroot() for run in (wanted, goes_on))
    found = [
        f"the model of {name!r} is {model}, there {goes_on.models[name]}"
        for name, model in wanted.models.items()
        if goes_on.models.get(name, model) != model
    ]
    before = {driver.name: driver.options for driver in goes_on.drivers}
    for driver in wanted.drivers:
        options = before.get(driver.name, driver.options)
        found += [
            f"{key} of {driver.name!r} is {value}, there {options.get(key, 'not given')}"
            for key, value in driver.options.items()
            if options.get(key) != value
        ]
    levels = [re.findall(r"\d+", root.findtext(".//nmts") or "1") for root in (new, old)]
    # a run that shortens its outer step at a hole keeps the inner one
    shortens = (new.findtext(".//on_hole") or "").strip() == "shorten"
    for tag, (unit, factors) in _WITH_UNITS.items():
        values = [_value(root.find(f".//{tag}"), factors) for root in (new, old)]
        if shortens and tag == "dynamics/timestep" and None not in values:
            inner = (math.prod(map(int, numbers)) for numbers in levels)
            values = [value / n for value, n in zip(values, inner, strict=True) if value]
        if None not in values and not math.isclose(values[0] or 0, values[1] or 0, rel_tol=1e-5):
            name = tag.rpartition("/")[2]
            found.append(f"{name} is {values[0]:.6g} {unit}, there {values[1]:.6g} {unit}")
    if levels[0] != levels[1] and not shortens:
        found.append(f"nmts is {' '.join(levels[0])}, there {' '.join(levels[1])}")
    for kind in ("properties", "trajectory", "checkpoint"):
        strides = [
            {node.get("filename"): node.get("stride", "1").strip() for node in root.iter(kind)}
            for root in (new, old)
        ]
        found += [
            f"the stride of {kind} {name!r} is {stride}, there {strides[1][name]}"
            for name, stride in strides[0].items()
            if strides[1].get(name, stride) != stride
        ]
    return found


_TIME = "fs", {"femtosecond": 1.0, "picosecond": 1e3, "": AU_TIME_FS}
_WITH_UNITS = {
    "dynamics/timestep": _TIME,
    "ensemble/temperature": ("K", {"kelvin": 1.0, "": HARTREE_EV / BOLTZMANN_EV_K}),
    "dynamics/thermostat/tau": _TIME,
}


def _value(node: ET.Element | None, factors: dict[str, float]) -> float | None:
    """Return a number; None where there is none, or its unit is not known here."""
    if node is None:
        return None
    unit = node.get("units", "").strip().replace("atomic_unit", "")
    try:
        return factors[unit] * float(node.text or "")
    except (KeyError, ValueError):
        return None


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
