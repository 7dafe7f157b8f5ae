"""The numbers of one run, and of its comparison with a reference."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver.analysis.bonds import BondLengths, bond_lengths
from mts_driver.analysis.dynamics.diffusion import (
    Diffusion,
    diffusion,
    finite_size_term,
    water_viscosity_mPa_s,
)
from mts_driver.analysis.properties import read_properties
from mts_driver.analysis.rdf import RDF, longest_r, pairs_of, radial_distribution
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.statistics import BlockAverage, block_average, difference_in_stderr
from mts_driver.analysis.trajectory import Trajectory, read_trajectory
from mts_driver.errors import UserError

FROM_SUMMARY = (
    "ns_per_day",
    "speedup_vs_single_step",
    "speedup_vs_single_step_2fs_hmr",
    "speedup_vs_single_step_4fs_constrained",
    "teacher_calls",
    "student_calls",
    "teacher_ms",
    "student_ms",
    "overhead_fraction",
    "clip_events",
    "max_force_difference_eV_A",
    "holes",
    "hard_frames",
    "conserved_drift_meV_atom_ps",
    "temperatures_K",
    "temperatures_second_half_K",
)


@dataclass(frozen=True)
class Run:
    """A run, read and averaged.

    Attributes
    ----------
    folder : RunFolder
        Its files.
    trajectory : Trajectory
        All frames.
    properties : dict of str to array, shape (S,)
        All steps, as `read_properties` returns them.
    equilibrated : array of bool, shape (S,)
        Steps that averages are taken over.
    energy : BlockAverage or None
        Potential energy, eV.
    bonds : BondLengths or None
        To hydrogen.
    rdfs : dict of str to RDF
        By pair, that of oxygens or heavy atoms first; none for isolated molecules.
    diffusion : dict of str to Diffusion
        By the formula of the molecule.
    no_diffusion : str or None
        Why there is none.
    """

    folder: RunFolder
    trajectory: Trajectory
    properties: dict[str, np.ndarray]
    equilibrated: np.ndarray
    energy: BlockAverage | None
    bonds: BondLengths | None
    rdfs: dict[str, RDF]
    diffusion: dict[str, Diffusion]
    no_diffusion: str | None

    @property
    def natoms(self) -> int:
        """Number of atoms."""
        return len(self.trajectory.symbols)

    @property
    def rdf(self) -> RDF | None:
        """Of oxygens or heavy atoms; None for fewer than two, and for isolated molecules."""
        return next((g for pair, g in self.rdfs.items() if not pair.endswith("–H")), None)

    def at_pace_of_masses(self, D: float) -> float | None:
        """Return a diffusion coefficient without the inertia of coloured noise; None: not known."""
        return None if self.folder.slowdown is None else D * self.folder.slowdown

    @property
    def time_ps(self) -> np.ndarray:
        """Time of every step, ps; the step's number where the run did not print times."""
        return self.properties.get("time", self.properties["step"])

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for ``report.json``; what the run cannot tell is None."""
        summary = self.folder.summary
        found: dict[str, Any] = {key: summary.get(key) for key in FROM_SUMMARY}
        found["temperature_target_K"] = self.folder.target_K
        found |= {key: summary.get(key) for key in ("completed", "ended_by")}
        found |= {"natoms": self.natoms, "frames": len(self.trajectory)}
        found["analysed_from_ps"] = float(self.time_ps[self.equilibrated][0])
        energy = self.energy
        found["potential_energy_mean_eV"] = energy.mean if energy else None
        found["potential_energy_stderr_eV"] = energy.stderr if energy else None
        found["potential_energy_blocks"] = energy.n_blocks if energy else None
        found["potential_energy_stderr_converged"] = energy.converged if energy else None
        bonds = self.bonds
        found["xh_bond_A"] = bonds and {
            "mean": bonds.mean.mean,
            "mean_stderr": bonds.mean.stderr,
            "std": bonds.std,
            "min": bonds.min,
            "max": bonds.max,
            "broken": bonds.broken,
        }
        found["rdf_pair"] = self.rdf.pair if self.rdf else None
        found["rdf_first_peak"] = _peak(self.rdf) if self.rdf else None
        found["radial_distributions"] = {
            pair: {
                "first_peak": _peak(g),
                "r_A": g.r.tolist(),
                "g": g.g.tolist(),
                "g_stderr": g.stderr.tolist(),
            }
            for pair, g in self.rdfs.items()
        }
        found["diffusion"] = {kind: d.as_dict() for kind, d in self.diffusion.items()}
        found["slowdown_by_noise"] = self.folder.slowdown
        for kind, d in self.diffusion.items():
            of_masses = self.at_pace_of_masses(d.D)
            found["diffusion"][kind]["at_pace_of_masses_1e5_cm2_s"] = of_masses
        found["diffusion_missing"] = self.no_diffusion
        found["diffusion_finite_size"] = self._finite_size() if self.diffusion else None
        return found

    def _finite_size(self) -> dict[str, Any] | None:
        """Return Yeh and Hummer's term, which is not in any D; see `finite_size_term`."""
        target = self.folder.target_K
        term = finite_size_term(self.trajectory.cells, target)
        if term is None or target is None:
            return None
        water = self.natoms == 3 * sum(
            d.count for kind, d in self.diffusion.items() if kind == "H2O"
        )
        viscosity = water_viscosity_mPa_s(target) if water else None
        return {
            "formula": "D(infinite) = D + 2.837297 kT / (6 pi viscosity L)",
            "term_at_1_mPa_s_1e5_cm2_s": term,
            "viscosity_of_water_mPa_s": viscosity,
            "term_at_that_viscosity_1e5_cm2_s": viscosity and term / viscosity,
        }


def _peak(rdf: RDF) -> dict[str, float]:
    return dict(zip(("r_A", "height", "height_stderr"), rdf.first_peak(), strict=True))


def analyse(folder: RunFolder, *, discard: float, r_max: float | None = None) -> Run:
    """Read a run and average it.

    Parameters
    ----------
    folder : RunFolder
        The run.
    discard : float
        Share of the steps to leave out of averages as equilibration, 0 to below 1.
    r_max : float, optional
        End of the radial distribution function, Å. By default half the smallest width of the cell.

    Raises
    ------
    UserError
        If a file is missing or damaged, or ``discard`` is out of range.
    """
    if not 0.0 <= discard < 1.0:
        raise UserError(f"discard={discard:g} is out of range: give a share from 0 to below 1.")
    properties = read_properties(folder.properties)
    trajectory = read_trajectory(folder.positions)
    steps = properties["step"]
    start = steps[0] + discard * (steps[-1] - steps[0])
    # the start itself is not a result, unless there is nothing else
    equilibrated = steps > start if len(steps) > 1 else np.ones(1, bool)
    kept = trajectory.after(start)
    if len(kept) == 0:
        kept = trajectory
    try:
        bonds = bond_lengths(trajectory, equilibrated=trajectory.steps >= kept.steps[0])
    except UserError:
        # a start with unbound hydrogens has no bonds to follow
        bonds = None
    # g(r) is relative to a density, of which an isolated molecule has none
    pairs = [] if folder.isolated else list(pairs_of(kept.symbols))
    end = r_max or longest_r(trajectory.cells)
    rdfs = {pair: radial_distribution(kept, r_max=end, pair=pair) for pair in pairs}
    diffuses, why = (
        ({}, "an isolated molecule")
        if folder.isolated
        else diffusion(kept, step_ps=_step_ps(properties))
    )
    return Run(
        folder=folder,
        trajectory=trajectory,
        properties=properties,
        equilibrated=equilibrated,
        energy=block_average(properties["potential"][equilibrated])
        if "potential" in properties
        else None,
        bonds=bonds,
        rdfs={pair: g for pair, g in rdfs.items() if g is not None},
        diffusion=diffuses,
        no_diffusion=why,
    )


def _step_ps(properties: dict[str, np.ndarray]) -> float | None:
    steps = properties["step"]
    if "time" not in properties or steps[-1] <= steps[0]:
        return None
    time = properties["time"]
    return float((time[-1] - time[0]) / (steps[-1] - steps[0]))


def require_same_atoms(run: Trajectory, reference: Trajectory, path: Path) -> None:
    """Refuse a reference, in a folder, of other atoms.

    Raises
    ------
    UserError
        If it is.
    """
    if not np.array_equal(run.symbols, reference.symbols):
        raise UserError(
            f"reference={str(path)!r} holds {len(reference.symbols)} atoms that are not the "
            f"{len(run.symbols)} of the run: give a run of the same system."
        )


def compare(run: Run, reference: Run) -> dict[str, Any]:
    """Return how far a run is from its reference.

    Raises
    ------
    UserError
        If the two are of different atoms.
    """
    require_same_atoms(run.trajectory, reference.trajectory, reference.folder.path)
    found: dict[str, Any] = {"reference": reference.as_dict()}
    found["reference_is_another"] = _other_conditions(run, reference)
    if run.energy and reference.energy:
        found["potential_energy_difference_eV"] = run.energy.mean - reference.energy.mean
        found["potential_energy_difference_stderr_eV"] = math.hypot(
            run.energy.stderr, reference.energy.stderr
        )
        found["potential_energy_difference_in_stderr"] = difference_in_stderr(
            run.energy, reference.energy
        )
    if run.bonds and reference.bonds:
        found["xh_bond_mean_difference_A"] = run.bonds.mean.mean - reference.bonds.mean.mean
    deviations = {
        pair: _deviation(g, reference.rdfs[pair])
        for pair, g in run.rdfs.items()
        if pair in reference.rdfs
    }
    if run.rdf and run.rdf.pair in deviations:
        found["rdf_max_deviation"] = deviations[run.rdf.pair]
    found["radial_distribution_deviations"] = deviations
    found["diffusion_differences"] = {
        kind: diffusion_difference(run, reference, kind)
        for kind in run.diffusion
        if kind in reference.diffusion
    }
    return found


def _other_conditions(run: Run, reference: Run) -> list[str]:
    """Say in what more than steps and noise a reference is another system than a run."""
    ours, theirs = run.folder, reference.folder
    found = []
    kelvins = ours.target_K, theirs.target_K
    if None not in kelvins and not math.isclose(kelvins[0] or 0, kelvins[1] or 0, rel_tol=1e-4):
        found.append(f"it is at {kelvins[1]:g} K, the run at {kelvins[0]:g} K")
    if ours.teacher and theirs.teacher and ours.teacher != theirs.teacher:
        found.append(f"its teacher is {theirs.teacher}, that of the run {ours.teacher}")
    if ours.isolated != theirs.isolated:
        words = {True: "isolated", False: "periodic"}
        found.append(f"it is {words[theirs.isolated]}, the run {words[ours.isolated]}")
    cells = run.trajectory.cells, reference.trajectory.cells
    mine, its = (float(np.abs(np.linalg.det(one)).mean()) for one in cells)
    if not (ours.isolated or theirs.isolated) and not math.isclose(mine, its, rel_tol=0.01):
        found.append(f"its mean volume is {its:.1f} Å³, that of the run {mine:.1f} Å³")
    return found


def diffusion_difference(run: Run, reference: Run, kind: str) -> dict[str, float]:
    """Return how far diffusion is from the reference's, both without the inertia of noise."""
    paces = run.folder.slowdown or 1.0, reference.folder.slowdown or 1.0
    both = run.diffusion[kind], reference.diffusion[kind]
    mine, theirs = (found.D * pace for found, pace in zip(both, paces, strict=True))
    errors = (found.stderr * pace for found, pace in zip(both, paces, strict=True))
    return {
        "difference_1e5_cm2_s": mine - theirs,
        "in_stderr": (mine - theirs) / max(math.hypot(*errors), 1e-12),
    }


def _deviation(run: RDF, reference: RDF) -> dict[str, float]:
    """Return where two g(r) differ most."""
    difference = run.g - reference.g
    error = np.hypot(run.stderr, reference.stderr)
    k = int(np.argmax(np.abs(difference)))
    return {
        "r_A": float(run.r[k]),
        "difference": float(difference[k]),
        "in_stderr": float(difference[k] / error[k]) if error[k] > 0 else math.nan,
    }


def finite(found: Any) -> Any:
    """Replace NaN and infinity, which JSON has no words for, by None."""
    if isinstance(found, dict):
        return {key: finite(value) for key, value in found.items()}
    if isinstance(found, list):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
