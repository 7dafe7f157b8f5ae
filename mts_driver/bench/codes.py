"""One system through every code that our models work in: how fast they are, and whether they agree.

Each code takes multiple time steps of the same two models at 300 K with a friction of 1/ps and
hydrogens of 4 Da, one after the other and again, each time with other random numbers. Standard
errors are of block averages over all its trajectories. They assume trajectories longer than what
the averages forget, a picosecond and more: of a few dozen steps they are too small.

Temperatures of hydrogens and heavy atoms are those of the thermostat step, with the error of what
the thermostat exchanges in the time, the least that it can be. OpenMM does not tell them, and so
there is one of the ends of outer steps, too low for any code.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from mts_driver.analysis import rdf
from mts_driver.analysis.properties import read_properties
from mts_driver.analysis.trajectory import read_trajectory
from mts_driver.bench import codes_runs
from mts_driver.bench.codes_averages import Averages, Seen, differences
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import Variant, run_under_ipi
from mts_driver.bench.rounds import Run, in_turn, ratio, speed
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.structures.files import along_axes

HYDROGEN_MASS_DA = 4.0
STRIDE = 5
"""Outer steps between frames."""
DEFAULTS: dict[str, Any] = {"outer_fs": (6.0,), "inner_fs": 1.0, "ranks": (2,), "steps": None}
COLUMNS: Columns = {
    "code": ("code", ""),
    "s per ps": ("s_per_ps", ".2f"),
    "to first": ("time_to_first", ".2f"),
    "ps": ("ps", ".2f"),
    "T(H) K": ("temperature_H_K", ".1f"),
    "± H": ("temperature_H_stderr_K", ".1f"),
    "T(heavy) K": ("temperature_heavy_K", ".1f"),
    "± heavy": ("temperature_heavy_stderr_K", ".1f"),
    "T(ends) K": ("temperature_ends_K", ".1f"),
    "± ends": ("temperature_ends_stderr_K", ".1f"),
    "U − first meV/atom": ("potential_from_first_meV_atom", ".2f"),
    "± U": ("potential_stderr_meV_atom", ".2f"),
    "U off σ": ("potential_off_sigma", ".1f"),
    "max |Δg|": ("rdf_difference", ".3f"),
    "± g": ("rdf_difference_stderr", ".3f"),
    "g off σ": ("rdf_off_sigma", ".1f"),
    "clipped": ("clip_events", "d"),
    "max |ΔF| eV/Å": ("max_force_difference_eV_A", ".2f"),
}


def measure(settings: BenchSettings) -> Result:
    """Run all codes in turn, and compare what they average to."""
    atoms, _ = along_axes(settings.structure)
    outer_fs, first, rows = settings.the_outer_fs(), None, []
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        runs, left_out = in_turn(_codes(atoms, Path(folder), settings), settings)
        for label, found in runs.items():
            row = {"code": label, **speed(found, outer_fs), "left_out": left_out.get(label)}
            if found:
                averages = Averages.of(found, atoms, outer_fs=outer_fs)
                first = first or averages
                row |= averages.row() | differences(averages, first)
            rows.append(row)
    for row in rows:
        row["time_to_first"] = ratio(row["s_per_ps"], rows[0]["s_per_ps"])
    notes = [f"{label}: {reason}" for label, reason in left_out.items()]
    notes.append(
        "U and g(r) are compared with the first row; off σ: in standard errors of the difference, "
        "for g(r) the rms over distances"
    )
    if not rdf.available():
        notes.append("no g(r): pip install 'mts-driver[analysis]'")
    return Result("codes", environment(settings), rows, notes)


def _codes(atoms: Atoms, folder: Path, settings: BenchSettings) -> dict[str, Run]:
    """Return a run for every code, i-PI with sockets first."""
    steps = f"{settings.the_outer_fs():g}/{settings.inner_fs:g} fs"
    sockets = Variant(
        label=f"i-PI, unix sockets, {steps}",
        teacher=settings.teacher,
        student=settings.student,
        outer_fs=settings.the_outer_fs(),
        inner_fs=settings.inner_fs,
        hydrogen_mass=HYDROGEN_MASS_DA,
        device=settings.device,
        threads=settings.threads,
        stride=STRIDE,
    )
    n = sockets.protocol(1).n_inner  # time steps that do not fit are reported before anything runs
    start = folder / "start.extxyz"
    atoms.write(start)
    # no two trajectories have the same random numbers
    places = (folder / f"{k}.npz" for k in itertools.count())
    seeds = itertools.count(1)

    def under_ipi(variant: Variant) -> Run:
        def run(steps: int) -> dict[str, Any]:
            seeded, output = replace(variant, seed=next(seeds)), next(places)
            return run_under_ipi(atoms, seeded, steps, collect=partial(_collect, output))

        return run

    def fresh(function: Callable[..., dict[str, Any]]) -> Run:
        def run(steps: int) -> dict[str, Any]:
            output = str(next(places))
            found = call_fresh(
                function,
                threads=settings.threads,
                structure=str(start),
                teacher=settings.teacher,
                student=settings.student,
                outer_fs=sockets.outer_fs,
                n=n,
                hydrogen_mass_Da=HYDROGEN_MASS_DA,
                device=settings.device,
                seed=next(seeds),
                steps=steps,
                stride=STRIDE,
                output=output,
            )
            return {**found, "frames": output}

        return run

    found = {sockets.label: under_ipi(sockets)}
    for ranks in settings.ranks:
        label = f"i-PI, MPI drivers of {ranks} ranks, {steps}"
        found[label] = under_ipi(replace(sockets, label=label, ranks=ranks, threads=1))
    found[f"ASE, RespaBAOAB, {steps}"] = fresh(codes_runs.run_ase)
    found[f"OpenMM, add_forces, {steps}"] = fresh(codes_runs.run_openmm)
    found[f"mts_driver.simulate, {steps}"] = fresh(codes_runs.run_simulate)
    return found


def _collect(output: Path, folder: Path) -> dict[str, Any]:
    """Take what a run of i-PI has seen after its start out of its folder."""
    values = read_properties(folder / "simulation.out")
    frames = read_trajectory([folder / "simulation.pos_0.xyz"])
    _, chosen = rdf.choose_atoms(frames.symbols)
    energies = values["potential"][1:], values["kinetic_md"][1:]
    Seen(*energies, frames.positions[1:, chosen]).write(output)
    return {"frames": str(output)}
