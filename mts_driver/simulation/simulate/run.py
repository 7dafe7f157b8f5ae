"""A trajectory in this process: `simulate`."""

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from integrators.levels import DEFAULT_CLIP
from integrators.noise import Counter, CounterNoise
from integrators.outer_steps import OuterSteps
from integrators.state import Potential
from mts_driver.errors import UserError, require_number
from mts_driver.potentials.load import as_potential, student_spec
from mts_driver.processes import keep_memory
from mts_driver.simulation.simulate.checkpoint import Checkpoint, CheckpointFile
from mts_driver.simulation.simulate.held import distances_to_hold
from mts_driver.simulation.simulate.identity import identity_of
from mts_driver.simulation.simulate.progress import StepBar
from mts_driver.simulation.simulate.record import Record
from mts_driver.simulation.simulate.result import SimulationResult, Timings
from mts_driver.simulation.simulate.settings import SimulationSettings
from mts_driver.simulation.simulate.start import Start
from mts_driver.simulation.simulate.timed_model import BLOWN_UP, TimedModel, models_on_device
from mts_driver.simulation.simulate.trajectory_file import TrajectoryFile, require_two_files
from mts_driver.thermostats import chosen, high_friction, high_pass_noise
from mts_driver.units import BOLTZMANN_EV_K

Model = str | BaseCalculator | Potential
SAME_EV_A = 1e-3
KEPT_STEPS = 10_000
"""Forces of one model on one structure agree far better, on any machine."""


def simulate(
    atoms: Atoms | str | Path,
    *,
    steps: int,
    teacher: Model = "so3lr",
    student: Model | None = "water",
    outer_fs: float = 6.0,
    inner_fs: float = 1.0,
    temperature_K: float = 300.0,
    friction_per_ps: float = 1.0,
    hydrogen_friction_per_ps: float | None = None,
    thermostat: str = "auto",
    high_friction_per_ps: float | None = None,
    constrain_hydrogens: bool = False,
    rigid_water: bool = False,
    bond_lengths_A: Mapping[str, float] | None = None,
    hydrogen_mass_Da: float = 4.0,
    seed: int = 20260,
    trajectory: str | Path | None = None,
    stride: int = 5,
    checkpoint: str | Path | None = None,
    checkpoint_stride: int = 200,
    progress: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
) -> SimulationResult:
    """Run molecular dynamics with two models in this process, by RESPA-BAOAB.

    The student moves the atoms every ``inner_fs``, with the thermostat inside these steps, and the
    teacher corrects it every ``outer_fs``. Steps and random numbers are those of `mts run` with
    ``--device-steps``: the same start and seed give the same trajectory, to rounding.

    Parameters
    ----------
    atoms : ase.Atoms or path
        The start, or a file of it. Charge, multiplicity, masses with isotopes, cell and
        ``FixAtoms`` are honoured, and what cannot be is refused. Velocities are kept if there are
        any; otherwise they are drawn at ``temperature_K``. Nothing is relaxed or equilibrated.
    steps : int
        Outer steps in all, those before a checkpoint included.
    teacher : str, ASE calculator or Potential
        A specification such as ``"so3lr"`` (see `load_potential`), any ASE calculator object, or a
        potential for these atoms.
    student : str, ASE calculator, Potential or None
        The same; also a file of `mts distill` or the name of a packaged student. None for single
        steps of the teacher, of ``outer_fs``.
    outer_fs, inner_fs : float
        Outer and inner time step, fs; the first is a multiple of the second.
    temperature_K : float
        Of the Langevin thermostat, K.
    friction_per_ps : float
        Of the thermostat, 1/ps; 0 for constant energy.
    hydrogen_friction_per_ps : float, optional
        The same for hydrogens; high friction on them slows diffusion.
    thermostat : str
        ``langevin``: white noise. ``high-pass``: coloured noise with up to 50/ps more friction on
        motion above 1200 1/cm and hardly any more on slow motion, for outer steps beyond 6 fs.
        ``auto``: the second beyond 6 fs, unless something else is given that takes its place.
    high_friction_per_ps : float, optional
        In the place of these 50/ps; 200 damps the stretches of heavy bonds of a solute as well.
    constrain_hydrogens, rigid_water : bool
        Whether bonds to hydrogen are held at their lengths, and the distance of both hydrogens of
        a water molecule as well; for outer steps of 12 fs, with inner ones of 2.
    bond_lengths_A : mapping of str to float, optional
        Lengths by elements or kind, such as ``{"O-H": 0.98}``, Å; by default their averages over
        1 ps of the student (or the teacher, without one) at ``temperature_K``.
    hydrogen_mass_Da : float
        Mass of hydrogens, Da, taken from the heavy atoms that they are bonded to; 0: natural.
    seed : int
        Of velocities and thermostat.
    trajectory : path, optional
        Extended-XYZ file of frames every ``stride`` outer steps, the start included, with the
        teacher's energy (eV) and forces (eV/Å), ASE's momenta (velocities) and the masses of the
        run. An older file is kept as ``#name#0#``.
    stride : int
        Outer steps between frames, and between values of ``properties``.
    checkpoint : path, optional
        File (``*.safetensors``) to continue from if it is there, and to write every
        ``checkpoint_stride`` outer steps and at the end. A continued trajectory is the
        uninterrupted one bit for bit (on a GPU to rounding), and no frame is written twice.
    checkpoint_stride : int
        Outer steps between two checkpoints.
    progress : bool
        Whether to show a bar on a terminal.
    device, dtype : str
        Of models that are loaded here: ``cpu``, ``cuda:0``; ``float32`` or ``float64``.

    Returns
    -------
    SimulationResult
        The last frame, values over time, temperatures, speed, and where the student was wrong.

    Raises
    ------
    UserError
        If a parameter is out of range or something that the atoms say cannot be honoured, a model
        cannot be loaded or fails, the checkpoint is of another simulation, or the trajectory blows
        up. What was written before stays.

    Warns
    -----
    UserWarning
        About each thing of the start that was converted.

    Notes
    -----
    B_slow(½) [B_fast(½) A(½) O A(½) B_fast(½)]ⁿ B_slow(½) is Algorithm 1 of Cattin et al.,
    arXiv:2510.06562; the difference of both forces is bounded to 150 kcal/mol/Å an atom, as there.
    Masses are repartitioned as by Hopkins et al., J. Chem. Theory Comput. 2015, 11, 1864.
    Temperatures are read behind O, since the velocity at the end of a step is too cold. The centre
    of mass is kept still unless atoms are held. A calculator or potential that is given as an
    object is known to a checkpoint by the forces that it gives.

    Examples
    --------
    >>> import mts_driver as mts
    >>> run = mts.simulate("inputs/water64/start.extxyz", steps=200, seed=1)  # doctest: +SKIP
    >>> run.temperatures_K["H"], run.ns_per_day  # doctest: +SKIP
    """
    spec = student_spec(student)[0] if isinstance(student, str | Path) else student
    for name, value in (
        *(("outer_fs", outer_fs), ("inner_fs", inner_fs), ("temperature_K", temperature_K)),
        *(("friction_per_ps", friction_per_ps), ("hydrogen_mass_Da", hydrogen_mass_Da)),
    ):
        require_number(value, name=name)
    thermostat = chosen(
        thermostat,
        outer_fs=outer_fs,
        student=spec is not None,
        friction_per_ps=friction_per_ps,
        hydrogen_friction=hydrogen_friction_per_ps is not None,
    )
    settings = SimulationSettings(
        outer_fs=outer_fs,
        inner_fs=outer_fs if spec is None else inner_fs,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=(
            friction_per_ps if hydrogen_friction_per_ps is None else hydrogen_friction_per_ps
        ),
        hydrogen_mass_Da=hydrogen_mass_Da,
        steps=steps,
        stride=stride,
        checkpoint_stride=checkpoint_stride,
        seed=seed,
        high_pass=thermostat == "high-pass",
        high_friction_per_ps=high_friction(
            high_friction_per_ps, high_pass=thermostat == "high-pass"
        ),
        constrain_hydrogens=constrain_hydrogens,
        rigid_water=rigid_water,
        bond_lengths_A=dict(bond_lengths_A or {}),
    )
    require_two_files(trajectory, checkpoint)
    start = Start.of(atoms, settings)
    file, saved = None, None
    if checkpoint is not None:
        identity = identity_of(start, settings, teacher, spec, trajectory, dtype)
        file = CheckpointFile(Path(checkpoint), identity)
        saved = file.load()
    if saved is not None and saved.step > steps:
        raise UserError(
            f"steps={steps}, but checkpoint '{checkpoint}' has done {saved.step}: give more steps, "
            "or another checkpoint."
        )
    made = {"device": device, "dtype": dtype}
    slow = TimedModel(as_potential(teacher, start.atoms, name="teacher", **made), "the teacher")
    fast = None
    if spec is not None:
        fast = TimedModel(as_potential(spec, start.atoms, name="student", **made), "the student")
    keep_memory()
    if settings.constrained:
        held = saved.distances() if saved is not None else None
        model = slow if fast is None else fast
        start = start.held(distances_to_hold(start, settings, model.potential, held))
    run = _Run(start, settings, slow, fast)
    if saved is not None:
        run.restore(saved)
    known = saved.values["trajectory_bytes"] if saved is not None else None
    if trajectory is None:
        return run.to_the_end(None, file, progress=progress)
    with TrajectoryFile(Path(trajectory), continue_at=known) as frames:
        return run.to_the_end(frames, file, progress=progress)


class _Run:
    """One trajectory on its way."""

    def __init__(
        self,
        start: Start,
        settings: SimulationSettings,
        teacher: TimedModel,
        student: TimedModel | None,
    ) -> None:
        self._start, self._settings = start, settings
        self._teacher, self._student = teacher, student
        fixcom = bool(np.isfinite(start.masses).all())
        self._record = Record(start, settings, clip_eV_A=DEFAULT_CLIP, fixcom=fixcom)
        hydrogen = start.atoms.numbers == 1
        self._friction_per_ps = np.where(
            hydrogen, settings.hydrogen_friction_per_ps, settings.friction_per_ps
        )
        both = settings.friction_per_ps, settings.high_friction_per_ps
        coloured = high_pass_noise(*both) if settings.high_pass else None
        white = 0.0 if settings.high_pass else 1e-3
        self._outer = OuterSteps(
            teacher,
            student,
            masses=start.masses,
            n=settings.n_inner,
            timestep=settings.outer_fs,
            kT=BOLTZMANN_EV_K * settings.temperature_K,
            friction=white * self._friction_per_ps,
            groups=np.array(list(self._record.groups.values()), bool).reshape(-1, len(hydrogen)),
            clip=DEFAULT_CLIP,
            fixcom=fixcom,
            coloured=coloured,
            distances=start.distances,
            on_device=models_on_device(teacher, student),
        )
        self._extra: np.ndarray | None = None
        if coloured is not None:
            kT = BOLTZMANN_EV_K * settings.temperature_K
            self._extra = start.random.extra_momenta(coloured.extra, len(hydrogen), kT)
        self._step = 0
        self._positions, self._momenta = start.atoms.positions.copy(), start.momenta
        self._spent = np.zeros(5)
        self._ends_s = deque[float](maxlen=KEPT_STEPS + 1)
        self._saved: Checkpoint | None = None

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self._saved, self._step = saved, saved.step
        self._positions, self._momenta = saved.arrays["positions"], saved.arrays["momenta"]
        self._extra = saved.arrays.get("extra", self._extra)
        self._spent = saved.arrays["spent"]
        self._record.restore(saved.arrays, saved.values)
        self._start.random.skip(saved.step)

    def to_the_end(
        self, frames: TrajectoryFile | None, file: CheckpointFile | None, *, progress: bool
    ) -> SimulationResult:
        """Take the steps that are left."""
        settings, cell = self._settings, self._start.cell
        teacher, student = self._outer.look(self._positions, cell)
        if self._saved is None:
            self._record.begin(self._positions, teacher, student)
            self._write(frames, teacher)
            self._save(file, frames)
        else:
            self._check_models(self._saved)
        before, self._began = self._spent, time.perf_counter()
        self._ends_s.append(0.0)
        for model in (self._teacher, self._student):
            if model is not None:
                model.reset()
        with StepBar(self._step, settings.steps, show=progress) as bar:
            noise = self._noise()
            for step in range(self._step + 1, settings.steps + 1):
                following = self._noise()
                began = time.perf_counter()
                try:
                    stepped = self._outer.take(
                        *(self._positions, self._momenta, cell, noise, self._extra),
                        following=following if step < settings.steps else None,
                    )
                except ValueError as error:  # of bonds that are held
                    raise UserError(f"outer step {step}: {error}: {BLOWN_UP}") from error
                if self._outer.on_device:
                    self._teacher.took(1, time.perf_counter() - began)
                    if self._student is not None:
                        self._student.took(settings.n_inner, 0.0)
                noise = following
                self._record.see(step, stepped)
                self._step, self._extra = step, stepped.extra
                self._positions, self._momenta = stepped.positions, stepped.momenta
                if step % settings.stride == 0:
                    self._write(frames, stepped.teacher)
                self._spent = before + self._now()
                if step % settings.checkpoint_stride == 0 or step == settings.steps:
                    self._save(file, frames)
                bar.show(step, settings.steps, self._text())
                self._ends_s.append(time.perf_counter() - self._began)
        self._record.close()
        return self._result()

    def _noise(self) -> np.ndarray | Counter:
        """Draw that of the next step."""
        seed = self._start.random.seed()
        if self._friction_per_ps.any() or self._outer.on_device:
            return self._outer.draw(CounterNoise(seed), 0)
        return np.zeros((self._settings.n_inner, *self._positions.shape))

    def _now(self) -> np.ndarray:
        """Wall time, and times and calls of both models, since the loop began."""
        student = self._student
        fast = (0.0, 0) if student is None else (student.seconds, student.calls)
        slow = self._teacher.seconds, self._teacher.calls
        return np.array([time.perf_counter() - self._began, slow[0], fast[0], slow[1], fast[1]])

    def _frame(self, forces: np.ndarray, energy_eV: float) -> Atoms:
        return self._start.frame(self._positions, self._momenta, energy_eV=energy_eV, forces=forces)

    def _write(self, frames: TrajectoryFile | None, teacher: Any) -> None:
        if frames is None:
            return
        frame = self._frame(teacher[1][0], float(teacher[0][0]))
        frame.info["step"] = self._step
        frame.info["time_ps"] = round(1e-3 * self._settings.outer_fs * self._step, 9)
        frames.add(frame)

    def _save(self, file: CheckpointFile | None, frames: TrajectoryFile | None) -> None:
        if file is None:
            return
        arrays, values = self._record.saved()
        teacher, student = self._outer.look(self._positions, self._start.cell)
        arrays |= {"positions": self._positions, "momenta": self._momenta, "spent": self._spent}
        if self._extra is not None:
            arrays["extra"] = self._extra
        if (held := self._start.distances) is not None:
            arrays |= {"held_pairs": held.pairs, "held_lengths": held.lengths}
        arrays |= {"teacher_forces": teacher[1], "student_forces": student[1]}
        values["trajectory_bytes"] = None if frames is None else frames.size()
        file.save(Checkpoint(self._step, arrays, values))

    def _check_models(self, saved: Checkpoint) -> None:
        """Require the models to be those of the checkpoint."""
        found = self._outer.look(self._positions, self._start.cell)
        for name, (_, forces, _) in zip(("teacher", "student"), found, strict=True):
            off = np.abs(forces - saved.arrays[f"{name}_forces"]).max()
            if not off < SAME_EV_A:
                raise UserError(
                    f"{name} is not that of the checkpoint: its forces are up to {off:.3g} eV/Å "
                    "off. Give the same model, or another checkpoint."
                )

    def _text(self) -> str:
        wall = self._spent[0]
        ns = 1e-6 * self._settings.outer_fs * self._step
        parts = [f"{ns / wall * 86400:.3f} ns/day"] if wall > 0 else []
        temperatures = self._record.temperatures_K
        parts += [f"T({k}) {temperatures[k]:.0f} K" for k in ("H", "heavy") if k in temperatures]
        return "  ".join([*parts, f"max|ΔF| {self._record.largest_eV_A:.2f} eV/Å"])

    def _result(self) -> SimulationResult:
        teacher, _ = self._outer.look(self._positions, self._start.cell)
        wall, slow, fast, *calls = self._spent.tolist()
        steps = tuple(np.diff(self._ends_s).tolist())
        ns = 1e-6 * self._settings.outer_fs * self._step
        return SimulationResult(
            atoms=self._frame(teacher[1][0], float(teacher[0][0])),
            properties=self._record.properties(),
            temperatures_K=self._record.mean_temperatures_K(),
            temperature_errors_K=self._record.temperature_errors_K(self._friction_per_ps),
            ns_per_day=ns / wall * 86400 if wall > 0 else 0.0,
            holes=self._record.holes(),
            timings=Timings(wall, slow, fast, int(calls[0]), int(calls[1]), steps),
        )
