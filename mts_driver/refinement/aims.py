"""From what a user asks a model to show, to goals."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from integrators.levels import Levels, SingleLevel, TwoLevel
from integrators.splitting import Splitting, baoab, respa_baoab
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.load import spec_for
from mts_driver.progress import Progress
from mts_driver.refinement.averages import averages
from mts_driver.refinement.gas_phase import gas_energy_eV
from mts_driver.refinement.goals import choices
from mts_driver.refinement.goals.goal import Goal, Goals, Observable
from mts_driver.refinement.goals.measured import WATER, read_water_rdf
from mts_driver.refinement.models import Trainable
from mts_driver.refinement.problem import Problem
from mts_driver.refinement.settings import REFERENCES, RefineSettings
from mts_driver.refinement.system import System
from mts_driver.structures.tensors import cell_of

LEAST_ERROR = {"g(r)": 0.03, "lengths": 0.3, "spectrum": 0.02}
"""By which a curve may always be off, in its units, lest a smooth tail counts more than a peak."""
VAPORISATION_ERROR_KJ_MOL = 3.0
ELASTIC_ERROR, STRESS_ERROR_GPA = 0.02, 1.0
"""How far off elastic constants may be, of themselves, and the stress."""
TEACHER_OUTER_FS, IN_TIME_OUTER_FS = 4.0, 2.0
"""Steps of a teacher, with hydrogens of their own mass: for averages, and where time counts."""


@dataclass(frozen=True)
class Aims:
    """What is asked for; see `mts_driver.refinement.refine.refine`."""

    teacher: str | None = None
    fit_to: tuple[str, ...] = REFERENCES
    rdf_file: Path | None = None
    vaporisation_kJ_mol: float | None = None
    diffusion: tuple[tuple[str, float], ...] = ()
    elastic_GPa: tuple[float, ...] = ()

    def check(self, system: System) -> None:
        """Refuse what cannot be, before the work.

        Raises
        ------
        UserError
            If nothing is asked for, or something that the system has not.
        """
        if self.teacher is None and not (
            self.rdf_file
            or self.vaporisation_kJ_mol is not None
            or self.diffusion
            or self.elastic_GPa
        ):
            raise UserError(
                "there is nothing to fit to: give a teacher, measured g(r) (rdf_file), "
                "vaporisation_kJ_mol, diffusion or elastic_GPa."
            )
        if self.teacher is not None and not self.fit_to:
            raise UserError(f"fit_to is empty: choose of {', '.join(REFERENCES)}.")
        for name in self.fit_to:
            if name not in REFERENCES:
                raise UserError(f"fit_to={name!r} is not known: use {', '.join(REFERENCES)}.")
        if self.rdf_file is not None:
            read_water_rdf(self.rdf_file)
            system.of_formula("H2O")
        for formula, _ in self.diffusion:
            system.of_formula(formula)
        if self.elastic_GPa and (len(self.elastic_GPa) != 3 or min(self.elastic_GPa) <= 0):
            raise UserError(
                f"elastic_GPa={self.elastic_GPa}: give C11, C12 and C44 of a cubic crystal, GPa."
            )

    def identity(self) -> dict[str, Any]:
        """Return what a refinement depends on, JSON-able."""
        found = dataclasses.asdict(self)
        if self.rdf_file is not None:
            found["rdf_file"] = hashlib.sha256(self.rdf_file.read_bytes()).hexdigest()
        return found


def goals_of(
    aims: Aims,
    system: System,
    opened: Trainable,
    settings: RefineSettings,
    *,
    keep: Path,
    report: Progress,
) -> Goals:
    """Return all goals; a teacher's trajectory is run for its own, and kept in a file."""
    in_time = bool(aims.diffusion) or (aims.teacher is not None and "spectrum" in aims.fit_to)
    _, _, thinned = settings.snapshots(in_time=in_time)
    found: list[Goal] = []
    if aims.rdf_file is not None:
        found += _measured_rdf(aims.rdf_file, system, thinned)
    if aims.vaporisation_kJ_mol is not None:
        found.append(_vaporisation(aims.vaporisation_kJ_mol, system, opened, settings, thinned))
    for formula, value in aims.diffusion:
        members = system.of_formula(formula)
        seen = choices.diffusion(
            *(members.flatten(), system.molecules.tolist(), formula), window_fs=settings.window_fs
        )
        found.append(_measured(seen, value))
    if aims.elastic_GPa:
        found.append(_elastic(aims.elastic_GPa, system, opened))
    if aims.teacher is not None:
        looked_at = _observables(aims, system, settings, thinned)
        found += _of_teacher(aims.teacher, looked_at, system, opened, settings, keep, report)
    return Goals(found)


def _measured_rdf(path: Path, system: System, thinned: int) -> list[Goal]:
    measured, r = read_water_rdf(path), system.radii_A()
    goals = []
    for seen in system.rdfs(thinned=thinned):
        pair = seen.name.removeprefix("g(r) ")
        if pair in WATER:
            target = measured[pair].smoothed(r, width_A=choices.RDF_WIDTH_A)
            least = LEAST_ERROR["g(r)"]
            goals.append(Goal(seen, target.g, target.error, least, source=path.stem))
    return goals


def _vaporisation(
    value: float, system: System, opened: Trainable, settings: RefineSettings, thinned: int
) -> Goal:
    if opened.gas_phase is None:
        raise UserError(
            "vaporisation_kJ_mol can be fitted by a classical model only: of a student, energies "
            "of molecules alone are not known."
        )
    gas_eV = gas_energy_eV(opened.gas_phase, system, settings)
    seen = choices.vaporisation(
        opened.energy,
        torch.tensor(gas_eV, dtype=torch.float64),
        molecules=len(set(system.molecules.tolist())),
        temperature_K=settings.temperature_K,
        thinned=thinned,
    )
    return _measured(seen, value, VAPORISATION_ERROR_KJ_MOL)


def _measured(seen: Observable, value: float, least_error: float = 0.0) -> Goal:
    """Return a number as a goal, without an uncertainty of its own."""
    target = torch.tensor(value, dtype=torch.float64)
    return Goal(seen, target, torch.zeros_like(target), least_error, source="measured")


def _elastic(values: tuple[float, ...], system: System, opened: Trainable) -> Goal:
    seen = choices.elasticity(
        opened.energy, torch.tensor(system.atoms.positions), cell_of(system.atoms)
    )
    target = torch.tensor([*values, 0.0], dtype=torch.float64)
    error = torch.tensor([*(ELASTIC_ERROR * v for v in values), STRESS_ERROR_GPA]).double()
    return Goal(seen, target, error, source="measured")


def _observables(
    aims: Aims, system: System, settings: RefineSettings, thinned: int
) -> list[Observable]:
    found: list[Observable] = []
    if "rdf" in aims.fit_to:
        found += system.rdfs(thinned=thinned)
    if "bonds" in aims.fit_to:
        found += system.bond_lengths(thinned=thinned)
    if "spectrum" in aims.fit_to:
        # a teacher's snapshots are whole steps of its own apart
        spacing_fs = IN_TIME_OUTER_FS * math.ceil(settings.follow_fs / IN_TIME_OUTER_FS)
        found += system.spectra(lag_fs=settings.lag_fs, spacing_fs=spacing_fs)
    if not found:
        raise UserError(
            f"fit_to={','.join(aims.fit_to)}: the structure has nothing of it; add rdf."
        )
    return found


def _of_teacher(
    teacher: str,
    observables: list[Observable],
    system: System,
    opened: Trainable,
    settings: RefineSettings,
    keep: Path,
    report: Progress,
) -> list[Goal]:
    """Run the teacher and take what it shows for the target."""
    numbers = system.atoms.numbers.tolist()
    slow = load_potential(spec_for(teacher, system.atoms), numbers)
    levels: Levels = SingleLevel(slow)
    splitting: Splitting = baoab()
    outer_fs = settings.timestep_fs
    in_time = any(one.in_time for one in observables)
    longest_fs = IN_TIME_OUTER_FS if in_time else TEACHER_OUTER_FS
    if opened.as_it_was is not None and settings.timestep_fs < longest_fs:
        inner = round(longest_fs / settings.timestep_fs)
        outer_fs = inner * settings.timestep_fs
        levels, splitting = TwoLevel(slow, opened.as_it_was()), respa_baoab(inner)
    run = dataclasses.replace(settings, timestep_fs=outer_fs)
    steps, snapshots, _ = run.snapshots(in_time=in_time)
    problem = Problem(
        levels=levels,
        splitting=splitting,
        parameters={},
        loss=lambda seen: seen.positions.sum(),
        steps=steps,
        snapshots=snapshots,
        timestep_fs=outer_fs,
        bath=settings.bath,
        settle_steps=run.steps_of(4000.0 * settings.settle_ps),
    )

    def on_block(done: int, of: int) -> None:
        report("the teacher", done, of)

    found = averages(
        *(problem, observables, system.start(settings)),
        blocks=settings.blocks,
        seed=settings.seed + 2,
        keep=keep,
        on_block=on_block,
    )
    return [
        Goal(
            one,
            found.mean[one.name],
            found.error[one.name],
            LEAST_ERROR[one.name.split()[0]],
            source="teacher",
        )
        for one in observables
    ]
