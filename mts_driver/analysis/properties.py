"""Read i-PI's property files."""

import re
from pathlib import Path

import numpy as np

from mts_driver.errors import UserError
from mts_driver.units import AU_TIME_FS, HARTREE_EV

# "# column   4     --> potential{electronvolt} : ..."; vectors are "# cols.  4-6  --> ..."
_COLUMN = re.compile(r"#\s*(?:column|cols\.)\s+(\d+)\S*\s*-->\s*([\w()=;.,-]+)(?:\{([\w/]+)\})?")

# None: without a unit i-PI prints atomic ones
_ENERGY = {"electronvolt": 1.0, "hartree": HARTREE_EV, "atomic_unit": HARTREE_EV, None: HARTREE_EV}
_PS = AU_TIME_FS * 1e-3
_TIME = {"picosecond": 1.0, "femtosecond": 1e-3, "atomic_unit": _PS, None: _PS}
_UNITS = {"potential": _ENERGY, "conserved": _ENERGY, "time": _TIME}


def read_properties(path: Path) -> dict[str, np.ndarray]:
    """Read a ``<properties>`` output, one row a step.

    Rows that a kill cut short are left out, and of a step that a restarted run wrote twice the
    later row is kept.

    Returns
    -------
    dict of str to array, shape (F,)
        By i-PI's names. ``step`` is always there, ``time`` is in ps, ``potential`` and
        ``conserved`` in eV, everything else as printed. Of vectors, the first component.

    Raises
    ------
    UserError
        If the file is missing, empty, without steps or in units that are not known.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder of a run that has begun.")
    lines = path.read_text(errors="replace").splitlines()
    found = [match.groups() for line in lines if (match := _COLUMN.match(line))]
    columns = {name: (int(column) - 1, unit) for column, name, unit in found}
    if "step" not in columns:
        raise UserError(
            f"{path} has no column 'step' (it has {', '.join(columns) or 'none'}): add step to "
            "<properties>, as `mts prepare` does."
        )
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    width = len(rows[0]) if rows else 0
    # a cut-off last number may still be one, so that only the line's end vouches for it
    if rows and (len(rows[-1]) != width or not path.read_bytes().endswith(b"\n")):
        rows.pop()
    if not rows:
        raise UserError(f"{path} has no complete row: the run has not finished a step.")
    try:
        table = np.array(rows, float)
    except ValueError as error:
        raise UserError(f"{path} has damaged rows ({error}): repair or remove them.") from error
    steps = table[:, columns["step"][0]]
    # of equal steps np.unique returns the first, hence backwards
    last = len(table) - 1 - np.unique(steps[::-1], return_index=True)[1]
    return {
        name: table[last, column] * _factor(name, unit) for name, (column, unit) in columns.items()
    }


def step_fs(path: Path) -> float:
    """Return the time of a step, as a run has printed it in its ``<properties>``.

    Raises
    ------
    UserError
        If it has not.
    """
    printed = read_properties(path)
    if "time" not in printed or printed["step"][-1] <= 0:
        raise UserError(
            f"{path} does not say at what time a step was: add time to <properties>, as `mts "
            "prepare` does."
        )
    return float(1e3 * printed["time"][-1] / printed["step"][-1])


def _factor(name: str, unit: str | None) -> float:
    units = _UNITS.get(name)
    if units is None:
        return 1.0
    if unit not in units:
        raise UserError(
            f"<properties> prints {name} in {unit!r}: use {', '.join(filter(None, units))}."
        )
    return units[unit]
