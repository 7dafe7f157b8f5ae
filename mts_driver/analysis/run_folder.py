"""Find what a run left behind, by the input that it was started with."""

import glob
import math
import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from integrators.memory import slowdown
from mts_driver.errors import UserError
from mts_driver.files import read_json
from mts_driver.units import BOLTZMANN_EV_K, HARTREE_EV

_ISOLATED = re.compile(r"\bperiodic\s*:\s*no\b")
_KELVIN = {"kelvin": 1.0, "k": 1.0, "atomic_unit": HARTREE_EV / BOLTZMANN_EV_K}


@dataclass(frozen=True)
class RunFolder:
    """Files of one run.

    Attributes
    ----------
    path : Path
        The folder.
    properties : Path
        Output of ``<properties>``.
    positions : tuple of Path
        Outputs of ``<trajectory> positions``, one a bead.
    velocities : tuple of Path
        Outputs of ``<trajectory> velocities``, one a bead: those with the shortest stride.
    target_K : float or None
        Temperature of the ensemble, K; None where it has none, or one in a form
        that is not known here.
    isolated : bool
        Whether the models did not see the box that i-PI has the atoms in.
    teacher : str or None
        Specification of the model whose forces are the run's; None where the input has none.
    slowdown : float or None
        How many times as long slow motion takes as with the masses alone: above 1 with coloured
        noise. None where its matrix is in a form that is not known here.
    summary : dict
        ``summary.json`` of ``mts run``; empty after a plain ``i-pi``.
    """

    path: Path
    properties: Path
    positions: tuple[Path, ...]
    velocities: tuple[Path, ...]
    target_K: float | None
    isolated: bool
    teacher: str | None
    slowdown: float | None
    summary: dict[str, Any]

    @classmethod
    def find(cls, path: Path, *, name: str = "RUN_DIR") -> "RunFolder":
        """Look into a folder, or into that of an input file; messages call it ``name``.

        Raises
        ------
        UserError
            If the folder or its input is missing, or the run has written no positions.
        """
        folder, source = (path.parent, path) if path.is_file() else (path, _input_of(path, name))
        root = _read_input(source)
        output = root.find("output")
        # i-PI's default
        prefix = (output.get("prefix", "i-pi") if output is not None else "i-pi").strip()
        stem = f"{prefix}." if prefix else ""
        systems = [*root.iter("system"), *root.iter("system_template")]
        if len(systems) == 1 and (name := systems[0].get("prefix", "").strip()):
            stem = f"{name}_{stem}"
        properties = next(root.iter("properties"), None)
        positions = next(
            (node for node in root.iter("trajectory") if _prints(node, "positions")),
            None,
        )
        if properties is None or positions is None:
            raise UserError(
                f"{source} does not write <properties> and an xyz <trajectory> of positions: add "
                "them as `mts prepare` does, and run again."
            )
        velocities = [node for node in root.iter("trajectory") if _prints(node, "velocities")]
        files = _files(folder, stem, positions)
        if len(systems) > 1:
            raise UserError(_several_systems(root, source))
        if not files:
            raise UserError(f"{folder} holds no {stem}*.xyz: the run has written no positions yet.")
        summary = folder / "summary.json"
        return cls(
            path=folder,
            properties=folder / f"{stem}{properties.get('filename', 'out').strip()}",
            positions=files,
            velocities=_files(folder, stem, min(velocities, key=_stride)) if velocities else (),
            target_K=_temperature(root),
            isolated=any(_ISOLATED.search(node.text or "") for node in root.iter("parameters")),
            teacher=_teacher(root),
            slowdown=_slowdown(root),
            summary=read_json(summary, remedy="remove it, or put the one of `mts run` back.")
            if summary.is_file()
            else {},
        )


def stores_for_superres(path: Path) -> bool:
    """Tell whether a run has been told to store what fills gaps, and has begun to."""
    folder = path.parent if path.is_file() else path
    return any(folder.glob("*.superres_velocities_0.xyz"))


def _read_input(path: Path) -> ET.Element:
    try:
        root = ET.parse(path).getroot()
    except (OSError, ValueError, ET.ParseError) as error:
        raise UserError(f"{path} is no i-PI input ({error}): give that of the run.") from error
    if root.tag != "simulation":
        raise UserError(f"{path} is no i-PI input: its first tag is <{root.tag}>.")
    return root


def _several_systems(root: ET.Element, source: Path) -> str:
    if root.find("./smotion/remd") is None and root.find("./smotion[@mode='remd']") is None:
        return (
            f"{source} has several systems, and a report is of one: run each with an input of its "
            "own to have its picture; their files are beside the input, under the prefix of each."
        )
    return (
        f"{source} has several systems: their files follow replicas through temperatures. Sort "
        f"them with `i-pi-remdsort {shlex.quote(source.name)}`, in {source.resolve().parent}, "
        "before they are analysed."
    )


def _input_of(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"{name} {str(folder)!r} is not a folder: give that of an i-PI run.")
    preferred = folder / "input.xml"
    inputs = [preferred] if preferred.is_file() else sorted(folder.glob("*.xml"))
    inputs = [path for path in inputs if _is_input(path)]
    if len(inputs) != 1:
        raise UserError(
            f"{folder} holds {len(inputs)} i-PI inputs and none is called input.xml: give the path "
            "of the input instead of the folder."
        )
    return inputs[0]


def _is_input(path: Path) -> bool:
    try:
        return _read_input(path).tag == "simulation"
    except UserError:
        return False


def _files(folder: Path, stem: str, node: ET.Element) -> tuple[Path, ...]:
    """Return what an output has written, one file a bead."""
    pattern = glob.escape(str(folder / f"{stem}{node.get('filename', 'traj').strip()}"))
    return tuple(Path(found) for found in sorted(glob.glob(f"{pattern}_*.xyz")))


def _prints(node: ET.Element, quantity: str) -> bool:
    text = (node.text or "").strip()
    return text.split("{")[0] == quantity and node.get("format", "xyz").strip() == "xyz"


def _stride(node: ET.Element) -> int:
    try:
        return int(node.get("stride", "1"))
    except ValueError:
        return 1


def _teacher(root: ET.Element) -> str | None:
    """Return the model of the force field ``teacher``, or of the only one there is."""
    models = {}
    for node in (*root.iter("ffsocket"), *root.iter("ffdirect")):
        said = re.search(r"\bmodel\s*:\s*([^,}]+)", node.findtext("parameters") or "")
        if said:
            models[node.get("name", "").strip()] = said.group(1).strip()
    if len(models) == 1:
        return next(iter(models.values()))
    return models.get("teacher")


def _slowdown(root: ET.Element) -> float | None:
    noises = [node for node in root.iter("thermostat") if "gle" in node.get("mode", "")]
    if not noises:
        return 1.0
    try:
        numbers = np.array((noises[0].findtext("A") or "").strip(" []\n").split(","), float)
        return slowdown(numbers.reshape(2 * (math.isqrt(len(numbers)),)))
    except ValueError:
        return None


def _temperature(root: ET.Element) -> float | None:
    node = root.find(".//ensemble/temperature")
    if node is None or not (node.text or "").strip():
        return None
    factor = _KELVIN.get(node.get("units", "atomic_unit").strip())
    try:
        return None if factor is None else factor * float(node.text or 0)
    except ValueError:
        return None
