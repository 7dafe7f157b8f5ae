"""What a run asks for, read from the options of ``mts prepare`` or from an i-PI input."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SPLITTING = "respa-baoab"
CONSTANT_PRESSURE = ("npt", "nst")
OPTIONS = {
    "pressure": "pressure_bar={pressure:g}",
    "no_pressure": "leave pressure_bar out",
    "beads": "beads={beads}",
    "contraction": "teacher_beads={teacher_beads}",
    "no_contraction": "leave teacher_beads out",
    "held": "atoms that the structure holds in place",
    "device_steps": "device_steps={device_steps}",
    "no_device_steps": "leave device_steps out",
    "one_device_step": "give device_steps=1",
    "hydrogen_friction": "hydrogen_friction_per_ps",
    "no_hydrogen_friction": "leave hydrogen_friction_per_ps out",
    "constrained": "constrain_hydrogens or rigid_water",
    "not_constrained": "leave constrain_hydrogens and rigid_water out",
    "white_noise": "give thermostat='langevin'",
    "on_hole": "on_hole='{on_hole}'",
    "no_on_hole": "leave on_hole out",
    "no_student": "student='none'",
    "shorter_inner": "give a shorter inner_fs",
    "natural_masses": "leave hydrogen_mass_Da out, or give 0",
    "exchange": "exchange_K",
    "kept_velocities": "velocities='keep'",
}
TAGS = {
    "pressure": "constant pressure (<dynamics mode='{ensemble}'>)",
    "no_pressure": "write <dynamics mode='nvt'>",
    "beads": "path integrals (nbeads='{beads}')",
    "contraction": "<force nbeads='{teacher_beads}'>",
    "no_contraction": "leave nbeads of <force> out",
    "held": "<fixatoms>",
    "device_steps": "<device_steps> {device_steps}",
    "no_device_steps": "remove <device_steps>",
    "one_device_step": "write <device_steps> 1",
    "hydrogen_friction": "<hydrogen_friction>",
    "no_hydrogen_friction": "remove <hydrogen_friction>",
    "constrained": "<constrain>",
    "not_constrained": "remove <constrain>",
    "white_noise": "write <thermostat mode='langevin'>",
    "on_hole": "<on_hole> {on_hole}",
    "no_on_hole": "remove <on_hole>",
    "no_student": "no student",
    "shorter_inner": "write <nmts> [1, n] with n of at least 2",
    "natural_masses": "write natural masses into the start, as `mts prepare --beads` does",
    "exchange": "<smotion mode='remd'>",
    "kept_velocities": "<velocities> of a file",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One system of a run; what is not known is None.

    Attributes
    ----------
    words : mapping of str to str
        How the user says things, `OPTIONS` or `TAGS`.
    ensemble : str
        ``nve``, ``nvt``, ``npt`` or ``nst``.
    pressure : float or None
        Of the options, bar.
    ours : bool
        Whether the splitting is that of the plugin, or i-PI's own.
    thermostat, barostat : str
        Their modes in i-PI; empty for none.
    student : bool
        Whether there are two models.
    levels, n_inner : int
        Force levels, and inner steps in an outer one.
    beads, teacher_beads, difference_beads, most_beads : int
        Of the ring polymer, those with a force of the teacher, with one of teacher - student, and
        with any.
    periodic : bool or None
        Whether the models see the cell.
    held : bool
        Whether atoms are held in place.
    hydrogens : int or None
        How many of them move.
    heavy_hydrogens : bool
        Whether mass has been moved to them.
    hydrogen_friction : bool
        Whether they have a friction of their own.
    constrained : bool
        Whether distances are held.
    pressures : bool
        Whether pressures, stresses or virials are written.
    on_hole : str
        ``log``, ``stop`` or ``shorten``.
    mode : str
        How i-PI talks to the student's driver.
    both_in_one : bool
        Whether that driver has the teacher, too.
    device_steps : int
        Outer steps that it takes at a time.
    bias : bool
        Whether the ensemble has one.
    replicas : tuple of str
        What tells replicas of an exchange apart; empty without an exchange.
    threads : bool
        Whether i-PI steps several systems at once.
    kept_velocities : bool
        Whether the start's velocities are used, instead of thermal ones.
    teacher_virial, student_virial : bool or None
        Whether the models give one.
    """

    words: Mapping[str, str] = field(default_factory=lambda: TAGS)
    ensemble: str = "nvt"
    pressure: float | None = None
    ours: bool = True
    thermostat: str = "langevin"
    barostat: str = ""
    student: bool = True
    levels: int = 2
    n_inner: int = 2
    beads: int = 1
    teacher_beads: int = 1
    difference_beads: int = 1
    most_beads: int = 1
    periodic: bool | None = None
    held: bool = False
    hydrogens: int | None = None
    heavy_hydrogens: bool = False
    hydrogen_friction: bool = False
    constrained: bool = False
    pressures: bool = False
    on_hole: str = "log"
    mode: str = "unix"
    both_in_one: bool = False
    device_steps: int = 0
    bias: bool = False
    replicas: tuple[str, ...] = ()
    threads: bool = False
    kept_velocities: bool = False
    teacher_virial: bool | None = None
    student_virial: bool | None = None

    @property
    def constant_pressure(self) -> bool:
        """Whether the cell changes."""
        return self.ensemble in CONSTANT_PRESSURE

    @classmethod
    def of_input(
        cls,
        root: ET.Element,
        system: ET.Element,
        systems: Sequence[ET.Element],
        *,
        weights: Mapping[str, list[float]],
        **known: bool | int | str | None,
    ) -> Iterator[Asked]:
        """Read every ``<dynamics>`` of a ``<system>``, of an input or a checkpoint.

        Parameters
        ----------
        root, system, systems : Element
            The input, one of its systems, and all of them.
        weights : mapping of str to list of float
            Of its force fields, added up.
        **known
            What its start, its drivers and their models tell.
        """
        exchange = root.find("smotion[@mode='remd']") is not None
        replicas = tuple(map(_identity, systems)) if exchange else ()
        initial = system.find("initialize")
        beads = initial if initial is not None else system.find("beads")
        nbeads = int(beads.get("nbeads", 1)) if beads is not None else 1
        teacher, difference, most = _beads_of_levels(system, nbeads)
        for dynamics in system.iter("dynamics"):
            nmts = [int(n) for n in re.findall(r"\d+", dynamics.findtext("nmts") or "")] or [1]
            yield cls(
                **known,  # type: ignore[arg-type]
                ensemble=dynamics.get("mode", "nve").strip(),
                ours=dynamics.get("splitting", "obabo").strip() == SPLITTING,
                thermostat=_mode(dynamics.find("thermostat")),
                barostat=_mode(dynamics.find("barostat")),
                student=any(w[-2:] == [-1, 1] for w in weights.values()),
                levels=max((len(w) for w in weights.values()), default=1),
                n_inner=math.prod(nmts),
                beads=nbeads,
                teacher_beads=teacher,
                difference_beads=difference,
                most_beads=most,
                held=any(
                    re.search(r"\d", node.text or "")
                    for tag in ("fixatoms", "fixatoms_dof")
                    for node in system.iter(tag)
                ),
                hydrogen_friction=float(dynamics.findtext("hydrogen_friction") or 0) != 0,
                constrained=bool((dynamics.findtext("constrain") or "").strip()),
                pressures=any(
                    re.search(r"\b(pressure|k?stress|virial)", node.text or "")
                    for node in root.iterfind("output/*")
                ),
                on_hole=(dynamics.findtext("on_hole") or "log").strip(),
                device_steps=int(dynamics.findtext("device_steps") or 0),
                bias=system.find("ensemble/bias/force") is not None,
                replicas=replicas,
                threads=root.get("threading", "True").strip().lower() == "true",
            )


def _mode(node: ET.Element | None) -> str:
    """Mode of a thermostat or barostat; empty where it does nothing, as checkpoints write it."""
    mode = "" if node is None else node.get("mode", "").strip()
    return "" if mode == "dummy" else mode


def _beads_of_levels(system: ET.Element, nbeads: int) -> tuple[int, int, int]:
    """Beads with a force of the teacher, with one of teacher - student, and with any."""
    teacher, difference, every = nbeads, nbeads, [0]
    for force in system.iterfind("forces/force"):
        first = float((force.findtext("mts_weights") or "1").strip("[] \n\t").split(",")[0])
        on = int(force.get("nbeads", 0)) or nbeads
        teacher = on if first == 1 else teacher
        difference = on if first == -1 else difference
        every.append(on)
    return teacher, difference, max(every)


def _identity(system: ET.Element) -> str:
    """Return what an exchange could tell two replicas apart by."""
    parts = [ET.tostring(part, encoding="unicode") for part in system.iterfind("ensemble")]
    parts += [ET.tostring(part, encoding="unicode") for part in system.iterfind("forces")]
    return re.sub(r"\s+", "", "".join(parts))
