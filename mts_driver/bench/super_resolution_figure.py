"""The picture of ``mts superres bench``: errors against the length of the gaps."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mts_driver.files import replacing

DASHED = ("linear", "cubic", "quintic")
MOST_COLUMNS = 3


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel a molecule, a line a model."""
    molecules = list(dict.fromkeys(row["molecule"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    columns = min(MOST_COLUMNS, len(molecules))
    lines = -(-len(molecules) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines + 0.8), layout="constrained")
    panels = np.array(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False))
    for axes, molecule in zip(panels.flat, molecules, strict=False):
        for number, model in enumerate(models):
            own = [r for r in rows if (r["molecule"], r["model"]) == (molecule, model)]
            axes.loglog(
                [r["gap"] for r in own],
                [r["mean_error_A"] for r in own],
                color=f"C{number % 10}",
                ls="--" if model in DASHED else "-",
                marker="o",
                ms=3,
                label=model,
            )
        axes.set_title(molecule.replace("_", " "), fontsize="medium")
        axes.grid(color="0.9", lw=0.6)
    gaps = sorted({row["gap"] for row in rows})
    panels[0, 0].set_xticks(gaps, [str(gap) for gap in gaps])
    panels[0, 0].minorticks_off()
    for axes in panels[-1]:
        axes.set_xlabel("gap (frames)")
    for axes in panels[:, 0]:
        axes.set_ylabel("mean error (Å)")
    for axes in panels.flat[len(molecules) :]:
        axes.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
