"""The ``<system>``s of an i-PI input: their levels, their models, and what their start says."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.structures.files import read_structure
from mts_driver.structures.fixed import held_atoms

_LEVELS_REMEDY = "write [1, 0] for the teacher and [-1, 1] for the student, with <nmts> [1, n]"


@dataclass(frozen=True)
class SystemInput:
    """One system.

    Attributes
    ----------
    node : Element
        The ``<system>``, of a template with its labels filled in.
    weights : dict of str to list of float
        The ``<mts_weights>`` of its force fields, by name; ring-polymer contraction splits those of
        the student in two, which are added up here.
    """

    node: ET.Element
    weights: Mapping[str, list[float]]

    @property
    def teachers(self) -> list[str]:
        """Force fields with mts_weights [1, 0], or [1, 0, 0]."""
        return [name for name, w in self.weights.items() if w[0] == 1 and not any(w[1:])]

    @property
    def students(self) -> list[str]:
        """Force fields with mts_weights [-1, 1], or [0, -1, 1]."""
        return [name for name, w in self.weights.items() if w[-2:] == [-1, 1]]


def systems_of(root: ET.Element) -> list[SystemInput]:
    """Read all systems, those of templates included, and check their levels.

    Raises
    ------
    UserError
        If weights are no numbers, or they and ``<nmts>`` do not fit together.
    """
    found = [SystemInput(node, _read_weights(node)) for node in _nodes(root)]
    for system in found:
        _check_levels(system)
    return found


def _nodes(root: ET.Element) -> Iterator[ET.Element]:
    yield from root.iterfind("system")
    for template in root.iterfind("system_template"):
        inner = template.find("template/system")
        if inner is None:
            continue
        text = ET.tostring(inner, encoding="unicode")
        labels = _words(template.findtext("labels"))
        for instance in template.iterfind("instance"):
            filled = text
            # as i-PI does: the longest of labels that begin alike comes first
            pairs = zip(labels, _words(instance.text), strict=False)
            for label, value in sorted(pairs, reverse=True):
                filled = filled.replace(label, value)
            yield ET.fromstring(filled)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").strip("[] \n\t").split(",")]


def _read_weights(system: ET.Element) -> dict[str, list[float]]:
    weights: dict[str, list[float]] = {}
    for node in system.iterfind("forces/force"):
        text = (node.findtext("mts_weights") or "[1]").strip("[] \n\t")
        name = node.get("forcefield", "").strip()
        try:
            found = [float(w) for w in text.split(",")]
            before = weights.get(name, [0.0] * len(found))
            weights[name] = [a + b for a, b in zip(before, found, strict=True)]
        except ValueError:
            raise UserError(
                f"<mts_weights> [{text}] of forcefield {name!r} are not numbers, or not as "
                "many as elsewhere: write [1, 0] for the teacher and [-1, 1] for the student."
            ) from None
    return weights


def _check_levels(system: SystemInput) -> None:
    weights = system.weights
    shown = "; ".join(f"{name}: {w}" for name, w in weights.items())
    for node in system.node.iter("nmts"):
        found = re.findall(r"-?\d+", node.text or "")
        # in a checkpoint the tag carries its length, not text in brackets
        nmts = [int(n) for n in found] or [1]
        wrong = [name for name, w in weights.items() if len(w) != len(nmts)]
        if wrong:
            raise UserError(
                f"<nmts> {nmts} has {len(nmts)} level(s), but the <mts_weights> are {shown} "
                f"(wrong: {', '.join(wrong)}): {_LEVELS_REMEDY}."
            )
    if any(len(w) > 1 for w in weights.values()):
        sums = {name: sum(w) for name, w in weights.items()}
        if not all(min(abs(s), abs(s - 1)) < 1e-9 for s in sums.values()) or all(
            abs(s) < 1e-9 for s in sums.values()
        ):
            raise UserError(
                f"the <mts_weights> do not sum up ({shown}): summed over the levels each force "
                "must count 1 (the teacher) or 0 (the student), and one of them 1: "
                f"{_LEVELS_REMEDY}."
            )


def check_starts(
    system: SystemInput, folder: Path, *, models: Mapping[str, str], periodic: Mapping[str, bool]
) -> None:
    """Require the files of a start to exist, and the input to keep what they say.

    Parameters
    ----------
    folder : Path
        Of the input.
    models : mapping of str to str
        Specifications of the models that the system uses, by force field.
    periodic : mapping of str to bool
        The same: whether the model will see the cell.

    Raises
    ------
    UserError
        Naming what the start says and the input does not.
    """
    for node in system.node.iterfind("initialize/file"):
        name = (node.text or "").strip()
        if not (folder / name).is_file():
            raise UserError(
                f"the start {name!r} that the input names in <initialize> does not exist in "
                f"{folder.resolve()}: put it there or correct <file>."
            )
        if node.get("mode") == "ase":
            atoms = read_structure(folder / name)
            _check_periodicity(name, atoms, periodic)
            _check_charge(name, atoms, models)
            _check_held(name, atoms, system.node)


def _check_periodicity(name: str, atoms: Atoms, periodic: Mapping[str, bool]) -> None:
    wrong = [forcefield for forcefield, found in periodic.items() if found != atoms.pbc.all()]
    if not wrong:
        return
    said, word = ("periodic", "yes") if atoms.pbc.all() else ("isolated (pbc='F F F')", "no")
    raise UserError(
        f"the start {name!r} is {said}, but the model of {', '.join(map(repr, wrong))} would be "
        f"asked about {'a periodic' if word == 'no' else 'an isolated'} system: write "
        f"`periodic: {word}` into its <parameters>, or correct pbc in the start."
    )


def _check_charge(name: str, atoms: Atoms, models: Mapping[str, str]) -> None:
    charge = atoms.info.get("charge")
    if charge is None and not any("charge" in model for model in models.values()):
        return  # without loading what knows about models
    from mts_driver.potentials.load import spec_charge

    for forcefield, model in models.items():
        own = spec_charge(model)
        if charge is not None and own is not None and own != charge:
            raise UserError(
                f"the start {name!r} has a charge of {charge:+g} e, but the model {model!r} of "
                f"{forcefield!r} is for {own:+g} e: write charge={charge:g} behind its '?', as in "
                f"`model: so3lr?charge={charge:g}`, or correct the start."
            )


def _check_held(name: str, atoms: Atoms, system: ET.Element) -> None:
    held = held_atoms(atoms).tolist()
    fixed = {k for node in system.iter("fixatoms") for k in _integers(node)}
    dof = [k for node in system.iter("fixatoms_dof") for k in _integers(node)]
    fixed |= {k // 3 for k in dof if {k - k % 3 + axis for axis in range(3)} <= set(dof)}
    if held and set(held) != fixed:
        instead = f"fixes {sorted(fixed)}" if fixed else "lets them go"
        raise UserError(
            f"the start {name!r} holds the atoms {held} in place, but the input {instead}: write "
            f"<fixatoms> {held} </fixatoms> into <motion>, or take the constraint out of the start."
        )


def _integers(node: ET.Element) -> list[int]:
    return [int(word) for word in re.findall(r"-?\d+", node.text or "")]
