"""Choices that cannot work together, as data: refused before any work, by whatever started it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from mts_driver.errors import UserError
from mts_driver.runs.input.asked import OPTIONS, Asked

STOCHASTIC_CELL = "stochastic-rescaling"
"""i-PI's barostat that needs the force of all levels at every inner step."""


@dataclass(frozen=True)
class Refused:
    """A combination that is refused.

    Attributes
    ----------
    name : str
        For tests and lists.
    applies : callable
        Whether a run asks for it; what is not known yet is no reason.
    message : str
        With the user's own words, and a remedy.
    """

    name: str
    applies: Callable[[Asked], bool]
    message: str


REFUSED = (
    Refused(
        "constant pressure, isolated system",
        lambda a: a.constant_pressure and a.periodic is False,
        "{pressure} for an isolated system, which has no volume that a pressure could act on: "
        "{no_pressure}, or give a periodic cell.",
    ),
    Refused(
        "constant pressure, held atoms",
        lambda a: a.constant_pressure and a.held,
        "{pressure} with {held}: every change of the cell would move them; {no_pressure}, or let "
        "all atoms go.",
    ),
    Refused(
        "constant pressure, teacher without a virial",
        lambda a: a.constant_pressure and a.teacher_virial is False,
        "{pressure} with a teacher that gives no virial (stress): nothing would hold against the "
        "pressure; {no_pressure}, or use a model with a stress.",
    ),
    Refused(
        "constant pressure, student without a virial",
        lambda a: a.constant_pressure and a.student_virial is False,
        "{pressure} with a student that gives no virial (of direct forces, or without a stress): "
        "{no_pressure}, or use a conservative student.",
    ),
    Refused(
        "constant pressure without a barostat",
        lambda a: a.constant_pressure and not a.barostat,
        "{pressure} without a <barostat>: add one, or {no_pressure}.",
    ),
    Refused(
        "constant volume, barostat",
        lambda a: a.ensemble in ("nve", "nvt") and bool(a.barostat),
        "<dynamics mode='{ensemble}'> with a <barostat>, which would do nothing: write mode='npt', "
        "or remove it.",
    ),
    Refused(
        "constant energy, thermostat",
        lambda a: a.ensemble == "nve" and bool(a.thermostat),
        "<dynamics mode='nve'> with a <thermostat>, which would do nothing: write mode='nvt', or "
        "remove it.",
    ),
    Refused(
        "inner steps, stochastic cell rescaling",
        lambda a: a.ours and a.barostat == STOCHASTIC_CELL,
        "<barostat mode='stochastic-rescaling'> would call the teacher at every inner step: use "
        "'isotropic', 'anisotropic' or 'flexible'.",
    ),
    Refused(
        "path integrals, heavy hydrogens",
        lambda a: a.beads > 1 and a.heavy_hydrogens,
        "{beads} with mass moved to hydrogens: in path integrals the mass of hydrogens is "
        "physics; {natural_masses}.",
    ),
    Refused(
        "contraction, no student",
        lambda a: a.ours and a.most_beads < a.beads and not a.student,
        "{contraction} with {no_student}: contraction needs a student on all {on_all} beads; "
        "{no_contraction}.",
    ),
    Refused(
        "contraction of the teacher alone",
        lambda a: a.ours and a.student and a.teacher_beads != a.difference_beads,
        "the teacher is on {teacher_beads} beads and - student on {difference_beads}: contraction "
        "needs their difference on the same beads and the student on all; write a <force "
        "nbeads='{teacher_beads}'> of the student with <mts_weights> [-1, 0], and one on all beads "
        "with [0, 1].",
    ),
    Refused(
        "hydrogen friction, constant energy",
        lambda a: a.hydrogen_friction and a.ensemble == "nve",
        "{hydrogen_friction} is for ensembles with a thermostat, not for nve: "
        "{no_hydrogen_friction}, or write mode='nvt'.",
    ),
    Refused(
        "hydrogen friction, no hydrogens",
        lambda a: a.hydrogen_friction and a.hydrogens == 0,
        "{hydrogen_friction} without a hydrogen that moves: {no_hydrogen_friction}.",
    ),
    Refused(
        "hydrogen friction, coloured noise",
        lambda a: a.ours and a.hydrogen_friction and a.thermostat in ("gle", "nm_gle", "nm_gle_g"),
        "{hydrogen_friction} with coloured noise, which has a friction for every frequency: "
        "{no_hydrogen_friction}, or {white_noise}.",
    ),
    Refused(
        "fixed bonds, path integrals",
        lambda a: a.constrained and a.beads > 1,
        "{constrained} with {beads}: nuclei that are quantum have no bonds of a fixed length; "
        "{not_constrained}.",
    ),
    Refused(
        "fixed bonds, constant pressure",
        lambda a: a.constrained and a.constant_pressure,
        "{constrained} with {pressure}: every change of the cell would change their lengths; "
        "{not_constrained}, or {no_pressure}.",
    ),
    Refused(
        "fixed bonds, held atoms",
        lambda a: a.constrained and a.held,
        "{constrained} with {held}: i-PI cannot do both; {not_constrained}, or let all atoms go.",
    ),
    Refused(
        "fixed bonds, hydrogen friction",
        lambda a: a.constrained and a.hydrogen_friction,
        "{constrained} with {hydrogen_friction}: atoms whose distance is held must have one "
        "friction; {no_hydrogen_friction}.",
    ),
    Refused(
        "fixed bonds, another thermostat",
        lambda a: a.constrained and a.thermostat not in ("", "langevin", "svr", "gle"),
        "{constrained} with <thermostat mode='{thermostat}'>: velocities along bonds that are held "
        "would not stay as they must; {white_noise}, or {not_constrained}.",
    ),
    Refused(
        "fixed bonds, pressures",
        lambda a: a.constrained and a.pressures,
        "{constrained} with an <output> of pressures, stresses or virials, in which i-PI leaves "
        "out the forces that hold the distances: remove it, or {not_constrained}.",
    ),
    Refused(
        "fixed bonds, three levels",
        lambda a: a.constrained and a.levels > 2,
        "{constrained} with three levels: they are held with two; {not_constrained}.",
    ),
    Refused(
        "what to do about a student, no student",
        lambda a: a.ours and a.on_hole != "log" and not a.student,
        "{on_hole} with {no_student}, which could be wrong: {no_on_hole}.",
    ),
    Refused(
        "shortened outer step, one inner step",
        lambda a: a.ours and a.on_hole == "shorten" and a.levels == 2 and a.n_inner == 1,
        "{on_hole} with one inner step in an outer one, which cannot be shortened: "
        "{shorter_inner}, or {no_on_hole}.",
    ),
    Refused(
        "shortened outer step, three levels",
        lambda a: a.ours and a.on_hole == "shorten" and a.levels > 2,
        "{on_hole} with three levels, whose outer step cannot be shortened: {no_on_hole}.",
    ),
    Refused(
        "ZeroMQ, no student",
        # an input may well have a teacher over ZeroMQ, but these options make none
        lambda a: a.words is OPTIONS and a.mode == "zmq" and not a.student,
        "mode='zmq' with {no_student}: it hands inner steps to the student's driver; use "
        "mode='unix'.",
    ),
    Refused(
        "whole outer steps, no driver for them",
        lambda a: a.device_steps > 0 and not (a.mode == "zmq" and a.both_in_one and a.student),
        "{device_steps} without a driver over ZeroMQ that has teacher and student: give --mode zmq "
        "and a --student to `mts prepare`, or {no_device_steps}.",
    ),
    Refused(
        "whole outer steps, constant pressure",
        lambda a: a.device_steps > 0 and a.constant_pressure,
        "{device_steps} with {pressure}: whole outer steps in a driver are for constant volume; "
        "{no_device_steps}.",
    ),
    Refused(
        "whole outer steps, contraction",
        lambda a: a.device_steps > 0 and a.teacher_beads < a.beads,
        "{device_steps} with {contraction}: whole outer steps in a driver take the teacher on all "
        "beads; {no_device_steps}.",
    ),
    Refused(
        "whole outer steps, held atoms",
        lambda a: a.device_steps > 0 and a.held,
        "{device_steps} with {held}: a driver does not hold them; {no_device_steps}.",
    ),
    Refused(
        "several whole outer steps, exchange",
        lambda a: a.device_steps > 1 and bool(a.replicas),
        "{device_steps} with {exchange}: replicas draw from one generator, so that a driver can "
        "take one outer step at a time; {one_device_step}.",
    ),
    Refused(
        "whole outer steps, three levels",
        lambda a: a.device_steps > 0 and a.levels > 2,
        "{device_steps} with three levels: a driver has two; {no_device_steps}.",
    ),
    Refused(
        "whole outer steps, bias",
        lambda a: a.device_steps > 0 and a.bias,
        "{device_steps} with a <bias>, which a driver does not know: {no_device_steps}.",
    ),
    Refused(
        "whole outer steps, another thermostat",
        lambda a: (
            a.device_steps > 0
            and a.ensemble == "nvt"
            and a.thermostat not in (("pile_l",) if a.beads > 1 else ("langevin", "gle"))
        ),
        "{device_steps} with <thermostat mode='{thermostat}'>: a driver has 'langevin' and 'gle', "
        "and 'pile_l' for several beads; {no_device_steps}.",
    ),
    Refused(
        "velocities that are kept, path integrals",
        lambda a: a.kept_velocities and a.beads > 1,
        "{kept_velocities} with {beads}: all beads would move alike, and the ring polymers start "
        "cold inside: take thermal ones.",
    ),
    Refused(
        "velocities that are kept, exchange",
        lambda a: a.kept_velocities and bool(a.replicas),
        "{kept_velocities} with {exchange}: replicas of other temperatures would start with the "
        "same velocities: take thermal ones.",
    ),
    Refused(
        "exchange of equal replicas",
        lambda a: len(set(a.replicas)) < len(a.replicas),
        "{exchange} between replicas of the same temperature ({doubled}), which differ in nothing: "
        "give each one of its own.",
    ),
    Refused(
        "exchange of one replica",
        lambda a: len(a.replicas) == 1,
        "{exchange} with one <system>: there is nothing to exchange; add replicas, or remove it.",
    ),
    Refused(
        "exchange, threads",
        lambda a: bool(a.replicas) and a.threads,
        "{exchange} with replicas that step at the same time draws random numbers in any order, so "
        "that no run can be repeated or continued exactly: write <simulation threading='False'>.",
    ),
)


def check(asked: Asked) -> None:
    """Refuse the first combination of `REFUSED` that is asked for.

    Raises
    ------
    UserError
        With the remedy.
    """
    for refused in REFUSED:
        if refused.applies(asked):
            raise UserError(_said(refused.message, asked))


def _said(message: str, asked: Asked) -> str:
    values = asdict(asked)
    values |= {"pressure": asked.pressure or 0.0, "on_all": asked.beads}
    values["doubled"] = _doubled(asked.replicas)
    words = {name: text.format(**values) for name, text in asked.words.items()}
    return message.format(**{**values, **words})


def _doubled(replicas: tuple[str, ...]) -> str:
    found = next((one for one in replicas if replicas.count(one) > 1), "")
    return found if len(found) < 20 else "<ensemble>"
