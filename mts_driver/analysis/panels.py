"""The panels of a report's picture that show the physics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mts_driver.analysis.bonds import BROKEN_A
from mts_driver.analysis.rdf import RDF
from mts_driver.analysis.results import Run
from mts_driver.analysis.statistics import BlockAverage, block_means

RUN, REFERENCE, MEASURED = "#1f5fa8", "#d2691e", "0.25"
_TRACE_BLOCKS = 40


def absent(axes: Axes, reason: str) -> None:
    """Say in place of a panel why there is none."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set(xticks=[], yticks=[])


def radial_distributions(
    row: Sequence[Axes], run: Run, reference: Run | None, experiment: np.ndarray | None
) -> None:
    """Radial distributions with their errors, the first beside a measured one of shape (2, M)."""
    if not run.rdfs:
        row[0].set_title("Radial distribution")
        isolated = run.folder.isolated
        absent(row[0], "an isolated molecule" if isolated else "fewer than two heavy atoms")
    for axes, (pair, found) in zip(row, run.rdfs.items(), strict=False):
        _radial_distribution(
            axes,
            found,
            reference.rdfs.get(pair) if reference else None,
            experiment if found is run.rdf else None,
        )
    for axes in row[max(1, len(run.rdfs)) :]:
        axes.set_axis_off()


def _radial_distribution(
    axes: Axes, run: RDF, reference: RDF | None, experiment: np.ndarray | None
) -> None:
    between = ", other molecules" if run.pair.endswith("–H") else ""
    axes.set_title(f"Radial distribution, {run.pair}{between}")
    axes.axhline(1.0, color="0.85", lw=0.8)
    if experiment is not None:
        r, g = experiment[:, experiment[0] <= run.r[-1]]
        axes.plot(r, g, color=MEASURED, lw=1, ls="--", label="measured")
        axes.legend(frameon=False)
    for one, color in ((reference, REFERENCE), (run, RUN)):
        if one is not None:
            axes.fill_between(
                one.r, one.g - one.stderr, one.g + one.stderr, color=color, alpha=0.25, lw=0
            )
            axes.plot(one.r, one.g, color=color, lw=1.5)
    r, height, error = run.first_peak()
    text = f"{height:.2f} ± {error:.2f}" if np.isfinite(error) else f"{height:.2f}"
    axes.text(
        0.97, 0.97, f"peak {text}\nat {r:.2f} Å", transform=axes.transAxes, va="top", ha="right"
    )
    axes.set(xlabel="r (Å)", ylabel="g(r)", ylim=(0, 1.12 * max(axes.get_ylim()[1], 1.0) / 1.05))
    occupied = np.flatnonzero(run.g > 0)
    axes.set_xlim(max(0.0, run.r[occupied[0]] - 0.5) if len(occupied) else 0.0, run.r[-1])


def energies(axes: Axes, run: Run, reference: Run | None, results: dict[str, Any]) -> None:
    """Potential energies relative to the mean of the reference or run, with means and errors."""
    axes.set_title("Potential energy")
    if run.energy is None:
        absent(axes, "the run does not print potential")
        return
    anchor = reference if reference is not None and reference.energy is not None else run
    assert anchor.energy is not None
    scale = 1e3 / run.natoms
    for one, color in ((reference, REFERENCE), (run, RUN)):
        if one is None or one.energy is None:
            continue
        energy = (one.properties["potential"] - anchor.energy.mean) * scale
        _trace(axes, one.time_ps, energy, color)
        mean, error = (one.energy.mean - anchor.energy.mean) * scale, one.energy.stderr * scale
        kept = one.time_ps[one.equilibrated]
        if np.isfinite(error):
            axes.fill_between(
                kept[[0, -1]], mean - error, mean + error, color=color, alpha=0.35, lw=0
            )
        axes.hlines(mean, *kept[[0, -1]], color=color, ls="--", lw=1.2)
    shown = [
        (one.properties["potential"][one.equilibrated] - anchor.energy.mean) * scale
        for one in (run, reference)
        if one is not None and one.energy is not None
    ]
    low, high = min(e.min() for e in shown), max(e.max() for e in shown)
    room = max(high - low, 1e-9)
    # not that of the equilibration, which would flatten everything; the text goes above
    axes.set_ylim(low - 0.2 * room, high + 0.5 * room)
    axes.text(
        0.03,
        0.97,
        _energy_text(run.energy, results, scale),
        transform=axes.transAxes,
        va="top",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )
    axes.set(xlabel=_time_label(run), ylabel="E − mean (meV/atom)")


def _energy_text(energy: BlockAverage, results: dict[str, Any], scale: float) -> str:
    if results["potential_energy_stderr_eV"] is None:
        return "too short for an error"
    difference = results.get("potential_energy_difference_eV")
    error = results.get("potential_energy_difference_stderr_eV")
    if difference is not None and error is not None:
        text = f"difference {difference * scale:+.2f} ± {error * scale:.2f} meV/atom"
        return text.replace("-", "−")
    text = f"mean ± {energy.stderr * scale:.2f} meV/atom ({energy.n_blocks} blocks)"
    return text if energy.converged else f"{text},\na lower bound: the run is short"


def _trace(axes: Axes, time: np.ndarray, values: np.ndarray, color: str) -> None:
    axes.plot(time, values, color=color, lw=0.5, alpha=0.3)
    length = max(1, len(values) // _TRACE_BLOCKS)
    axes.plot(block_means(time, length), block_means(values, length), color=color, lw=1.5)


def bond_histograms(axes: Axes, run: Run, reference: Run | None, results: dict[str, Any]) -> None:
    """Histograms of the bonds to hydrogen."""
    axes.set_title("Bonds to hydrogen")
    if run.bonds is None:
        absent(axes, "no hydrogen bonded to a heavy atom\nin the first frame")
        return
    reach = max(0.1, 6 * run.bonds.std)
    edges = np.linspace(run.bonds.mean.mean - reach, run.bonds.mean.mean + reach, 81).tolist()
    for one, color in ((reference, REFERENCE), (run, RUN)):
        if one is not None and one.bonds is not None:
            axes.hist(
                one.bonds.lengths.ravel(), bins=edges, density=True, histtype="step", color=color,
                lw=1.5,
            )  # fmt: skip
            axes.axvline(one.bonds.mean.mean, color=color, ls="--", lw=1)
    bonds = run.bonds
    axes.text(
        0.97,
        0.97,
        f"mean {bonds.mean.mean:.4f} Å\n{bonds.min:.2f} to {bonds.max:.2f} Å\n"
        f"{bonds.broken} beyond {BROKEN_A:g} Å",
        transform=axes.transAxes,
        va="top",
        ha="right",
        color="C3" if bonds.broken else "k",
    )
    axes.set(xlabel="X–H length (Å)", ylabel="density (1/Å)", xlim=(edges[0], edges[-1]))


def conserved_energy(axes: Axes, run: Run, results: dict[str, Any]) -> None:
    """Change of the conserved energy."""
    axes.set_title("Conserved energy")
    if "conserved" not in run.properties:
        absent(axes, "the run does not print conserved")
        return
    energy = run.properties["conserved"] * 1e3 / run.natoms
    axes.plot(run.time_ps, energy - energy[0], color=RUN, lw=1)
    axes.axhline(0.0, color="0.85", lw=0.8, zorder=0)
    axes.margins(y=0.3)
    if run.folder.target_K is not None:
        axes.text(
            0.03,
            0.03,
            "with a thermostat in the inner loop this is a walk\n"
            "that climbs without heating; drift is for NVE",
            transform=axes.transAxes,
            color="0.4",
            fontsize="small",
        )
    axes.set(xlabel=_time_label(run), ylabel="change (meV/atom)")


def _time_label(run: Run) -> str:
    return "time (ps)" if "time" in run.properties else "step"
