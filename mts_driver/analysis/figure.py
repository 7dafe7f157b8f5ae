"""The picture of a report."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mts_driver.analysis import dynamics_panels, panels
from mts_driver.analysis.dynamics.motion import Motion
from mts_driver.analysis.panels import REFERENCE, RUN
from mts_driver.analysis.results import Run


def draw(
    run: Run,
    reference: Run | None,
    results: dict[str, Any],
    path: Path,
    *,
    experiment: np.ndarray | None = None,
    motions: tuple[Motion | None, Motion | None] = (None, None),
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
    motions : tuple of Motion or None
        Of the run, for a fourth column, and of the reference.
    """
    columns = 3 if motions[0] is None else 4
    figure = Figure(figsize=(13 * columns / 3, 11.4), layout="constrained")
    figure.suptitle(_title(run))
    axes = figure.subplots(3, columns)
    _speed(axes[0, 0], results)
    _temperatures(axes[0, 1], run, reference)
    panels.energies(axes[0, 2], run, reference, results)
    panels.radial_distributions(axes[1, :3], run, reference, experiment)
    panels.bond_histograms(axes[2, 0], run, reference, results)
    panels.conserved_energy(axes[2, 1], run, results)
    dynamics_panels.mean_squared_displacements(axes[2, 2], run, reference)
    if motions[0] is not None:
        dynamics_panels.density_of_states(axes[0, 3], motions[0], motions[1], results)
        dynamics_panels.by_element(axes[1, 3], motions[0], motions[1])
        dynamics_panels.autocorrelation(axes[2, 3], motions[0], motions[1])
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


def _speed(axes: Axes, results: dict[str, Any]) -> None:
    axes.set_title("Speed")
    speed, ratio = results["ns_per_day"], results["speedup_vs_single_step"]
    if speed is None or not ratio:
        panels.absent(axes, "no single-step baseline\nin summary.json")
        return
    bars = {
        "single steps\n1 fs": (speed / ratio, "0.7"),
        "single steps\n2 fs, heavy H": (2 * speed / ratio, "0.55"),
        "single steps\n4 fs, held H": (4 * speed / ratio, "0.4"),
        "this run": (speed, RUN),
    }
    drawn = axes.bar(
        list(bars), [b[0] for b in bars.values()], color=[b[1] for b in bars.values()], width=0.6
    )
    axes.bar_label(drawn, fmt="%.3g", padding=2)
    axes.set(ylabel="ns/day", ylim=(0, 1.45 * max(speed, 4 * speed / ratio)))
    lines = [f"{ratio:.1f}× single steps of 1 fs,", f"{ratio / 2:.1f}× of 2, {ratio / 4:.1f}× of 4"]
    # those of a driver that was started by hand are not known
    counts = {role: results[f"{role}_calls"] for role in ("teacher", "student")}
    lines += [f"{n:,} {role} calls" for role, n in counts.items() if n is not None]
    axes.text(0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top")


def _temperatures(axes: Axes, run: Run, reference: Run | None) -> None:
    axes.set_title("Temperature at the thermostat step")
    shown = [(r, c) for r, c in ((run, RUN), (reference, REFERENCE)) if r is not None]
    groups = list(run.folder.summary.get("temperatures_K") or {})
    if not groups:
        panels.absent(axes, "not measured:\nneeds mts run with splitting='respa-baoab'")
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
    names = {
        "H": "hydrogen",
        "heavy": "heavy\natoms",
        "all": "all\natoms",
        "solute H": "solute's\nhydrogen",
        "solute heavy": "solute's\nheavy",
    }
    axes.set_xticks(range(len(groups)), [names.get(g, g) for g in groups])
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylabel="T (K)")
