"""A student from structures to a file and its report: `distill`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from mts_driver.distillation.active_learning import frames_to_learn, unfinished, until_clean
from mts_driver.distillation.distill import distill as make
from mts_driver.distillation.labels.kinds import PLAIN, Kind
from mts_driver.distillation.sampling.droplets import droplets
from mts_driver.distillation.sampling.sample import fragment_radius_A
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.errors import UserError
from mts_driver.files import check_output, require_writable
from mts_driver.potentials.backends import file_and_options
from mts_driver.potentials.devices import check_device
from mts_driver.processes import keep_memory
from mts_driver.progress import Progress
from mts_driver.runs.input.read import read_input
from mts_driver.structures.files import read_systems, require_file

DEFAULT_MINUTES = 10.0


@dataclass(frozen=True, eq=False)
class DistillationResult:
    """A student that has been made.

    Attributes
    ----------
    student : Path
        The file, for `simulate`, `prepare` and `check`.
    results : dict
        The content of the report: errors of forces (eV/Å) and force constants on held-out frames,
        drift, holes along stretched bonds, times.
    json_file : Path
        The report; a page and a picture are beside the student.
    """

    student: Path
    results: dict[str, Any]
    json_file: Path


@dataclass(frozen=True, eq=False)
class Task:
    """A distillation that has been checked, and not begun.

    Attributes
    ----------
    systems : list of ase.Atoms
        What to learn from.
    settings : DistillationSettings
        How.
    output, work : Path
        The student, and the folder of labels and checkpoints.
    json_file : Path or None
        Another place for the report.
    extra : list of ase.Atoms
        Frames of a run.
    until_clean_ps : float
        Length of the runs that follow, ps; 0: none.
    """

    systems: list[Atoms]
    settings: DistillationSettings
    output: Path
    work: Path
    json_file: Path | None
    extra: list[Atoms]
    until_clean_ps: float

    def carry_out(self, *, command: str, report: Progress) -> DistillationResult:
        """Sample, train and measure; what was done before a kill is not done again."""
        keep_memory()
        arguments: dict[str, Any] = {
            "output": self.output,
            "work": self.work,
            "command": command,
            "report": report,
            "json_file": self.json_file,
            "extra": self.extra,
        }
        if self.until_clean_ps:
            found = until_clean(
                self.systems, self.settings, picoseconds=self.until_clean_ps, **arguments
            )
        else:
            found = make(self.systems, self.settings, **arguments)
        json_file = self.json_file or self.output.with_suffix(".json")
        return DistillationResult(self.output, found, json_file)


def plan(
    structures: Sequence[str | Path] = (),
    output: str | Path = "student.safetensors",
    *,
    minutes: float | None = None,
    updates: int | None = None,
    frames: int | None = None,
    base: str | None = None,
    from_run: str | Path | None = None,
    until_clean_ps: float = 0.0,
    dtype: str = "float32",
    without: Sequence[str] = (),
    device: str = "cpu",
    work: str | Path | None = None,
    json_file: str | Path | None = None,
    force: bool = False,
    tell: Callable[[str], None] = print,
    **settings: Any,
) -> Task:
    """Check all that `distill` takes, and read what it learns from.

    Parameters
    ----------
    **settings
        The others of `distill`, for `mts_driver.distillation.settings.DistillationSettings`.

    Raises
    ------
    UserError
        As `distill`, before any work.
    """
    student = Path(output)
    folder = student.with_suffix("") if work is None else Path(work)
    goes_on = bool(until_clean_ps) and unfinished(folder, student)
    check_output(student, name="output", suffix=".safetensors", force=force or goes_on)
    require_writable(folder, name=f"work={str(folder)!r}")
    report = None if json_file is None else Path(json_file)
    if report is not None:
        check_output(report, name="json_file")
    check_device(device)
    if dtype not in ("float32", "float64"):
        raise UserError(f"dtype={dtype!r} is not supported: use float32 or float64.")
    for kind in without:
        if kind not in (*PLAIN, Kind.STIFF):
            allowed = ", ".join((*PLAIN, Kind.STIFF))
            raise UserError(f"without={kind!r}: there is no such kind of labels; use {allowed}.")
    paths = [require_file(path, name="a structure") for path in structures]
    extra = list[Atoms]()
    if from_run is not None:
        run = Path(from_run)
        run = run.parent if run.is_file() else run
        extra = frames_to_learn(run)
        paths = paths or [run / "start.extxyz"]
        base = base or _student_of(run / "input.xml")
    if not paths:
        raise UserError("STRUCTURES is missing: give a structure file, or from_run=FOLDER.")
    systems = [atoms for path in paths for atoms in read_systems(path, tell=tell)]
    chosen = DistillationSettings(
        structures=tuple(path.name for path in paths),
        base=base,
        minutes=DEFAULT_MINUTES if minutes is updates is frames is None else minutes,
        updates=updates,
        frames=frames,
        dtype=dtype,
        without=tuple(without),
        device=device,
        **settings,
    )
    if chosen.teacher.startswith("socket:"):
        _require_one_system(systems, chosen)
    return Task(systems, chosen, student, folder, report, extra, until_clean_ps)


def _require_one_system(systems: Sequence[Atoms], settings: DistillationSettings) -> None:
    """Refuse what would ask a program behind a socket about other atoms than it knows."""
    cut = any(fragment_radius_A(atoms, settings) for atoms in systems)
    parts = "fragments" if cut else "droplets" if settings.base and droplets(systems) else ""
    if len(systems) > 1 or parts:
        what = f"{len(systems)} systems" if len(systems) > 1 else f"{parts} of a system"
        raise UserError(
            f"teacher={settings.teacher!r} with {what}: a program behind a socket knows one "
            "system. Distil one at a time, of up to 2000 atoms; without `base` there are no "
            "droplets."
        )


def distill(
    structures: Sequence[str | Path] | str | Path = (),
    output: str | Path = "student.safetensors",
    *,
    teacher: str = "so3lr",
    minutes: float | None = None,
    updates: int | None = None,
    frames: int | None = None,
    base: str | None = None,
    from_run: str | Path | None = None,
    until_clean_ps: float = 0.0,
    temperature_K: float = 300.0,
    outer_fs: float = 6.0,
    cutoff_A: float | None = None,
    channels: int | None = None,
    messages: int | None = None,
    hidden: int | None = None,
    direct: bool = False,
    dtype: str = "float32",
    fragment_radius_A: float | None = None,
    without: Sequence[str] = (),
    seed: int = 1,
    device: str = "cpu",
    work: str | Path | None = None,
    json_file: str | Path | None = None,
    force: bool = False,
    command: str = "mts_driver.distill",
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> DistillationResult:
    """Make a student of a teacher: sample, train, and report; `mts distill` does the same.

    A distillation that was killed continues where it was at the same call.

    Parameters
    ----------
    structures : path or sequence of path
        Files to learn from, of any format that ASE reads; of a file whose frames have names
        (``info['system']``) every frame is one, of others the last.
    output : path
        The student to write, ``NAME.safetensors``.
    teacher : str
        Specification of the model to imitate; see `mts_driver.load_potential`. ``{charge}`` in it
        stands for the charge of a fragment.
    minutes : float, optional
        For sampling and training; 10 where nothing else is given.
    updates, frames : int, optional
        Both, instead of ``minutes``: steps of the training, and labels that are made, about. The
        same seed then gives the same student on any day, with as many threads.
    base : str, optional
        Student to fine-tune: a file, or the name of a packaged one.
    from_run : path, optional
        Folder of a run, whose frames at which the student was wrong are learned.
    until_clean_ps : float
        Run teacher and student together for so long, ps, learn from holes, and repeat until there
        is none; 0: do not.
    temperature_K, outer_fs : float
        Of the later runs, K and fs; the drift at this outer step decides which student is kept.
    cutoff_A : float, optional
        Distance at which two atoms of the student see each other, Å; 3.5, or that of ``base``,
        which this and the next three may repeat but not change.
    channels, messages, hidden : int, optional
        Radial functions, those of the message pass (0: none), and width of the networks; 16, 8
        and 64.
    direct : bool
        Forces straight from the network, without an energy, at half the cost.
    dtype : str
        ``float32`` or ``float64``, of training and weights.
    fragment_radius_A : float, optional
        Cut systems into pieces of this radius, Å; 0: never; by default 10 above 2000 atoms.
    without : sequence of str
        Kinds of labels that are left out of the training.
    seed : int
        Of everything random.
    device : str
        ``cpu`` or ``cuda:0``, of the teacher; students train on the CPU.
    work : path, optional
        Folder of labels and checkpoints; by default ``output`` without its suffix.
    json_file : path, optional
        Another place for the report.
    force : bool
        Whether to replace a student.
    command : str
        Kept with the student.
    tell, report : callable
        Take sentences for the user, and ``(stage, done, total)``.

    Returns
    -------
    DistillationResult
        The student, and what it is worth.

    Raises
    ------
    UserError
        If something cannot be, or the teacher fails.
    """
    task = plan(
        [structures] if isinstance(structures, str | Path) else structures,
        output,
        teacher=teacher,
        minutes=minutes,
        updates=updates,
        frames=frames,
        base=base,
        from_run=from_run,
        until_clean_ps=until_clean_ps,
        temperature_K=temperature_K,
        outer_fs=outer_fs,
        cutoff_A=cutoff_A,
        channels=channels,
        messages=messages,
        hidden=hidden,
        direct=direct,
        dtype=dtype,
        fragment_radius_A=fragment_radius_A,
        without=without,
        seed=seed,
        device=device,
        work=work,
        json_file=json_file,
        force=force,
        tell=tell,
    )
    return task.carry_out(command=command, report=report)


def _student_of(run_input: Path) -> str:
    """Return the file or name of the student that a run used."""
    found = read_input(run_input)
    model = found.models.get(found.student or "", "")
    if model.startswith("student:"):
        file, _ = file_and_options(model.removeprefix("student:"))
        beside = run_input.parent / file
        return str(beside) if beside.is_file() else file
    raise UserError(
        f"from_run={str(run_input.parent)!r}: its input names no student of this package to start "
        "from: give one with base."
    )
