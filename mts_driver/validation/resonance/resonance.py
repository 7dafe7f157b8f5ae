"""How far the outer step can go, from a structure to a report: `resonance`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.files import check_output, write_json
from mts_driver.potentials import load_potential
from mts_driver.potentials.backends import file_and_options
from mts_driver.potentials.load import spec_for
from mts_driver.potentials.student.file import find_student
from mts_driver.processes import keep_memory
from mts_driver.progress import Progress
from mts_driver.structures.files import read_structure, require_file
from mts_driver.structures.held_bonds import held_pairs
from mts_driver.validation.resonance.judge import PURPOSES
from mts_driver.validation.resonance.points import ScanSettings
from mts_driver.validation.resonance.scan import scan

OUTER_FS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)


@dataclass(frozen=True, eq=False)
class ResonanceResult:
    """A scan over outer steps.

    Attributes
    ----------
    results : dict
        The content of the JSON file: ``reference`` and ``scan``, a dictionary a point.
    recommended_outer_fs : float or None
        The largest safe outer step of what leaves dynamics as they are, fs; None if there is none.
    recommended_for_sampling_outer_fs : float or None
        The same with more friction on hydrogens as well, which slows diffusion.
    recommended : dict or None
        Arguments of `mts_driver.prepare` for the largest safe outer step for ``purpose``.
    json_file : Path
        The scan.
    picture : Path or None
        Beside it.
    no_picture : str
        Why there is none; empty if there is one.
    """

    results: dict[str, Any]
    recommended_outer_fs: float | None
    recommended_for_sampling_outer_fs: float | None
    recommended: dict[str, Any] | None
    json_file: Path
    picture: Path | None
    no_picture: str


def resonance(
    structure: str | Path,
    *,
    teacher: str = "so3lr",
    student: str = "water",
    outer_fs: Sequence[float] = OUTER_FS,
    inner_fs: float = 1.0,
    hydrogen_mass_Da: Sequence[float] = (0.0, 4.0),
    friction_per_ps: float = 1.0,
    hydrogen_friction_per_ps: Sequence[float] = (20.0,),
    high_pass: bool = True,
    constrain_hydrogens: bool | None = None,
    rigid_water: bool = False,
    constrained_inner_fs: float = 2.0,
    purpose: str = "dynamics",
    temperature_K: float = 300.0,
    picoseconds: float = 2.0,
    equilibrate_ps: float = 1.0,
    replicas: int | None = None,
    seed: int = 1,
    device: str = "cpu",
    json_file: str | Path | None = None,
    force: bool = False,
    command: str = "mts_driver.resonance",
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> ResonanceResult:
    """Scan outer steps, and recommend the largest safe one; `mts resonance` calls this.

    A scan that was killed continues at the same call.

    Parameters
    ----------
    structure : path
        Any file that ASE reads; its last frame.
    teacher, student : str
        A specification (see `mts_driver.load_potential`), and a file of `mts distill` or the name
        of a packaged student.
    outer_fs : sequence of float
        Outer steps, fs.
    inner_fs : float
        About this long, fs; a whole number of inner steps makes an outer one.
    hydrogen_mass_Da : sequence of float
        Da, taken from heavy atoms; 0: natural.
    friction_per_ps : float
        Of the Langevin thermostat, 1/ps.
    hydrogen_friction_per_ps : sequence of float
        More friction on the heaviest hydrogens, 1/ps.
    high_pass : bool
        Whether coloured noise, which damps fast vibrations only, is scanned with the heaviest
        hydrogens.
    constrain_hydrogens : bool, optional
        Whether held bonds to hydrogen are scanned, with the heaviest hydrogens; by default where
        they can be held.
    rigid_water : bool
        Whether the distance of both hydrogens of a water molecule is held there, too.
    constrained_inner_fs : float
        Inner step with held bonds, fs; outer steps that are no multiples are left out there.
    purpose : str
        ``dynamics``: slow motion has to be left alone. ``sampling``: more friction on hydrogens is
        welcome.
    temperature_K : float
        K.
    picoseconds, equilibrate_ps : float
        Length of every run, and of the dynamics with the student before, ps.
    replicas : int, optional
        Runs in one batch; 1 on a CPU and 8 on a GPU by default.
    seed : int
        Of velocities and noise.
    device : str
        ``cpu`` or ``cuda:0``, of both models.
    json_file : path, optional
        The scan; by default ``STRUCTURE-resonance.json`` here.
    force : bool
        Whether to replace an older scan.
    command : str
        Kept in the report.
    tell, report : callable
        Take sentences for the user, and ``(stage, done, total)``.

    Returns
    -------
    ResonanceResult
        All points, and the recommendation.

    Raises
    ------
    UserError
        If something cannot be, or the state of another scan is there.
    """
    if purpose not in PURPOSES:
        raise UserError(f"purpose={purpose!r}: use {' or '.join(PURPOSES)}.")
    target = Path(f"{require_file(structure, name='structure').stem}-resonance.json")
    target = target if json_file is None else Path(json_file)
    check_output(target, name="json_file", suffix=".json", force=force)
    atoms = read_structure(structure, tell=tell)
    if rigid_water:
        if constrain_hydrogens is False:
            raise UserError(
                "rigid_water=True with constrain_hydrogens=False: it holds all bonds to hydrogen; "
                "leave one of the two out."
            )
        held_pairs(atoms, rigid_water=True)  # says where there is no water
        constrain_hydrogens = True
    settings = ScanSettings(
        teacher=teacher,
        student=student,
        outer_fs=tuple(outer_fs),
        inner_fs=inner_fs,
        hydrogen_mass_Da=tuple(hydrogen_mass_Da),
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=tuple(hydrogen_friction_per_ps),
        high_pass=high_pass,
        constrain_hydrogens=_can_hold(atoms, constrain_hydrogens, tell),
        rigid_water=rigid_water,
        constrained_inner_fs=constrained_inner_fs,
        temperature_K=temperature_K,
        picoseconds=picoseconds,
        equilibrate_ps=equilibrate_ps,
        replicas=replicas or (1 if device == "cpu" else 8),
        seed=seed,
    )
    if constrain_hydrogens and not settings.constrained_outer_fs:
        raise UserError(
            f"constrained_inner_fs={constrained_inner_fs:g}: no outer_fs is a multiple of it; give "
            "one, or leave constrain_hydrogens out."
        )
    numbers = atoms.numbers.tolist()
    name, options = file_and_options(student.removeprefix("student:"))
    file = find_student(name)
    fast = load_potential(f"student:{file}{options}", numbers, device=device)
    slow = load_potential(spec_for(teacher, atoms), numbers, device=device)
    keep_memory()
    state_file = target.with_suffix(".part")
    found = scan(atoms, slow, fast, settings, state_file=state_file, report=report)
    found = {"structure": str(structure), "purpose": purpose, **found, "command": command}
    write_json(target, found)
    state_file.unlink(missing_ok=True)
    picture, no_picture = _drawn(found, target.with_suffix(".png"))
    return ResonanceResult(
        results=found,
        recommended_outer_fs=found["recommended_outer_fs"],
        recommended_for_sampling_outer_fs=found["recommended_for_sampling_outer_fs"],
        recommended=(found["recommended"][purpose] or {}).get("arguments"),
        json_file=target,
        picture=picture,
        no_picture=no_picture,
    )


def _can_hold(atoms: Atoms, asked: bool | None, tell: Callable[[str], None]) -> bool:
    if asked is False:
        return False
    try:
        found = bool(held_pairs(atoms))
    except UserError as error:
        if asked:
            raise
        if 1 in atoms.numbers:
            tell(f"no points with held bonds to hydrogen: {error}")
        return False
    if asked and not found:
        raise UserError("constrain_hydrogens=True, but no hydrogen can move: leave it out.")
    return found


def _drawn(found: dict[str, Any], path: Path) -> tuple[Path | None, str]:
    try:
        from mts_driver.validation.resonance.figure import draw
    except ImportError:
        return None, "no picture: pip install 'mts-driver[analysis]'"
    try:
        draw(found, path)
    except Exception as error:  # the numbers are written: a scan does not end in a traceback
        return None, f"no picture: {type(error).__name__}: {error}"
    return path, ""
