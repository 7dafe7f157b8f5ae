"""A report with what the frames between stored ones tell: `report`."""

from pathlib import Path
from typing import Any

from mts_driver.analysis.dynamics.motion import Motion
from mts_driver.analysis.dynamics.velocities import motion_as_stored
from mts_driver.analysis.report import DISCARD, Report, read_experiment
from mts_driver.analysis.report import report as of_what_is_stored
from mts_driver.analysis.results import require_same_atoms
from mts_driver.analysis.run_folder import RunFolder, stores_for_superres
from mts_driver.analysis.trajectory import read_trajectory
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

    Writes ``report.png`` and ``report.json``: speed, temperatures, g(r), potential energy, X-H
    bonds and diffusion with their errors; of a run that stores velocities also the density of
    states and their autocorrelation: as they are where they are stored every 3.7 fs or more often,
    else, with ``--store-for-superres``, from frames that are filled in between the stored ones.

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
        Last part of a run whose velocities are looked at, ps; 0: none.
    tell : callable
        Takes sentences about how frames were filled in, and what is not to be trusted, and why.
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
    if not 0.0 <= discard < 1.0:
        raise UserError(f"discard={discard:g} is out of range: give a share from 0 to below 1.")
    # before frames are filled in, which takes minutes
    folders = [RunFolder.find(Path(run_dir))]
    if reference is not None:
        folders.append(RunFolder.find(Path(reference), name="reference"))
        first, second = (read_trajectory(one.positions) for one in folders)
        require_same_atoms(first, second, folders[1].path)
    if experiment is not None:
        read_experiment(Path(experiment))
    motions: list[Motion | None] = [None, None]
    why = "not asked for"
    for k, path in enumerate([run_dir, reference] if spectrum_ps else []):
        if path is None:
            continue
        name = "" if k == 0 else " of the reference"
        try:
            found = _motion(Path(path), spectrum_ps, tell, report)
            told = f"{found.picoseconds:.3g} ps, frames {found.frames}, every"
            tell(f"density of states{name}: {told} {found.interval_fs:g} fs")
            motions[k] = found
        except UserError as error:  # a report never fails for what is beside it
            why = why if k else str(error)
            tell(f"no density of states{name}: {error}")
    made = of_what_is_stored(
        run_dir,
        reference=reference,
        experiment=experiment,
        picture=picture,
        json_file=json_file,
        discard=discard,
        motion=motions[0],
        reference_motion=motions[1],
        no_motion=None if motions[0] else why,
    )
    for sentence in (*_about_ends(made.results), *_about_diffusion(made.results)):
        tell(sentence)
    return made


def _motion(path: Path, picoseconds: float, tell: Tell, report: Progress) -> Motion:
    """Return what velocities tell: as stored where that is often enough, else filled in."""
    folder = RunFolder.find(path)
    try:
        return motion_as_stored(folder, picoseconds=picoseconds)
    except UserError:
        if not stores_for_superres(path):
            raise
    # what it needs takes seconds to load
    from mts_driver.super_resolution.spectrum import motion_of_run

    return motion_of_run(path, picoseconds=picoseconds, tell=tell, report=report)


def _about_ends(results: dict[str, Any]) -> list[str]:
    found = []
    for name, of in (("the run", results), ("the reference", results.get("reference") or {})):
        if of.get("completed") is False:
            found.append(f"warning: {name} did not come to its end: {of['ended_by']}")
    if others := results.get("reference_is_another"):
        found.append(f"warning: the reference is another system: {'; '.join(others)}")
    return found


def _about_diffusion(results: dict[str, Any]) -> list[str]:
    why = results["diffusion_missing"]
    found = [f"no diffusion coefficient: {why}"] if why else []
    for name, of in (("", results), (" of the reference", results.get("reference") or {})):
        for kind, d in (of.get("diffusion") or {}).items():
            found += [f"diffusion of {kind}{name}: {warning}" for warning in d["warnings"]]
    return found
