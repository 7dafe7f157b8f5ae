"""The panels of a distillation report's picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from integrators.levels import DEFAULT_CLIP
from mts_driver.validation.drift import Drift, predicted_heating_K
from mts_driver.validation.evaluation import Evaluated
from mts_driver.validation.force_constants import ForceConstants

TEACHER, STUDENT, BAD = "0.25", "#1f5fa8", "#c62828"
# the usual colours of the elements, dark enough for white paper
ELEMENTS = {
    "H": "#8a8f98",
    "C": "#333333",
    "N": "#2f55d4",
    "O": "#d62f2f",
    "F": "#3a9d78",
    "P": "#e07b00",
    "S": "#b8960c",
    "Cl": "#2e8b2e",
}
MOST_POINTS = 30_000


def absent(axes: Axes, reason: str) -> None:
    """Say in place of a panel why there is none."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="0.4")
    axes.set(xticks=[], yticks=[])


def parity(axes: Axes, forces: Evaluated) -> None:
    """Student's force components against the teacher's, by element."""
    axes.set_title("Forces on held-out frames", loc="left")
    if not len(forces):
        absent(axes, "no held-out frames")
        return
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(forces))[:MOST_POINTS]
    symbols = forces.symbols[drawn]
    # common elements first, so that rare ones stay visible
    elements, counts = np.unique(symbols, return_counts=True)
    for element in elements[np.argsort(-counts)]:
        mine = drawn[symbols == element]
        axes.plot(
            forces.teacher[mine].ravel(),
            forces.student[mine].ravel(),
            ".",
            ms=2,
            color=ELEMENTS.get(element, "C4"),
            label=element,
            alpha=0.5,
            mew=0,
        )
    ends = [forces.teacher.min(), forces.teacher.max()]
    axes.plot(ends, ends, "-", color="k", lw=0.8)
    for handle in axes.legend(markerscale=6, frameon=False).legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    axes.set(xlabel="teacher (eV/Å)", ylabel="student (eV/Å)")


def errors_by_element(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Bars of the force RMSE."""
    axes.set_title("Force RMSE", loc="left")
    errors = summary["force_rmse_eV_A"]
    if errors is None:
        absent(axes, "no held-out frames")
        return
    colors = [STUDENT if name == "all" else ELEMENTS.get(name, "C4") for name in errors]
    bars = axes.bar(list(errors), list(errors.values()), color=colors, width=0.65)
    axes.bar_label(bars, fmt="%.3f", padding=2)
    axes.set(
        xlabel=f"teacher RMS {summary['teacher_force_rms_eV_A']:.2f} eV/Å, "
        f"{summary['test_atoms']:,} atoms",
        ylabel="eV/Å",
        xlim=(-0.7, max(2.0, len(errors) - 0.3)),
    )
    axes.margins(y=0.12)


def tail(axes: Axes, forces: Evaluated) -> None:
    """Share of atoms whose force difference is larger than x, by element, and the clip."""
    axes.set_title("Tail of the force difference", loc="left")
    if not len(forces):
        absent(axes, "no held-out frames")
        return
    for element in ("all", *np.unique(forces.symbols)):
        mine = forces.difference_eV_A[(forces.symbols == element) | (element == "all")]
        ordered = np.sort(mine)[::-1]
        color = "k" if element == "all" else ELEMENTS.get(str(element), "C4")
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.loglog(ordered, share, color=color, lw=2 if element == "all" else 1.2, label=element)
    axes.axvline(DEFAULT_CLIP, color=BAD, ls="--", lw=1.2)
    axes.annotate(
        "clip",
        (DEFAULT_CLIP, 1.0),
        xytext=(-4, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        color=BAD,
    )
    axes.set_xlim(max(1e-3, float(np.median(forces.difference_eV_A)) / 5), 1.6 * DEFAULT_CLIP)
    axes.set(xlabel="|F$_{teacher}$ − F$_{student}$| on an atom (eV/Å)", ylabel="share above")
    axes.legend(frameon=False, loc="lower left")


def force_constants(axes: Axes, found: ForceConstants, chosen: np.ndarray, what: str) -> None:
    """Histogram of the relative errors of the force constants, by kind of bond."""
    axes.set_title(f"Stiffness of {what} bonds", loc="left")
    error = found.error(chosen)
    if error is None:
        absent(axes, f"no {what} bonds")
        return
    off = 100 * found.relative_error
    # wide enough for all but the last percent
    reach = max(1.0, 1.15 * float(np.quantile(np.abs(off[chosen]), 0.99)))
    bins = int(np.clip(2.5 * np.sqrt(chosen.sum()), 8, 40))
    kinds = np.unique(found.kinds[chosen])
    axes.hist(
        [np.clip(off[found.kinds == kind], -reach, reach) for kind in kinds],
        bins=bins,
        range=(-reach, reach),
        stacked=True,
        label=[str(k) for k in kinds],
        color=[f"C{k % 10}" for k in range(len(kinds))],
    )
    axes.axvline(0.0, color="k", lw=0.8)
    axes.axvline(100 * error["mean"], color="k", lw=1.2, ls="--")
    axes.margins(y=0.25)
    axes.text(
        0.03,
        0.97,
        f"mean {100 * error['mean']:+.2f} %\nrms {100 * error['rms']:.2f} %".replace("-", "−"),
        transform=axes.transAxes,
        va="top",
    )
    axes.legend(frameon=False, loc="upper right", ncols=1 + (len(kinds) > 6))
    axes.set(xlabel="error of the force constant (%)", ylabel="bonds", xlim=(-reach, reach))


def drift(axes: Axes, drifts: Mapping[float, Drift], friction_per_ps: float) -> None:
    """NVE-RESPA drift, and the heating that it foretells, against the outer step."""
    axes.set_title("NVE-RESPA drift", loc="left")
    if not drifts:
        absent(axes, "no run without a thermostat")
        return
    lasting = {outer: d for outer, d in sorted(drifts.items()) if not d.blown_up}
    for outer, found in lasting.items():
        values = list(found.values)
        axes.plot([outer] * len(values), values, ".", color=STUDENT, alpha=0.35, ms=7, mew=0)
    means = [d.mean for d in lasting.values()]
    errors = np.nan_to_num([d.standard_error for d in lasting.values()])
    axes.errorbar(list(lasting), means, errors, fmt="o-", color=STUDENT, capsize=4, lw=1.2)
    for outer, mean in zip(lasting, means, strict=True):
        axes.annotate(
            f"{mean:.2g}".replace("-", "−"),
            (outer, mean),
            xytext=(7, 6),
            textcoords="offset points",
        )
    for outer in drifts.keys() - lasting.keys():
        axes.plot(outer, 0.93, "X", color=BAD, ms=10, transform=axes.get_xaxis_transform())
        axes.annotate(
            "blew up",
            (outer, 0.93),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, -10),
            textcoords="offset points",
            ha="center",
            va="top",
            color=BAD,
        )
    axes.axhline(0.0, color="0.7", lw=0.8, zorder=0)
    ends = [y for d in lasting.values() for y in (*d.values, d.mean)]
    low, high = min([0.0, *ends]), max([0.5, *ends])
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.set_xlim(min(drifts) - 1.0, max(drifts) + 1.5)
    axes.set(xticks=sorted(drifts), xlabel="outer step (fs)", ylabel="meV/atom/ps")
    degrees = next(iter(drifts.values())).degrees_per_atom
    kelvin = predicted_heating_K(1.0, friction_per_ps, degrees)
    if kelvin is None:
        return
    right = axes.secondary_yaxis(
        "right", functions=(lambda y: np.multiply(y, kelvin), lambda y: np.divide(y, kelvin))
    )
    right.set_ylabel(f"predicted heating at γ = {friction_per_ps:g}/ps (K)")
