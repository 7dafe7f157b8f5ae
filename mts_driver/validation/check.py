"""Is a student good for a system? Teacher and student run it together, and the run is judged."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from integrators.state import MDState, Potential
from mts_driver.progress import Progress
from mts_driver.simulation.dynamics import DynamicsSettings, advance, friction_of, thermal_start
from mts_driver.structures.files import fingerprint
from mts_driver.structures.held_bonds import held_pairs
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.thermostats import HIGH_FRICTION_PER_PS, HIGH_PASS_NAME
from mts_driver.validation.check_observers import CheckRun
from mts_driver.validation.check_start import averages_held, settled, thermal_start_of
from mts_driver.validation.check_state import SAVE_EVERY_S, StateFile
from mts_driver.validation.held import Held

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class CheckSettings:
    """What is checked, and how; part of the report.

    Attributes
    ----------
    student, teacher : str
        What the user calls them; the teacher may be "none".
    student_sha256 : str
        Of the student's file.
    """

    student: str
    student_sha256: str
    teacher: str
    picoseconds: float
    outer_fs: float
    inner_fs: float
    hydrogen_mass_Da: float
    temperature_K: float
    friction_per_ps: float
    hydrogen_friction_per_ps: float
    equilibrate_ps: float
    seed: int
    thermostat: str = "langevin"
    constrain_hydrogens: bool = False
    rigid_water: bool = False
    high_friction_per_ps: float = HIGH_FRICTION_PER_PS

    @property
    def constrained(self) -> bool:
        """Whether anything is held."""
        return self.constrain_hydrogens or self.rigid_water

    def protocol(self, numbers: Sequence[int]) -> DynamicsSettings:
        """Return how atoms with these atomic numbers are run.

        Raises
        ------
        UserError
            See `DynamicsSettings`.
        """
        high_pass = self.thermostat == "high-pass"
        return DynamicsSettings(
            picoseconds=self.picoseconds,
            outer_fs=self.outer_fs,
            inner_fs=self.inner_fs,
            temperature_K=self.temperature_K,
            friction_per_ps=self.friction_per_ps
            if high_pass
            else friction_of(numbers, self.friction_per_ps, self.hydrogen_friction_per_ps),
            high_pass=high_pass,
            high_friction_per_ps=self.high_friction_per_ps,
            hydrogen_mass_Da=self.hydrogen_mass_Da,
            seed=self.seed,
        )


def check(
    atoms: Atoms,
    teacher: Potential | None,
    student: Potential,
    settings: CheckSettings,
    *,
    work: Path,
    report: Progress,
    force: bool = False,
    save_every_s: float = SAVE_EVERY_S,
) -> dict[str, Any]:
    """Relax and equilibrate, run the student beside its teacher, and report what showed.

    A check that was killed continues from the state in ``work``, on the same trajectory.

    Parameters
    ----------
    atoms : ase.Atoms
        The system; its bonds are those that should last.
    teacher, student : Potential
        Bound to these atoms; without a teacher only bonds and temperatures are watched.
    work : Path
        Folder of the state, ``holes.extxyz`` and ``hard.extxyz``.
    report : callable
        ``report(stage, done, total)``.
    force : bool
        Whether the state of another check in ``work`` may be replaced.
    save_every_s : float
        Time between two writes of the state, s.

    Returns
    -------
    dict
        JSON-able: the settings and the findings; None for what could not be measured.

    Raises
    ------
    UserError
        If a setting does not make sense, or ``work`` holds the state of another check.
    """
    protocol = settings.protocol(atoms.numbers)
    cold = thermal_start(atoms, protocol)  # finds masses that cannot be repartitioned
    rigid = settings.rigid_water
    if settings.constrained:
        held_pairs(atoms, rigid_water=rigid)  # finds what cannot be held
    work.mkdir(parents=True, exist_ok=True)
    file = StateFile(
        work / STATE_FILE,
        {
            **asdict(settings),
            "structure_sha256": fingerprint(atoms),
            **({"noise": HIGH_PASS_NAME} if settings.thermostat == "high-pass" else {}),
        },
        every_s=save_every_s,
        force=force,
    )
    saved = file.load()
    start: MDState | None
    held: Held | None = None
    if saved is None:
        hold = None
        if settings.constrained:
            hold = averages_held(atoms, student, protocol, rigid_water=rigid, report=report)
        there, held = settled(
            *(atoms, teacher, student, protocol, settings.equilibrate_ps, report),
            hold=hold,
        )
        start = None if there is None else thermal_start_of(there, protocol, held)
    else:
        if settings.constrained:
            masses_Da = repartitioned_masses(atoms, settings.hydrogen_mass_Da)
            held = Held(atoms, masses_Da, saved["lengths_A"], rigid)
        start = replace(
            cold,
            **{key: saved[key] for key in ("step", "positions", "velocities", "heat")},
            clip_events=torch.tensor(saved["clip_events"]),
            extra=saved.get("extra"),
        )
    run = CheckRun(atoms, protocol, file, saved, report, labelled=teacher is not None, held=held)
    blown_up_in = "equilibration" if start is None else None
    if start is not None:
        end = advance(
            *(start, teacher, student, protocol),
            look=run.look,
            on_op=run.tally.on_op,
            constraints=None if held is None else held.constraints,
        )
        run.close(blown_up=end is None)
        blown_up_in = "dynamics" if end is None else None
    found = {
        **asdict(settings),
        "atoms": len(atoms),
        "bond_lengths_A": held and dict(held.lengths_A),
        "blown_up": blown_up_in is not None,
        "blown_up_in": blown_up_in,
        **run.results(),
        "threads": torch.get_num_threads(),
    }
    return {key: _finite(value) for key, value in found.items()}


def finish(work: Path) -> None:
    """Remove the state of a check whose report is written, and the folder if nothing is in it."""
    (work / STATE_FILE).unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
