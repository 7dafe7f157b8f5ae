"""What a distillation is asked for."""

from dataclasses import dataclass

from mts_driver.distillation.training.budget import check_budget


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """What ``mts distill`` was asked for; kept with the student.

    Attributes
    ----------
    structures : tuple of str
        The files that the atoms came from.
    teacher : str
        Specification for `load_potential`.
    base : str, optional
        Student to start from, a file or the name of a packaged one.
    minutes : float, optional
        Wall-clock budget for sampling and training; compiling kernels on a new machine is extra.
    updates, frames : int, optional
        The budget in steps instead: of the optimiser, and labels, about. Nothing then depends on
        the clock, and the same seed gives the same student, with as many threads.
    temperature_K, outer_fs : float
        Of the later runs; the drift at this outer step decides which student is kept.
    cutoff_A, channels, messages, hidden : float and int, optional
        Size of the student; None: that of ``base``, or of `StudentConfig`.
    direct : bool
        Whether forces come straight from the network; also where those of ``base`` do.
    dtype : str
        Precision of training and weights.
    without : tuple of str
        Kinds of labels that are left out of the training, to see what they are good for.
    seed : int
        Of everything random.
    device : str
        Torch device for the teacher; students train on the CPU.
    fragment_radius_A : float, optional
        Of the pieces that a system is cut into, Å; 0: never; None: only if it has more than
        2000 atoms.
    """

    structures: tuple[str, ...]
    teacher: str
    base: str | None = None
    minutes: float | None = None
    updates: int | None = None
    frames: int | None = None
    temperature_K: float = 300.0
    outer_fs: float = 6.0
    cutoff_A: float | None = None
    channels: int | None = None
    messages: int | None = None
    hidden: int | None = None
    direct: bool = False
    dtype: str = "float32"
    without: tuple[str, ...] = ()
    seed: int = 1
    device: str = "cpu"
    fragment_radius_A: float | None = None

    def __post_init__(self) -> None:
        check_budget(self.minutes, self.updates, self.frames)
