"""The result of a benchmark: a table on the terminal, and a JSON file."""

import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mts_driver.bench.settings import BenchSettings
from mts_driver.files import write_json

Columns = dict[str, tuple[str, str]]
"""Title of a column: the key in the rows, and the format (empty for text)."""


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes
    ----------
    name : str
        Of the benchmark.
    environment : dict
        What the numbers depend on besides the code.
    rows : list of dict
        A line of the table each; None where something could not be measured.
    notes : list of str
        Lines below the table.
    """

    name: str
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def show(result: Result, columns: Columns, console: Console) -> None:
    """Print the columns that have a number, and the notes below them.

    Rows that have no number but that of atoms in common are in tables of their own.
    """
    machine = result.environment.get("gpu") or result.environment["cpu"]
    atoms = result.environment["atoms"]
    title: str | None = f"{result.name}: {f'{atoms} atoms, ' if atoms else ''}{machine}"
    for rows in _alike(result.rows, columns):
        table, title = Table(title=title), None
        used = {
            head: how
            for head, how in columns.items()
            if any(row.get(how[0]) is not None for row in rows)
        }
        for head, (_, form) in used.items():
            table.add_column(head, justify="right" if form else "left", overflow="fold")
        for row in rows:
            table.add_row(*[_shown(row.get(key), form) for key, form in used.values()])
        console.print(table)
    for note in result.notes:
        console.print(note)


def _alike(rows: list[dict[str, Any]], columns: Columns) -> list[list[dict[str, Any]]]:
    found, common = list[list[dict[str, Any]]](), set[str]()
    for row in rows:
        keys = {key for key, form in columns.values() if form and row.get(key) is not None}
        keys.discard("atoms")
        if found and (not keys or not common or keys & common):
            found[-1].append(row)
            common |= keys
        else:
            found.append([row])
            common = keys
    return found


def write(result: Result, path: Path) -> None:
    """Write the result as JSON."""
    write_json(path, asdict(result))


def environment(settings: BenchSettings) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    names = ("mts-driver", "torch", "ipi", "numba", "numpy", "ase", "so3krates-torch", "openmm")
    (atoms, *others) = settings.structures
    return {
        "atoms": None if others else len(atoms),
        "density_g_cm3": float(np.sum(atoms.get_masses()) * 1.66053907 / atoms.get_volume())
        if atoms.cell.rank == 3
        else None,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": settings.threads or os.cpu_count(),
        "device": settings.device,
        "gpu": _gpu(settings.device),
        "teacher": settings.teacher,
        "students": list(settings.students),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "python": platform.python_version(),
        **{name: version_of(name) for name in names},
    }


def _shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def cpu_name() -> str:
    """Name of the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None


def version_of(name: str) -> str | None:
    """Version of an installed package; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
