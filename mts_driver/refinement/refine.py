"""A model fitted to what trajectories show: `refine`, which `mts refine` calls."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from integrators.levels import SingleLevel
from integrators.splitting import baoab
from mts_driver.errors import UserError
from mts_driver.files import first_difference, read_json, require_writable, write_json
from mts_driver.processes import keep_memory
from mts_driver.progress import Progress
from mts_driver.refinement.aims import Aims, goals_of
from mts_driver.refinement.averages import Averages, averages
from mts_driver.refinement.fit import FitSettings, fit
from mts_driver.refinement.goals.goal import Goals
from mts_driver.refinement.kept import STATE_FILE, Update
from mts_driver.refinement.methods.reversible import Reversible
from mts_driver.refinement.methods.reweighting import LEAST_SHARE, Reweighting
from mts_driver.refinement.models import Trainable, open_model
from mts_driver.refinement.problem import Method, Problem
from mts_driver.refinement.results import summary
from mts_driver.refinement.settings import RefineSettings
from mts_driver.refinement.steps.by_ensemble import ByEnsemble
from mts_driver.refinement.system import System

IDENTITY = "refinement.json"
KEPT = (IDENTITY, "before.pt", "teacher.pt", "after.pt", STATE_FILE)
"""What a refinement goes on from after a kill."""
SINGLE_ANCHORS = 20
"""Steps after which the way back starts anew where rounding is that of single precision."""


@dataclass(frozen=True, eq=False)
class Refinement:
    """What came of it.

    Attributes
    ----------
    model : Path
        The refined model.
    results : dict
        The content of ``results.json``: how far off every observable was and is, and the history.
    picture : Path or None
        Loss, parameters and observables.
    no_picture : str
        Why there is none; empty if there is one.
    """

    model: Path
    results: dict[str, Any]
    picture: Path | None
    no_picture: str


def refine(
    model: str,
    structure: str | Path,
    *,
    output: str | Path = "refined",
    teacher: str | None = None,
    fit_to: Sequence[str] = ("rdf", "bonds"),
    rdf_file: str | Path | None = None,
    vaporisation_kJ_mol: float | None = None,
    diffusion: Sequence[tuple[str, float]] = (),
    elastic_GPa: Sequence[float] = (),
    train: Sequence[str] = (),
    settings: RefineSettings | None = None,
    force: bool = False,
    command: str = "mts_driver.refine",
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> Refinement:
    """Fit the parameters of a model until its own trajectories show what they should.

    The gradient of a loss along the trajectory comes from running it backwards
    (`integrators.reversible`), or from reweighting its states. A refinement that was killed goes on
    at the same call.

    Parameters
    ----------
    model : str
        ``student:FILE`` or ``classical:FILE``: where to start from.
    structure : path
        Any file that ASE reads; a periodic system, its last frame.
    output : path
        Folder for the refined model, ``results.json`` and ``refinement.png``.
    teacher : str, optional
        A model whose trajectory is the target: its g(r) between molecules, lengths of X–H bonds
        and the spectrum of its hydrogens, as ``fit_to`` names them.
    fit_to : sequence of str
        Of a teacher: ``rdf``, ``bonds``, ``spectrum``.
    rdf_file : path, optional
        Measured g(r) of water: r, g_OO, error, g_OH, error, g_HH, error.
    vaporisation_kJ_mol : float, optional
        Measured enthalpy of vaporisation of the molecule that most atoms belong to.
    diffusion : sequence of (str, float)
        Molecules by formula, as ``O2``, and their D, 1e-9 m²/s.
    elastic_GPa : sequence of float
        C11, C12 and C44 of the structure, a cubic crystal at rest, which is to be without stress.
    train : sequence of str
        Names of the parameters to fit; all that the model can have fitted, where it is empty.
    settings : RefineSettings, optional
        Trajectories and updates; those of `RefineSettings.for_model` where they are left out.
    force : bool
        Whether to start anew where the folder holds a refinement.
    command : str
        Kept in the results.
    tell, report : callable
        Take sentences for the user, and ``(stage, done, total)``.

    Raises
    ------
    UserError
        If something cannot be; what was done before stays.
    """
    settings, folder = settings or RefineSettings.for_model(model), Path(output)
    require_writable(folder, name=f"output='{output}'")
    system = System.read(Path(structure), tell)
    opened = open_model(model, system.atoms, train, precise=bool(elastic_GPa))
    keep_memory()
    aims = Aims(
        teacher=teacher,
        fit_to=tuple(fit_to),
        rdf_file=None if rdf_file is None else Path(rdf_file),
        vaporisation_kJ_mol=vaporisation_kJ_mol,
        diffusion=tuple(diffusion),
        elastic_GPa=tuple(elastic_GPa),
    )
    aims.check(system)
    folder.mkdir(parents=True, exist_ok=True)
    if force:
        for name in KEPT:
            (folder / name).unlink(missing_ok=True)
    identity = {
        "model": model,
        "atoms": system.fingerprint(),
        **aims.identity(),
        "train": list(opened.parameters),
        "values": _digest(opened.parameters),
        # a refinement may be made longer
        **{k: v for k, v in dataclasses.asdict(settings).items() if k not in ("updates", "decay")},
    }
    _same(folder, identity)
    goals = goals_of(aims, system, opened, settings, keep=folder / "teacher.pt", report=report)
    problem = problem_of(opened, goals, settings)
    start = system.start(settings)

    def judged(name: str) -> Averages:
        def on_block(done: int, of: int) -> None:
            report(f"the model {name}", done, of)

        return averages(
            dataclasses.replace(problem, settle_steps=4 * problem.settle_steps),
            [goal.observable for goal in goals.goals],
            start,
            blocks=settings.blocks,
            seed=settings.seed + 1,
            keep=folder / f"{name}.pt",
            on_block=on_block,
        )

    before = judged("before")

    def on_update(k: int, update: Update) -> None:
        report(f"updates, loss {update.loss:.3g}", k + 1, settings.updates)

    history, _ = fit(
        *(problem, method_of(settings, opened), before.end),
        FitSettings(
            updates=settings.updates,
            learning_rate=settings.learning_rate,
            decay=settings.decay,
            longest_gradient=settings.longest_gradient,
            seed=settings.seed,
        ),
        steps=ByEnsemble(opened.energy) if settings.metric == "ensemble" else None,
        folder=folder,
        on_update=on_update,
    )
    after_file = folder / "after.pt"
    after_file.unlink(missing_ok=True)
    after = judged("after")
    refined = opened.save(folder, {"command": command, "updates": len(history)})
    results = {
        "command": command,
        "model": model,
        "refined": str(refined),
        "structure": str(structure),
        "settings": dataclasses.asdict(settings),
        "observables": summary(goals.goals, before, after),
        "history": [dataclasses.asdict(update) for update in history],
    }
    write_json(folder / "results.json", results)
    picture, why = _drawn(folder / "refinement.png", model, goals, before, after, history)
    return Refinement(refined, results, picture, why)


def _digest(parameters: Mapping[str, Tensor]) -> str:
    """Tell files of the same name apart."""
    found = hashlib.sha256()
    for parameter in parameters.values():
        found.update(parameter.detach().double().numpy().tobytes())
    return found.hexdigest()


def _same(folder: Path, identity: dict[str, Any]) -> None:
    """Keep what a refinement is of, and refuse to go on from another."""
    file, now = folder / IDENTITY, json.loads(json.dumps(identity))
    if file.exists():
        remedy = "give another --output, or --force to start anew."
        before = read_json(file, remedy=remedy)
        if (name := first_difference(before, now)) is not None:
            raise UserError(
                f"output='{folder}' holds a refinement with {name}={before.get(name)!r}, not "
                f"{now.get(name)!r}: {remedy}"
            )
    write_json(file, now)


def problem_of(opened: Trainable, goals: Goals, settings: RefineSettings) -> Problem:
    """Return trajectories of a model by itself, and the loss of them."""
    steps, snapshots, _ = settings.snapshots(in_time=goals.in_time)
    return Problem(
        levels=SingleLevel(opened.potential),
        splitting=baoab(),
        parameters=opened.parameters,
        loss=goals,
        steps=steps,
        snapshots=snapshots,
        timestep_fs=settings.timestep_fs,
        bath=settings.bath,
        settle_steps=settings.steps_of(1000.0 * settings.settle_ps),
    )


def method_of(settings: RefineSettings, opened: Trainable) -> Method:
    """Return the way to a gradient."""
    if settings.method == "reweighting":
        # steps by the ensemble are long, and follow from states: each has its own
        least = 1.0 if settings.metric == "ensemble" else LEAST_SHARE
        return Reweighting(least, opened.energy)
    truncation = settings.truncation_fs
    return Reversible(
        truncation_steps=None if truncation is None else settings.steps_of(truncation),
        growth_bound=settings.growth_bound,
        anchor_every=SINGLE_ANCHORS if opened.as_it_was is not None else None,
    )


def _drawn(
    path: Path,
    model: str,
    goals: Goals,
    before: Averages,
    after: Averages,
    history: Sequence[Update],
) -> tuple[Path | None, str]:
    """Draw; a refinement never fails for its picture."""
    from mts_driver.refinement.figure import draw

    title = f"{model}, {len(history)} updates"
    try:
        draw(title, goals.goals, before, after, history, path)
    except (OSError, ValueError, RuntimeError, UserError) as error:
        return None, f"no picture: {error}"
    return path, ""
