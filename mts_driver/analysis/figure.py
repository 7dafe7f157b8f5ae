"""The picture of a report."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mts_driver.analysis.bonds import BROKEN_A
from mts_driver.analysis.results import Run
from mts_driver.analysis.statistics import BlockAverage, block_means

RUN, REFERENCE, MEASURED = "#1f5fa8", "#d2691e", "0.25"
_TRACE_BLOCKS = 40


def draw(
    run: Run,
    reference: Run | None,
    results: dict[str, Any],
    path: Path,
    *,
    experiment: np.ndarray | None = None,
) -> None:
    """Write the picture.

    Parameters
    ----------
    run, reference : Run
        The second may be None.
    results : dict
        The numbers of ``report.json``.
    path : Path
        A format that matplotlib knows by its suffix, such as .png.
    experiment : array, shape (2, M), optional
        Measured r (Å) and g(r).
    """
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    figure.suptitle(_title(run))
    axes = figure.subplots(2, 3)
    _speed(axes[0, 0], results)
    _temperatures(axes[0, 1], run, reference)
    _rdf(axes[0, 2], run, reference, experiment)
    _energy(axes[1, 0], run, reference, results)
    _bonds(axes[1, 1], run, reference, results)
    _conserved(axes[1, 2], run, results)
    names = [(RUN, _name(run))] + ([(REFERENCE, _name(reference))] if reference else [])
    if len(names) > 1:
        handles = [axes[0, 0].plot([], [], color=color, lw=3)[0] for color, _ in names]
        figure.legend(handles, [n for _, n in names], loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)


def _name(run: Run) -> str:
    summary = run.folder.summary
    if not summary:
        return run.folder.path.resolve().name
    outer, n = summary["outer_timestep_fs"], summary["n_inner"]
    if n == 1:
        return f"single steps of {outer:g} fs"
    return f"teacher every {outer:g} fs, student every {outer / n:g} fs"


def _title(run: Run) -> str:
    length = run.time_ps[-1] - run.time_ps[0]
    unit = "ps" if "time" in run.properties else "steps"
    return (
        f"{run.folder.path.resolve().name}: {run.natoms} atoms, {length:.3g} {unit}, {_name(run)}"
    )


def _absent(axes: Axes, reason: str) -> None:
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set(xticks=[], yticks=[])


def _speed(axes: Axes, results: dict[str, Any]) -> None:
    axes.set_title("Speed")
    speed, ratio = results["ns_per_day"], results["speedup_vs_single_step"]
    if speed is None or not ratio:
        _absent(axes, "no single-step baseline\nin summary.json")
        return
    bars = {
        "single steps\n1 fs": (speed / ratio, "0.7"),
        "single steps\n2 fs, heavy H": (2 * speed / ratio, "0.55"),
        "this run": (speed, RUN),
    }
    drawn = axes.bar(
        list(bars), [b[0] for b in bars.values()], color=[b[1] for b in bars.values()], width=0.6
    )
    axes.bar_label(drawn, fmt="%.3g", padding=2)
    axes.set(ylabel="ns/day", ylim=(0, 1.45 * max(speed, 2 * speed / ratio)))
    half = results["speedup_vs_single_step_2fs_hmr"] or ratio / 2
    axes.text(
        0.03,
        0.97,
        f"{ratio:.1f}× single steps of 1 fs,\n{half:.1f}× those of 2 fs\n"
        f"{results['teacher_calls']:,} teacher calls,\n{results['student_calls']:,} student calls",
        transform=axes.transAxes,
        va="top",
    )


def _temperatures(axes: Axes, run: Run, reference: Run | None) -> None:
    axes.set_title("Temperature at the thermostat step")
    shown = [(r, c) for r, c in ((run, RUN), (reference, REFERENCE)) if r is not None]
    groups = list(run.folder.summary.get("temperatures_K") or {})
    if not groups:
        _absent(axes, "not measured:\nneeds mts run with splitting='respa-baoab'")
        return
    everything = []
    for k, (one, color) in enumerate(shown):
        x = np.arange(len(groups)) + 0.16 * (k - (len(shown) - 1) / 2)
        for key, face in (("temperatures_K", "white"), ("temperatures_second_half_K", color)):
            found = one.folder.summary.get(key) or {}
            y = [found.get(group, np.nan) for group in groups]
            axes.plot(x, y, "o", mec=color, mfc=face, ms=8)
            everything += y
        side = -1 if k == 0 and len(shown) > 1 else 1
        for a, b in zip(x, y, strict=True):
            axes.annotate(
                f"{b:.0f}",
                (a, b),
                xytext=(9 * side, 0),
                textcoords="offset points",
                va="center",
                ha="left" if side > 0 else "right",
            )
    axes.plot([], [], "o", mec="k", mfc="white", label="whole run")
    axes.plot([], [], "o", mec="k", mfc="k", label="second half")
    target = run.folder.target_K
    if target is not None:
        axes.axhline(target, color="k", lw=1, ls="--", zorder=0, label="target")
        everything += [target - 5.0, target + 5.0]
    low, high = np.nanmin(everything), np.nanmax(everything)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.35 * (high - low))
    axes.legend(frameon=False, ncols=3, loc="upper center", columnspacing=1, handletextpad=0.4)
    names = {"H": "hydrogen", "heavy": "heavy atoms", "all": "all atoms"}
    axes.set_xticks(range(len(groups)), [names.get(g, g) for g in groups])
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylabel="T (K)")


def _rdf(axes: Axes, run: Run, reference: Run | None, experiment: np.ndarray | None) -> None:
    axes.set_title("Radial distribution")
    if run.rdf is None:
        _absent(axes, "fewer than two heavy atoms")
        return
    end = run.rdf.r[-1]
    axes.axhline(1.0, color="0.85", lw=0.8)
    if experiment is not None:
        r, g = experiment[:, experiment[0] <= end]
        axes.plot(r, g, color=MEASURED, lw=1, ls="--", label="measured")
        axes.legend(frameon=False)
    for one, color in ((reference, REFERENCE), (run, RUN)):
        if one is not None and one.rdf is not None:
            rdf = one.rdf
            axes.fill_between(
                rdf.r, rdf.g - rdf.stderr, rdf.g + rdf.stderr, color=color, alpha=0.25, lw=0
            )
            axes.plot(rdf.r, rdf.g, color=color, lw=1.5)
    axes.set(xlabel=f"r, {run.rdf.pair} (Å)", ylabel="g(r)", ylim=(0, None))
    occupied = np.flatnonzero(run.rdf.g > 0)
    axes.set_xlim(max(0.0, run.rdf.r[occupied[0]] - 0.5) if len(occupied) else 0.0, end)


def _trace(axes: Axes, time: np.ndarray, values: np.ndarray, color: str) -> None:
    axes.plot(time, values, color=color, lw=0.5, alpha=0.3)
    length = max(1, len(values) // _TRACE_BLOCKS)
    axes.plot(block_means(time, length), block_means(values, length), color=color, lw=1.5)


def _energy(axes: Axes, run: Run, reference: Run | None, results: dict[str, Any]) -> None:
    axes.set_title("Potential energy")
    if run.energy is None:
        _absent(axes, "the run does not print potential")
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


def _bonds(axes: Axes, run: Run, reference: Run | None, results: dict[str, Any]) -> None:
    axes.set_title("Bonds to hydrogen")
    if run.bonds is None:
        _absent(axes, "no hydrogen bonded to a heavy atom\nin the first frame")
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


def _conserved(axes: Axes, run: Run, results: dict[str, Any]) -> None:
    axes.set_title("Conserved energy")
    if "conserved" not in run.properties:
        _absent(axes, "the run does not print conserved")
        return
    energy = run.properties["conserved"] * 1e3 / run.natoms
    axes.plot(run.time_ps, energy - energy[0], color=RUN, lw=1)
    axes.axhline(0.0, color="0.85", lw=0.8, zorder=0)
    axes.margins(y=0.3)
    if run.folder.target_K is not None:
        axes.text(
            0.03,
            0.03,
            "with a thermostat in the inner loop this is\na random walk; drift is a matter for NVE",
            transform=axes.transAxes,
            color="0.4",
            fontsize="small",
        )
    axes.set(xlabel=_time_label(run), ylabel="change (meV/atom)")


def _time_label(run: Run) -> str:
    return "time (ps)" if "time" in run.properties else "step"
