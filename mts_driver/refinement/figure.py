"""The picture of a fit: the loss and its parts, and each observable before and after."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mts_driver.files import replacing
from mts_driver.refinement.averages import Averages
from mts_driver.refinement.goals.goal import Goal
from mts_driver.refinement.kept import Update

TARGET, BEFORE, AFTER = "#333333", "#d2691e", "#1f5fa8"
PARTS = ("#2e8b57", "#8b3a8b", "#d2691e", "#c8a415", "#5f9ea0", "#a0522d")
MOST_PARAMETERS = 8


def draw(
    title: str,
    goals: Sequence[Goal],
    before: Averages,
    after: Averages,
    history: Sequence[Update],
    path: Path,
) -> None:
    """Write a PNG.

    Parameters
    ----------
    title : str
        Of the picture.
    goals : sequence of Goal
        What was aimed at.
    before, after : Averages
        Of the first and the last parameters.
    history : sequence of Update
        All updates.
    path : Path
        Of the picture.
    """
    parameters = list(history[-1].parameters)[:MOST_PARAMETERS]
    panels = 1 + bool(parameters) + len(goals)
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.6 * columns, 3.7 * rows), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    figure.suptitle(title, fontsize=13, fontweight="bold")
    _losses(axes[0], history)
    if parameters:
        _parameters(axes[1], history, parameters)
    for panel, goal in zip(axes[panels - len(goals) :], goals, strict=False):
        if goal.observable.labels:
            _bars(panel, goal, before, after)
        elif goal.observable.x is not None:
            _curve(panel, goal, before, after)
        else:
            _number(panel, goal, before, after)
    for panel in axes[panels:]:
        panel.set_axis_off()
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _losses(axes: Axes, history: Sequence[Update]) -> None:
    axes.set_title("Loss", loc="left")
    updates = np.arange(len(history))
    axes.plot(updates, [u.loss for u in history], color=TARGET, lw=2, label="sum")
    names = list(history[-1].terms)
    for k, name in enumerate(names if len(names) > 1 else ()):
        values = [u.terms.get(name, np.nan) for u in history]
        axes.plot(updates, values, color=PARTS[k % len(PARTS)], lw=1.2, label=name)
    # the estimate of a loss that is nearly zero may be negative
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=8)


def _parameters(axes: Axes, history: Sequence[Update], names: Sequence[str]) -> None:
    axes.set_title("Parameters over their first values", loc="left")
    for k, name in enumerate(names):
        values = np.array([u.parameters[name] for u in history])
        if values[0]:
            axes.plot(values / values[0], color=PARTS[k % len(PARTS)], lw=1.4, label=name)
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)


def _curve(axes: Axes, goal: Goal, before: Averages, after: Averages) -> None:
    observable = goal.observable
    assert observable.x is not None
    x, target, error = (np.asarray(t) for t in (observable.x, goal.target, goal.error))
    axes.set_title(observable.name, loc="left")
    axes.fill_between(x, target - error, target + error, color=TARGET, alpha=0.2, lw=0)
    axes.plot(x, target, color=TARGET, lw=2.5, alpha=0.6, label=goal.source or "target")
    axes.plot(x, before.mean[observable.name], color=BEFORE, lw=1.2, ls="--", label="before")
    axes.plot(x, after.mean[observable.name], color=AFTER, lw=1.4, label="after")
    axes.set(xlabel=observable.x_label, ylabel=observable.unit)
    axes.legend(frameon=False, fontsize=8)


def _bars(axes: Axes, goal: Goal, before: Averages, after: Averages) -> None:
    observable, width = goal.observable, 0.27
    axes.set_title(f"{observable.name} ({observable.unit})", loc="left")
    series = (
        (goal.source or "target", goal.target, TARGET),
        ("before", before.mean[observable.name], BEFORE),
        ("after", after.mean[observable.name], AFTER),
    )
    middle = np.arange(len(observable.labels))
    for k, (label, values, color) in enumerate(series):
        bars = axes.bar(middle + (k - 1) * width, values, width, color=color, label=label)
        axes.bar_label(bars, [f"{float(v):.0f}" for v in values], fontsize=7, padding=1)
    axes.set_xticks(middle, observable.labels)
    axes.legend(frameon=False, fontsize=8)


def _number(axes: Axes, goal: Goal, before: Averages, after: Averages) -> None:
    name = goal.observable.name
    axes.set_title(f"{name} ({goal.observable.unit})", loc="left")
    axes.axhline(float(goal.target), color=TARGET, lw=2.5, alpha=0.6, label=goal.source or "target")
    for k, (found, color) in enumerate(((before, BEFORE), (after, AFTER))):
        value, error = float(found.mean[name]), float(found.error[name])
        axes.errorbar([k], [value], [error], fmt="o", color=color, capsize=4)
        axes.annotate(f"{value:.4g}", (k, value), xytext=(8, 4), textcoords="offset points")
    axes.set_xticks([0, 1], ["before", "after"])
    axes.set_xlim(-0.6, 1.8)
    axes.legend(frameon=False, fontsize=8)
