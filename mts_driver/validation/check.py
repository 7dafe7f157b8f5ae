"""Is a student good for a system? Teacher and student run it together, and the run is judged."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from integrators.state import MDState, Potential
from mts_driver.progress import Progress
from mts_driver.simulation.dynamics import DynamicsSettings, advance, friction_of, thermal_start
from mts_driver.simulation.equilibrate import EQUILIBRATION_FRICTION_PER_PS
from mts_driver.simulation.relax import relax
from mts_driver.structures.files import fingerprint
from mts_driver.validation.check_observers import CheckRun
from mts_driver.validation.check_state import SAVE_EVERY_S, StateFile

STATE_FILE = "state.pt"
RELAX_STEPS = 200
SETTLING_SHARE, LONGEST_SETTLING_PS = 0.2, 1.0
"""The liquid that a student has equilibrated gives off heat when the teacher joins. It does so with
strong friction, for so long in proportion to the run, before anything is measured."""


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
    work.mkdir(parents=True, exist_ok=True)
    file = StateFile(
        work / STATE_FILE,
        {**asdict(settings), "structure_sha256": fingerprint(atoms)},
        every_s=save_every_s,
        force=force,
    )
    saved = file.load()
    run = CheckRun(atoms, protocol, file, saved, report, labelled=teacher is not None)
    start: MDState | None
    if saved is None:
        settled = _settled(atoms, teacher, student, protocol, settings.equilibrate_ps, report)
        start = None if settled is None else thermal_start(settled, protocol)
    else:
        start = replace(
            cold,
            **{key: saved[key] for key in ("step", "positions", "velocities", "heat")},
            clip_events=torch.tensor(saved["clip_events"]),
            extra=saved.get("extra"),
        )
    blown_up_in = "equilibration" if start is None else None
    if start is not None:
        end = advance(start, teacher, student, protocol, look=run.look, on_op=run.tally.on_op)
        run.close(blown_up=end is None)
        blown_up_in = "dynamics" if end is None else None
    found = {
        **asdict(settings),
        "atoms": len(atoms),
        "blown_up": blown_up_in is not None,
        "blown_up_in": blown_up_in,
        **run.results(),
        "threads": torch.get_num_threads(),
    }
    return {key: _finite(value) for key, value in found.items()}


def _settled(
    atoms: Atoms,
    teacher: Potential | None,
    student: Potential,
    protocol: DynamicsSettings,
    picoseconds: float,
    report: Progress,
) -> Atoms | None:
    """Relaxed and equilibrated with the student, then beside the teacher; None if that blew up."""
    if picoseconds == 0:
        return atoms
    relaxed, force = relax(
        atoms,
        student,
        steps=RELAX_STEPS,
        report=lambda step, force: report(f"relaxation, {force:.1f} eV/Å", step, RELAX_STEPS),
    )
    if not math.isfinite(force):
        return None
    settling_ps = min(SETTLING_SHARE * protocol.picoseconds, LONGEST_SETTLING_PS)
    stages: list[tuple[str, Potential | None, float]] = [
        ("equilibration with the student", None, picoseconds)
    ]
    if teacher is not None and 1e3 * settling_ps >= protocol.outer_fs:
        stages.append(("settling beside the teacher", teacher, settling_ps))
    for number, (stage, slow, length_ps) in enumerate(stages, start=1):
        gentle = replace(
            protocol,
            picoseconds=length_ps,
            friction_per_ps=EQUILIBRATION_FRICTION_PER_PS,
            high_pass=False,
            seed=protocol.seed + number,
        )
        tell = partial(_tell, report, stage, gentle.steps)
        end = advance(thermal_start(relaxed, gentle), slow, student, gentle, look=tell)
        if end is None:
            return None
        relaxed.positions = end.positions.numpy()
    return relaxed


def _tell(report: Progress, stage: str, steps: int, state: MDState) -> None:
    report(stage, state.step, steps)


def finish(work: Path) -> None:
    """Remove the state of a check whose report is written, and the folder if nothing is in it."""
    (work / STATE_FILE).unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
