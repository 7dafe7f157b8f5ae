"""From a structure to the folder of a run: `prepare`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from mts_driver.errors import UserError
from mts_driver.files import require_writable
from mts_driver.potentials.backends import file_and_options
from mts_driver.progress import Progress
from mts_driver.runs.input.mode import MODES, fastest
from mts_driver.thermostats import CUTOFF_PER_CM, chosen, high_friction
from mts_driver.time_steps import MOST_FLEXIBLE_FS, free_bonds_warning

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run that can be started.

    Attributes
    ----------
    input : Path
        The i-PI input, for `run`; its folder has everything else.
    atoms : ase.Atoms
        The start, in the cell that i-PI has.
    outer_fs, inner_fs : float
        Time steps, fs.
    steps : int
        Outer steps.
    """

    input: Path
    atoms: Atoms
    outer_fs: float
    inner_fs: float
    steps: int

    @property
    def picoseconds(self) -> float:
        """Length of the run, ps."""
        return 1e-3 * self.outer_fs * self.steps


def prepare(
    structure: Atoms | str | Path,
    output: str | Path,
    *,
    teacher: str = "so3lr",
    student: str = "water",
    outer_fs: float = 6.0,
    inner_fs: float = 1.0,
    hydrogen_mass_Da: float | None = None,
    temperature_K: float = 300.0,
    friction_per_ps: float = 1.0,
    hydrogen_friction_per_ps: float | None = None,
    thermostat: str = "auto",
    high_friction_per_ps: float | None = None,
    constrain_hydrogens: bool = False,
    rigid_water: bool = False,
    bond_lengths_A: Mapping[str, float] | None = None,
    pressure_bar: float | None = None,
    beads: int = 1,
    teacher_beads: int | None = None,
    exchange_K: Sequence[float] = (),
    steps: int = 3000,
    stride: int = 5,
    seed: int = 20260,
    on_hole: str = "log",
    mode: str = "auto",
    device_steps: int | None = None,
    device: str = "cpu",
    minimise: bool = True,
    equilibrate_ps: float = 2.0,
    velocities: str = "redraw",
    store_for_superres: bool = False,
    force: bool = False,
    tell: Tell = print,
    report: Progress = lambda *_: None,
) -> PreparedRun:
    """Write the folder of a multiple time-step run under i-PI; `mts prepare` calls this.

    Parameters
    ----------
    structure : path or ase.Atoms
        Any file that ASE reads, or atoms. What they say of charge, spin, masses, cell and held
        atoms is kept, or refused.
    output : path
        Folder to make, with ``input.xml`` (plain i-PI, to be read and edited), ``start.extxyz``
        and what they need.
    teacher : str
        Specification of the model of the outer step; see `mts_driver.load_potential`.
    student : str
        File of `mts distill`, name of a packaged student, or ``"none"`` for single steps.
    outer_fs, inner_fs : float
        Outer and inner time step, fs; the first is a multiple of the second.
    hydrogen_mass_Da : float, optional
        Mass of hydrogens, Da, taken from their heavy atoms; 0: natural. By default 4, and 0 with
        several beads.
    temperature_K : float
        K.
    friction_per_ps, hydrogen_friction_per_ps : float
        Of the Langevin thermostat, of all atoms and of hydrogens, 1/ps.
    thermostat : str
        ``langevin``: white noise. ``high-pass``: coloured noise that damps fast vibrations and
        leaves slow motion alone, for outer steps beyond 6 fs. ``auto``: the second for these,
        where nothing else takes its place.
    high_friction_per_ps : float, optional
        Of coloured noise, what it has more on fast motion, 1/ps; 50 by default. 200 damps the
        stretches of heavy bonds of a solute as well.
    constrain_hydrogens, rigid_water : bool
        Whether bonds to hydrogen are held, and the distance of both hydrogens of a water molecule
        as well; for outer steps of 12 fs, with inner ones of 2.
    bond_lengths_A : mapping of str to float, optional
        Lengths by elements or kind, such as ``{"O-H": 0.98}``, Å; by default their averages over
        1 ps of the student (of the teacher, without one).
    pressure_bar : float, optional
        For constant pressure, bar.
    beads, teacher_beads : int
        Of path integrals, and those of the teacher, by contraction.
    exchange_K : sequence of float
        Temperatures of more replicas, exchanged with the first, K.
    steps, stride : int
        Outer steps, and those between frames.
    seed : int
        Of velocities and thermostat.
    on_hole : str
        ``log``, ``stop`` or ``shorten`` the outer step, when the student is wrong.
    mode : str
        ``unix`` or ``shm``: i-PI takes the steps, with two drivers behind sockets. ``zmq``: the
        student's driver takes all inner steps of an outer one at once. ``auto``: whichever way is
        the fastest that the run permits; `tell` gets a line that says which.
    device_steps : int, optional
        With ``zmq`` or ``auto``: one driver holds both models and takes so many outer steps a
        message; 0: none. By default 5 with ``auto`` where the run permits it, and else none.
    device : str
        ``cpu``, ``cuda`` or ``cuda:0``.
    minimise : bool
        Relax with the teacher if a force is too large for dynamics.
    equilibrate_ps : float
        Dynamics with the student before the start, ps; 0: positions stay.
    velocities : str
        ``redraw``: thermal ones; ``keep``: those of the structure.
    store_for_superres : bool
        Write positions, velocities and forces of every outer step, for
        `mts_driver.super_resolution.apply`.
    force : bool
        Whether to write into a folder with files.
    tell : callable
        Takes sentences about what is done.
    report : callable
        ``report(stage, done, total)``, for a progress bar.

    Returns
    -------
    PreparedRun
        The input, and the start.

    Raises
    ------
    UserError
        If something cannot be; nothing is written then.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not force:
        raise UserError(
            f"output={str(output)!r} exists and is not empty: give a new folder, or force=True to "
            "write into it."
        )
    if not isinstance(teacher, str):
        raise UserError(
            f"teacher={teacher!r}: a run starts drivers, which need a specification, such as "
            "'so3lr' or 'ase:MODULE:CALLABLE' for a calculator; simulate takes objects."
        )
    require_writable(output, name=f"output={str(output)!r}")
    if mode not in MODES:
        raise UserError(f"mode={mode!r} is not supported here: use {', '.join(MODES)}.")
    if mode == "auto" and device_steps:
        mode = "zmq"
    if teacher.startswith("socket:"):
        raise UserError(
            f"teacher={teacher!r}: under i-PI a program connects to i-PI itself. Prepare with "
            "another teacher and mode='unix', and remove `model` from the <parameters> of the "
            "<ffsocket> that the program connects to."
        )
    constrained = constrain_hydrogens or rigid_water
    if bond_lengths_A and not constrained:
        raise UserError(
            "bond_lengths_A without constrain_hydrogens: no bond is held; give both, or none."
        )
    thermostat = chosen(
        thermostat,
        outer_fs=outer_fs,
        student=student != "none",
        friction_per_ps=friction_per_ps,
        hydrogen_friction=hydrogen_friction_per_ps is not None,
        beads=beads,
    )
    if velocities not in ("redraw", "keep"):
        raise UserError(f"velocities={velocities!r}: use redraw or keep.")
    if not equilibrate_ps >= 0:
        raise UserError(f"equilibrate_ps={equilibrate_ps:g}: give 0 or more.")
    # what loads torch comes after what takes no time
    from mts_driver.potentials import load_potential
    from mts_driver.potentials.ase import module_here
    from mts_driver.potentials.load import from_anywhere, spec_for, student_spec
    from mts_driver.potentials.virial import gives_virial
    from mts_driver.runs.input.settings import RunSettings
    from mts_driver.runs.run_folder import write_run_folder
    from mts_driver.simulation.bond_lengths import average_lengths
    from mts_driver.simulation.settle import settle
    from mts_driver.structures.files import read_atoms, read_structure
    from mts_driver.structures.fixed import held_atoms, moving_atoms
    from mts_driver.structures.held_bonds import (
        distances,
        heavy_bonds_warning,
        held_pairs,
        on_manifold,
    )
    from mts_driver.structures.masses import repartitioned_masses

    keep = velocities == "keep"
    name = "the atoms" if isinstance(structure, Atoms) else str(structure)
    if isinstance(structure, Atoms):
        atoms = read_atoms(structure, tell=tell, keep_velocities=keep)
    else:
        atoms = read_structure(structure, tell=tell, keep_velocities=keep)
    if keep and not atoms.has("momenta"):
        raise UserError(
            f"velocities='keep': {name} has no velocities (ASE's column momenta): leave "
            "velocities out for thermal ones."
        )
    atoms = _framed(atoms, name, tell)
    teacher = spec_for(teacher, atoms)
    spec, file = student_spec(student)
    if spec and not spec.startswith("student:"):
        spec = spec_for(spec, atoms)
    # drivers run in the folder of the run, which is no place for models of hundreds of MB
    teacher, spec = from_anywhere(teacher), spec and from_anywhere(spec)
    if hydrogen_mass_Da is None:
        hydrogen_mass_Da = 4.0 if beads == 1 else 0.0
    protocol = RunSettings(
        teacher=teacher,
        student=f"student:{file.name}{file_and_options(spec)[1]}" if file and spec else spec,
        outer_fs=outer_fs,
        inner_fs=inner_fs if spec else outer_fs,
        hydrogen_mass=hydrogen_mass_Da,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        hydrogen_friction_per_ps=hydrogen_friction_per_ps,
        beads=beads,
        teacher_beads=teacher_beads,
        pressure_bar=pressure_bar,
        exchange_K=tuple(exchange_K),
        steps=steps,
        stride=stride,
        seed=seed,
        on_hole=on_hole,
        mode="unix" if mode == "auto" else mode,
        device_steps=device_steps or 0,
        device=device,
        periodic=bool(atoms.pbc.all()),
        held=tuple(held_atoms(atoms).tolist()),
        keep_velocities=keep,
        store_for_superres=store_for_superres,
        hydrogens=int((moving_atoms(atoms) & (atoms.numbers == 1)).sum()),
        high_pass=thermostat == "high-pass",
        high_friction_per_ps=high_friction(
            high_friction_per_ps, high_pass=thermostat == "high-pass"
        ),
        constrained=constrained,
    )
    pairs = held_pairs(atoms, rigid_water=rigid_water) if constrained else {}
    if bond_lengths_A:
        distances(pairs, bond_lengths_A)  # refused before any work
    where = ""
    if mode == "auto":
        protocol, where = fastest(protocol)
    if keep and equilibrate_ps and spec:
        raise UserError(
            f"velocities='keep' with equilibrate_ps={equilibrate_ps:g}: after an equilibration "
            "the velocities are others; give equilibrate_ps=0."
        )
    masses_Da = repartitioned_masses(atoms, hydrogen_mass_Da)
    # loading both now finds unknown elements before anything is written
    numbers = atoms.numbers.tolist()
    fast = load_potential(spec, numbers, device=device) if spec else None
    slow = load_potential(teacher, numbers, device=device)
    if pressure_bar is not None:
        student_too = fast is None or gives_virial(fast, atoms)
        protocol.require_virials(gives_virial(slow, atoms), student_too)
    if protocol.hydrogens and not constrained:
        lightest_Da = masses_Da[atoms.numbers == 1].min()
        if free_bonds := free_bonds_warning(outer_fs, lightest_Da, student=spec is not None):
            tell(f"warning: {free_bonds}")
    atoms = settle(
        atoms,
        masses_Da,
        slow,
        fast,
        minimise=minimise,
        equilibrate_ps=equilibrate_ps,
        temperature_K=temperature_K,
        timestep_fs=min(protocol.inner_fs, MOST_FLEXIBLE_FS) if constrained else protocol.inner_fs,
        seed=seed,
        tell=tell,
        report=report,
    )
    held = None
    if constrained:
        lengths_A = bond_lengths_A or average_lengths(
            atoms,
            masses_Da,
            fast or slow,
            pairs,
            temperature_K=temperature_K,
            seed=seed,
            report=lambda step, of: report("average bond lengths", step, of),
        )
        held = distances(pairs, lengths_A)
        atoms.positions, _ = on_manifold(atoms, masses_Da, held)
        kinds = ", ".join(f"{kind} {length:.4f} Å" for kind, length in lengths_A.items())
        tell(f"{len(held.pairs)} distances are held: {kinds}")
        steps_fs = {"outer_fs": outer_fs, "inner_fs": protocol.inner_fs}
        warning = heavy_bonds_warning(atoms, **steps_fs, high_pass=protocol.high_pass)
        if warning:
            tell(f"warning: {warning}")
    if protocol.high_pass:
        tell(
            f"coloured noise (--thermostat high-pass): {friction_per_ps:g}/ps on slow motion, "
            f"{protocol.high_friction_per_ps:g}/ps more above {CUTOFF_PER_CM:g}/cm"
        )
    modules = [found for one in (teacher, spec) if one and (found := module_here(one))]
    for module in dict.fromkeys(modules):
        tell(f"{module.name} is copied into the folder of the run, where its driver looks for it")
    made = write_run_folder(
        output, atoms, masses_Da, protocol, student_file=file, modules=modules, held=held
    )
    if where:
        tell(where)
    return PreparedRun(made, atoms, outer_fs, protocol.inner_fs, steps)


def _framed(atoms: Atoms, name: str, tell: Tell) -> Atoms:
    """Give the atoms the cell that i-PI needs, as i-PI has it, and say so."""
    from mts_driver.structures.files import along_axes, boxed

    atoms, made_box = boxed(atoms)
    if made_box:
        tell(
            f"{name}: not periodic: i-PI has it in a box of "
            f"{' × '.join(f'{x:.0f}' for x in atoms.cell.lengths())} Å, which the models do not see"
        )
    atoms, turned = along_axes(atoms)
    if turned:
        tell(f"{name}: turned with its cell, as i-PI needs a along x and b in the plane of x, y")
    return atoms
