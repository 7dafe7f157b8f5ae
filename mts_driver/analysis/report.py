"""One picture and one JSON file of what a run gained, and whether its physics held."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mts_driver.analysis.dynamics.motion import Motion, compare_motions
from mts_driver.analysis.figure import draw
from mts_driver.analysis.rdf import available, longest_r
from mts_driver.analysis.results import analyse, compare, finite
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.trajectory import read_trajectory
from mts_driver.errors import UserError
from mts_driver.files import check_output, replacing, write_json

DISCARD = 0.25
"""Share of a run that counts as equilibration by default."""


class Report(NamedTuple):
    """Where the report is, and its numbers.

    Attributes
    ----------
    picture, json : Path
        The files.
    results : dict
        The content of the JSON file.
    """

    picture: Path
    json: Path
    results: dict[str, Any]


__all__ = ["DISCARD", "Report", "available", "report"]


def report(
    run_dir: Path | str,
    *,
    reference: Path | str | None = None,
    experiment: Path | str | None = None,
    picture: Path | str | None = None,
    json_file: Path | str | None = None,
    discard: float = DISCARD,
    motion: Motion | None = None,
    reference_motion: Motion | None = None,
    no_motion: str | None = None,
) -> Report:
    """Show what a run gained and whether its physics held, from what is stored.

    Writes ``report.png`` and ``report.json``: speed, temperatures, g(r), diffusion, potential
    energy and X-H bonds with their errors.

    Parameters, errors and what is returned are those of `mts_driver.report`.

    Parameters
    ----------
    motion, reference_motion : Motion, optional
        Densities of states and autocorrelations of velocities: they get panels and numbers, too.
    no_motion : str, optional
        Why the run has none.
    """
    if not available():
        raise UserError("reports need freud for g(r): pip install freud-analysis")
    folder = RunFolder.find(Path(run_dir))
    measured = read_experiment(Path(experiment)) if experiment is not None else None
    target = Path(picture) if picture is not None else folder.path / "report.png"
    numbers = Path(json_file) if json_file is not None else folder.path / "report.json"
    require_picture(target)
    check_output(numbers, name="json_file")
    if reference is None:
        run, other = analyse(folder, discard=discard), None
        results = run.as_dict()
    else:
        found = RunFolder.find(Path(reference), name="reference")
        r_max = min(longest_r(read_trajectory(f.positions).cells) for f in (folder, found))
        run = analyse(folder, discard=discard, r_max=r_max)
        other = analyse(found, discard=discard, r_max=r_max)
        results = run.as_dict() | compare(run, other)
    results |= {"motion": motion and motion.as_dict(), "motion_missing": no_motion}
    if "reference" in results:
        results["reference"]["motion"] = reference_motion and reference_motion.as_dict()
    if motion and reference_motion:
        results |= compare_motions(motion, reference_motion)
    results = finite(results)
    with replacing(target) as part:
        draw(run, other, results, part, experiment=measured, motions=(motion, reference_motion))
    write_json(numbers, results)
    return Report(target, numbers, results)


def require_picture(path: Path) -> None:
    """Check, before the work, that a picture can be written there."""
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UserError(
            f"picture={str(path)!r}: a picture ends in one of .{', .'.join(sorted(known))}."
        )
    check_output(path, name="picture")


def read_experiment(path: Path) -> np.ndarray:
    """Return r and g, shape (2, M).

    Raises
    ------
    UserError
        If the file is missing or has no two columns of numbers.
    """
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(
            f"experiment={str(path)!r} cannot be read ({error}): give a text file with r (Å) and "
            "g(r) in its first two columns."
        ) from error
    if table.shape[1] < 2:
        raise UserError(f"experiment={str(path)!r} has one column: it needs r (Å) and g(r).")
    return table[:, :2].T
