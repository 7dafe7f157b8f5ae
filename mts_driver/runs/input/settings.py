"""The choices that ``mts prepare`` offers, checked before anything is written."""

import math
from dataclasses import dataclass, replace

from mts_driver.errors import UserError
from mts_driver.runs.input.asked import OPTIONS, Asked
from mts_driver.runs.input.combinations import check
from mts_driver.thermostats import HIGH_FRICTION_PER_PS
from mts_driver.time_steps import TimeSteps


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The choices that an input is made of.

    Attributes
    ----------
    teacher, student : str
        Specifications of the potentials; no student (None) for single time steps.
    outer_fs, inner_fs : float
        Outer and inner time step, fs; the first is a multiple of the second.
    hydrogen_mass : float
        Da; 0 for the natural one. Only for the comment, the masses are in the start.
    temperature_K, friction_per_ps : float
        Of the Langevin thermostat, K and 1/ps.
    hydrogen_friction_per_ps : float or None
        The same for hydrogens; None: as all atoms.
    steps : int
        Outer steps.
    stride : int
        Outer steps between frames of the trajectory.
    seed : int
        Of velocities and thermostat.
    beads : int
        Of the ring polymers.
    teacher_beads : int or None
        On how many of them, by contraction, teacher - student is evaluated; None: on all.
    pressure_bar : float or None
        For constant pressure; None: constant volume.
    exchange_K : tuple of float
        More temperatures, one replica each, exchanged with the first.
    on_hole : str
        ``log``, ``stop`` or ``shorten`` the outer step, when the student is wrong.
    mode : str
        ``unix``, ``shm`` or ``zmq``.
    device : str
        Of both potentials.
    device_steps : int
        Outer steps that one driver with both models takes at a time; 0: i-PI takes them.
    periodic : bool
        Whether the models see the cell; i-PI itself always has one.
    held : tuple of int
        Atoms that do not move.
    keep_velocities : bool
        Start from those of the structure, instead of thermal ones.
    store_for_superres : bool
        Whether positions, velocities and forces of every outer step are stored.
    hydrogens : int or None
        How many hydrogens move; None: not known.
    high_pass : bool
        Whether the noise is coloured; `mts_driver.thermostats` says how.
    high_friction_per_ps : float
        What it has more on fast motion, 1/ps.
    constrained : bool
        Whether distances are held, those of a file.
    """

    teacher: str
    student: str | None
    outer_fs: float
    inner_fs: float
    hydrogen_mass: float
    temperature_K: float
    friction_per_ps: float
    steps: int
    stride: int
    seed: int
    hydrogen_friction_per_ps: float | None = None
    beads: int = 1
    teacher_beads: int | None = None
    pressure_bar: float | None = None
    exchange_K: tuple[float, ...] = ()
    on_hole: str = "log"
    mode: str = "unix"
    device: str = "cpu"
    device_steps: int = 0
    periodic: bool = True
    held: tuple[int, ...] = ()
    keep_velocities: bool = False
    store_for_superres: bool = False
    hydrogens: int | None = None
    high_pass: bool = False
    high_friction_per_ps: float = HIGH_FRICTION_PER_PS
    constrained: bool = False

    def __post_init__(self) -> None:
        TimeSteps(self.outer_fs, self.inner_fs)
        positive = [
            ("temperature_K", self.temperature_K),
            ("friction_per_ps", self.friction_per_ps),
            *(("exchange_K", kelvin) for kelvin in self.exchange_K),
        ]
        for name, value in positive:
            if not 0 < value < math.inf:
                raise UserError(f"{name}={value:g}: give a finite number above 0.")
        if self.pressure_bar is not None and not math.isfinite(self.pressure_bar):
            raise UserError(f"pressure_bar={self.pressure_bar:g}: give a finite number.")
        hydrogen = self.hydrogen_friction_per_ps
        if hydrogen is not None and not self.friction_per_ps <= hydrogen < math.inf:
            raise UserError(
                f"hydrogen_friction_per_ps={hydrogen:g}: give at least the "
                f"{self.friction_per_ps:g} of friction_per_ps."
            )
        if self.student is None and self.n_inner != 1:
            raise UserError(
                f"student='none' with outer_fs={self.outer_fs:g} and inner_fs={self.inner_fs:g}: "
                "without a student both time steps are the same."
            )
        whole = (("steps", self.steps, 1), ("stride", self.stride, 1), ("seed", self.seed, 0))
        for name, number, least in (*whole, ("beads", self.beads, 1)):
            if number < least:
                raise UserError(f"{name}={number}: give {least} or more.")
        if not 1 <= self.slow_beads <= self.beads:
            raise UserError(f"teacher_beads={self.teacher_beads}: give 1 to beads={self.beads}.")
        if self.store_for_superres and (
            self.beads > 1 or self.exchange_K or self.pressure_bar is not None
        ):
            raise UserError(
                "store_for_superres=True is for one replica of one bead at constant volume, since "
                "nothing else can be filled in: leave it out, or beads, exchange_K and "
                "pressure_bar."
            )
        if self.store_for_superres and self.constrained:
            raise UserError(
                "store_for_superres=True with bonds that are held: what fills in frames lets them "
                "vibrate; leave one of the two out."
            )
        if self.on_hole not in ("log", "stop", "shorten"):
            raise UserError(f"on_hole={self.on_hole!r}: use log, stop or shorten.")
        for name, spec in (("teacher", self.teacher), ("student", self.student or "")):
            if "," in spec or "{" in spec:
                raise UserError(
                    f"{name}={spec!r} has a comma or brace, which i-PI's <parameters> cannot hold: "
                    "rename the file, or wrap the calculator in a function of your own."
                )
        check(self.asked())

    def require_virials(self, teacher: bool, student: bool) -> None:
        """Refuse constant pressure if one of the models, now that they are loaded, has no virial.

        Raises
        ------
        UserError
            See `mts_driver.runs.input.combinations`.
        """
        asked = self.asked()
        check(replace(asked, teacher_virial=teacher, student_virial=student))

    @property
    def n_inner(self) -> int:
        """Inner steps per outer step."""
        return TimeSteps(self.outer_fs, self.inner_fs).n_inner

    @property
    def thermostat(self) -> str:
        """Its mode in i-PI."""
        if self.high_pass:
            return "gle"
        return "pile_l" if self.beads > 1 else "langevin"

    @property
    def slow_beads(self) -> int:
        """Beads on which the teacher is evaluated."""
        return self.beads if self.teacher_beads is None else self.teacher_beads

    def asked(self) -> Asked:
        """Return what these choices ask for, as an input would."""
        constant_pressure = self.pressure_bar is not None
        kelvin = (self.temperature_K, *self.exchange_K)
        return Asked(
            words=OPTIONS,
            ensemble="npt" if constant_pressure else "nvt",
            pressure=self.pressure_bar,
            thermostat=self.thermostat,
            barostat="isotropic" if constant_pressure else "",
            student=self.student is not None,
            levels=1 if self.student is None else 2,
            n_inner=self.n_inner,
            beads=self.beads,
            teacher_beads=self.slow_beads,
            difference_beads=self.slow_beads,
            most_beads=self.beads if self.student else self.slow_beads,
            periodic=self.periodic,
            held=bool(self.held),
            hydrogens=self.hydrogens,
            heavy_hydrogens=bool(self.hydrogen_mass),
            hydrogen_friction=self.hydrogen_friction_per_ps is not None,
            constrained=self.constrained,
            on_hole=self.on_hole,
            mode=self.mode,
            both_in_one=self.mode == "zmq",
            device_steps=self.device_steps,
            kept_velocities=self.keep_velocities,
            replicas=tuple(f"{t:g} K" for t in kelvin) if self.exchange_K else (),
        )
