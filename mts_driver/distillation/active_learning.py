"""Active learning: from the frames at which a student is wrong to a better student, in rounds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.distillation.active import frames_of_run
from mts_driver.distillation.distill import distill
from mts_driver.distillation.labels.kinds import Kind
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.rounds import MOST_ROUNDS, Rounds
from mts_driver.distillation.sampling.sample import fragment_radius_A
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.student_quality import inner_fs_of
from mts_driver.distillation.training.budget import FEWEST_MINUTES
from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.student.file import read_student
from mts_driver.potentials.student.potential import Student
from mts_driver.progress import Progress
from mts_driver.simulation.watched_run import Watched, run_and_watch

SHAKEN_COPIES, SHAKEN_A = 3, 0.03
"""Displaced copies that are labelled with every frame of a hole: a hole is more than a point."""
FRICTION_PER_PS, HYDROGEN_MASS_DA = 1.0, 4.0
ROUND_SHARE = 0.4
"""Training of a round, as a share of the first distillation's budget."""


def frames_to_learn(folder: Path) -> list[Atoms]:
    """Return the frames at which the student of a run was wrong, with displaced copies of each.

    Raises
    ------
    UserError
        If there is no run, or it left no frame to learn from.
    """
    frames = frames_of_run(folder)
    for atoms in frames:
        atoms.info["system"] = "start"
    return with_copies(frames, str(folder.resolve()))


def with_copies(frames: Sequence[Atoms], origin: str) -> list[Atoms]:
    """Return every frame and displaced copies of it, without labels; ``origin`` names them."""
    out = []
    for atoms in frames:
        rng = np.random.default_rng([int(atoms.info["step"]), len(atoms)])
        for k in range(1 + SHAKEN_COPIES):
            copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            copy.positions += min(k, 1) * SHAKEN_A * rng.normal(size=copy.positions.shape)
            copy.info["system"] = atoms.info["system"]
            copy.info["origin"] = f"{origin}:{atoms.info['step']}:{k}"
            out.append(copy)
    return out


def unfinished(work: Path, output: Path) -> bool:
    """Tell whether rounds have begun that a kill has ended: the same command goes on with them."""
    return not Rounds(work, output).ended


def until_clean(
    systems: Sequence[Atoms],
    settings: DistillationSettings,
    *,
    picoseconds: float,
    output: Path,
    work: Path,
    command: str,
    report: Progress,
    extra: Sequence[Atoms] = (),
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Distil, run each system with teacher and student, learn from the holes, until there is none.

    Arguments are those of `mts_driver.distillation.distill.distill`; ``picoseconds`` is the length
    of each run. The runs start from the last held-out frame of every system. Rounds are kept in
    ``work``, and those of a killed call are not made again.

    Returns
    -------
    dict
        The report on the last student, with ``active_rounds``: a list of what every round found.

    Raises
    ------
    UserError
        If there are holes after six rounds, in which case the last student and all labels are
        kept; or if a system is too big for the teacher.
    """
    if any(fragment_radius_A(atoms, settings) for atoms in systems):
        raise UserError(
            "--until-clean-ps runs the teacher on the whole system, but this one is cut into "
            "fragments: run the student alone with `mts check --teacher none`."
        )
    everything: dict[str, Any] = {
        "output": output,
        "work": work,
        "command": command,
        "report": report,
        "json_file": json_file,
    }
    rounds = Rounds(work, output)
    if rounds.ended:
        rounds.begin()
    if not rounds.distilled:
        summary = distill(systems, settings, extra=extra, **everything)
        rounds.note(distilled=True)
    else:
        summary = read_json(json_file or output.with_suffix(".json"), remedy="distil again.")
    for number in range(len(rounds.found) + 1, MOST_ROUNDS + 1):
        student = rounds.keep(output, number)
        where = (student, work, picoseconds, number, report)
        found, holes = _look_for_holes(systems, settings, *where)
        if not holes:
            summary["active_rounds"] = [*rounds.found, found]
            write_json(json_file or output.with_suffix(".json"), summary)
            rounds.note(ended=True)
            return summary
        # the sampling is done, so all of the round goes into labels of holes and training
        summary = distill(
            systems,
            replace(_for_a_round(settings), base=str(student)),
            extra=holes,
            sampled=True,
            checkpoint=rounds.file(number, "training.pt"),
            **everything,
        )
        rounds.note(found=[*rounds.found, found])
    rounds.note(ended=True)
    more = "--minutes" if settings.updates is None else "--updates"
    raise UserError(
        f"the student still has holes after {MOST_ROUNDS} rounds; {output} and the labels in "
        f"'{work}' are kept. Run the command again with --force and more {more}, or a smaller "
        f"--outer-fs than {settings.outer_fs:g}."
    )


def _for_a_round(settings: DistillationSettings) -> DistillationSettings:
    if settings.updates is not None:
        return replace(settings, updates=max(1, round(ROUND_SHARE * settings.updates)))
    assert settings.minutes is not None
    return replace(settings, minutes=max(FEWEST_MINUTES, ROUND_SHARE * settings.minutes))


def _look_for_holes(
    systems: Sequence[Atoms],
    settings: DistillationSettings,
    student: Path,
    work: Path,
    picoseconds: float,
    number: int,
    report: Progress,
) -> tuple[dict[str, Any], list[Atoms]]:
    """Return what the student shows on every system, and the frames to learn from."""
    labels = LabelFile(work / "labels.extxyz", teacher=settings.teacher)
    labeller = Labeller(settings.teacher, labels, device=settings.device)
    model, _ = read_student(student)
    found, holes = {}, []
    for atoms in systems:
        name = str(atoms.info["system"])
        start = labels.of(Kind.MD, name)[-1]
        watched = _watch(start, model, labeller, settings, picoseconds, number, report)
        found[name] = {
            "clean_ps": watched.clean_ps,
            "blown_up": watched.blown_up,
            "max_force_difference_eV_A": watched.max_force_difference_eV_A,
        }
        for frame in watched.frames:
            frame.info["system"] = name
        if watched.blown_up or watched.clean_ps < picoseconds - 1e-9:
            holes += with_copies(watched.frames, f"round {number}")
    return found, holes


def _watch(
    start: Atoms,
    model: Any,
    labeller: Labeller,
    settings: DistillationSettings,
    picoseconds: float,
    seed: int,
    report: Progress,
) -> Watched:
    return run_and_watch(
        start,
        labeller.teacher(start),
        Student(model, start.numbers),
        picoseconds=picoseconds,
        outer_fs=settings.outer_fs,
        inner_fs=inner_fs_of(settings.outer_fs),
        temperature_K=settings.temperature_K,
        friction_per_ps=FRICTION_PER_PS,
        hydrogen_mass_Da=HYDROGEN_MASS_DA,
        seed=seed,
        report=report,
    )
