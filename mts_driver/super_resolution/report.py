"""A report with what the frames between stored ones tell: `report`."""

from pathlib import Path

from mts_driver.analysis.report import DISCARD, Report
from mts_driver.analysis.report import report as of_what_is_stored
from mts_driver.analysis.run_folder import stores_for_superres
from mts_driver.errors import UserError
from mts_driver.progress import Progress
from mts_driver.runs.prepare import Tell

SPECTRUM_PS = 10.0


def report(
    run_dir: Path | str,
    *,
    reference: Path | str | None = None,
    experiment: Path | str | None = None,
    picture: Path | str | None = None,
    json_file: Path | str | None = None,
    discard: float = DISCARD,
    spectrum_ps: float = SPECTRUM_PS,
    tell: Tell = print,
    report: Progress = lambda *_: None,
) -> Report:
    """Show what a run gained and whether its physics held; `mts report` calls this.

    Writes ``report.png`` and ``report.json``: speed, temperatures, g(r), potential energy and X-H
    bonds with their errors; of a run with ``--store-for-superres`` also the density of states and
    the autocorrelation of velocities, from frames that are filled in between the stored ones.

    Parameters
    ----------
    run_dir : path
        Folder of a run of ``mts run`` or i-PI, or its input file.
    reference : path, optional
        Another run of the same atoms, such as one with single steps, to compare with.
    experiment : path, optional
        Text file with r (Å) and g(r) in its first two columns, drawn beside the computed g(r).
    picture, json_file : path, optional
        Files to write; by default ``report.png`` and ``report.json`` in the folder of the run.
    discard : float
        Share of the steps, of either run, that averages leave out as equilibration.
    spectrum_ps : float
        Last part of the run that is filled in, ps; 0: none.
    tell : callable
        Takes sentences about how frames were filled in, and why they could not be.
    report : callable
        ``report(stage, done, total)``, for a progress bar.

    Returns
    -------
    Report
        Where both are, and the numbers.

    Raises
    ------
    UserError
        If freud is not installed, a file is missing or damaged, or the runs don't fit together.
    """
    if not spectrum_ps >= 0:
        raise UserError(f"spectrum_ps={spectrum_ps:g}: give 0 or more.")
    folder, motion = Path(run_dir), None
    if spectrum_ps and stores_for_superres(folder):
        # what it needs takes seconds to load
        from mts_driver.super_resolution.spectrum import motion_of_run

        try:
            motion = motion_of_run(folder, picoseconds=spectrum_ps, tell=tell, report=report)
            told = f"{motion.picoseconds:.3g} ps, frames {motion.frames}, every"
            tell(f"density of states: {told} {motion.interval_fs:g} fs")
        except UserError as error:  # a report never fails for what is beside it
            tell(f"no density of states: {error}")
    return of_what_is_stored(
        folder,
        reference=reference,
        experiment=experiment,
        picture=picture,
        json_file=json_file,
        discard=discard,
        motion=motion,
    )
