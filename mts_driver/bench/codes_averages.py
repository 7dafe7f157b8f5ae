"""What trajectories of one code average to, and how far that is from those of another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.analysis import rdf
from mts_driver.analysis.statistics import (
    BlockAverage,
    block_average,
    canonical_error_K,
    difference_in_stderr,
)
from mts_driver.analysis.trajectory import Trajectory
from mts_driver.bench.ipi_runs import FRICTION_PER_PS
from mts_driver.units import BOLTZMANN_EV_K

LEFT_OUT = 0.2
"""Of the frames of a trajectory, at its start."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one trajectory shows, a value a frame.

    Attributes
    ----------
    potential_eV : array, shape (F,)
        Of the teacher.
    kinetic_eV : array, shape (F,)
        Of the velocities at the ends of outer steps.
    positions_A : array, shape (F, M, 3)
        Of the atoms that g(r) is of.
    """

    potential_eV: np.ndarray
    kinetic_eV: np.ndarray
    positions_A: np.ndarray

    def write(self, path: str | Path) -> None:
        """Write all of it."""
        np.savez(path, **vars(self))

    @classmethod
    def read(cls, path: str | Path) -> "Seen":
        """Read what `write` has written."""
        with np.load(path) as found:
            return cls(**{name: found[name] for name in found})

    def later(self) -> "Seen":
        """Leave out the start."""
        first = math.ceil(LEFT_OUT * len(self.potential_eV))
        return Seen(**{name: values[first:] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Averages:
    """Of all trajectories of a code.

    Attributes
    ----------
    potential_meV_atom, temperature_ends_K : BlockAverage
        Of the teacher's energy, and of the velocities at the ends of outer steps.
    g : RDF or None
        None without freud, or without two atoms to look at.
    groups : dict
        Temperatures at the thermostat step and their least standard errors, of those that the code
        tells.
    others : dict
        Numbers that need no average.
    """

    potential_meV_atom: BlockAverage
    temperature_ends_K: BlockAverage
    g: rdf.RDF | None
    groups: dict[str, float]
    others: dict[str, Any]

    @classmethod
    def of(cls, runs: Sequence[dict[str, Any]], atoms: Atoms, *, outer_fs: float) -> "Averages":
        """Average over runs, each with ``frames`` (a file of `Seen`) and what its code tells."""
        seen = [Seen.read(run["frames"]).later() for run in runs]
        potential, kinetic, positions = (
            np.concatenate([getattr(one, name) for one in seen])
            for name in ("potential_eV", "kinetic_eV", "positions_A")
        )
        ps = 1e-3 * outer_fs * sum(run["steps"] for run in runs)
        degrees = 3 * (len(atoms) - 1)  # the centre of mass is at rest
        return cls(
            block_average(1e3 * potential / len(atoms)),
            block_average(2 * kinetic / (degrees * BOLTZMANN_EV_K)),
            _g(atoms, positions),
            _groups(runs, atoms, ps),
            {
                "ps": ps,
                "runs": len(runs),
                "clip_events": sum(run["clip_events"] for run in runs),
                "max_force_difference_eV_A": max(run["max_force_difference_eV_A"] for run in runs),
            },
        )

    def row(self) -> dict[str, Any]:
        """Return what a table shows."""
        return {
            **self.others,
            **self.groups,
            "temperature_ends_K": self.temperature_ends_K.mean,
            "temperature_ends_stderr_K": _known(self.temperature_ends_K.stderr),
            "potential_meV_atom": self.potential_meV_atom.mean,
            "potential_stderr_meV_atom": _known(self.potential_meV_atom.stderr),
            "converged": self.potential_meV_atom.converged,
        }


def differences(found: Averages, first: Averages) -> dict[str, Any]:
    """Return how far averages are from the first ones, absolute and in standard errors.

    The largest difference of g(r) comes with the standard error at that distance. The rms over all
    distances of the difference in standard errors is about 1 for equal distributions.
    """
    mine, theirs = found.potential_meV_atom, first.potential_meV_atom
    row: dict[str, Any] = {"potential_from_first_meV_atom": mine.mean - theirs.mean}
    if found is first:
        return row
    row["potential_off_sigma"] = _known(difference_in_stderr(mine, theirs))
    if found.g is None or first.g is None:
        return row
    error = np.hypot(found.g.stderr, first.g.stderr)
    apart = np.abs(found.g.g - first.g.g)
    k = int(apart.argmax())
    row |= {"rdf_difference": float(apart[k]), "rdf_difference_A": float(found.g.r[k])}
    row["rdf_difference_stderr"] = _known(float(error[k]))
    there = error > 0
    rms = float(np.sqrt(np.mean((apart[there] / error[there]) ** 2))) if there.any() else math.nan
    row["rdf_off_sigma"] = _known(rms)
    return row


def _groups(runs: Sequence[dict[str, Any]], atoms: Atoms, ps: float) -> dict[str, float]:
    """Return mean temperatures of hydrogens and heavy atoms, and what the thermostat allows."""
    hydrogen = int((atoms.numbers == 1).sum())
    found = {}
    for name, count in (("H", hydrogen), ("heavy", len(atoms) - hydrogen)):
        told = [
            run["temperatures_K"][name] for run in runs if name in (run["temperatures_K"] or {})
        ]
        if count == 0 or len(told) < len(runs):
            continue
        mean = float(np.average(told, weights=[run["steps"] for run in runs]))
        found[f"temperature_{name}_K"] = mean
        error = canonical_error_K(mean, count, FRICTION_PER_PS, ps)
        found[f"temperature_{name}_stderr_K"] = error
    return found


def _g(atoms: Atoms, positions: np.ndarray) -> rdf.RDF | None:
    """Return g(r) of frames (F, M, 3) of the atoms that it is of."""
    if not rdf.available():
        return None
    symbols = np.array(atoms.get_chemical_symbols())
    _, chosen = rdf.choose_atoms(symbols)
    cells = np.repeat(atoms.cell.array[None], len(positions), axis=0)
    frames = Trajectory(symbols[chosen], np.arange(len(positions)), positions, cells)
    return rdf.radial_distribution(frames, r_max=rdf.longest_r(cells[:1]))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
