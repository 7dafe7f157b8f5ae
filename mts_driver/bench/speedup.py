"""What multiple time steps gain on this machine, under real i-PI, side by side in one run.

The ceiling is what is left when i-PI, sockets and everything else cost nothing: an outer step takes
one call of the teacher, T, and n of the student, S, instead of one call of the teacher for every
femtosecond. With r = S/T as measured in the run, ceiling = (outer step / 1 fs) / (1 + n r). The
measured ratios are to single steps as they ran, with overhead of their own, and may exceed it.

Single steps stand there in three ways: of 1 fs; of 2 fs, with hydrogens of 4 Da; and of 4 fs, with
bonds to hydrogen held as well, which is what a careful user can do without a student.
"""

from dataclasses import replace
from typing import Any

from mts_driver.bench.bare import run_in_process
from mts_driver.bench.calculators import packaged_spec
from mts_driver.bench.held_start import HeldStart
from mts_driver.bench.ipi_runs import Variant, run_under_ipi
from mts_driver.bench.rounds import SPEED_COLUMNS, Run, in_turn, median_of, ratio, speed
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.table import Columns, Result, environment
from mts_driver.thermostats import chosen
from mts_driver.time_steps import HELD_INNER_FS, RIGID_INNER_FS, inner_fs_near

HYDROGEN_MASS_DA, HYDROGEN_FRICTION_PER_PS = 4.0, 20.0
BASELINES = ("1 fs", "2 fs HMR", "4 fs held")
"""Single steps, the first rows."""
DEFAULTS: dict[str, Any] = {
    "outer_fs": (6.0, 10.0),
    "inner_fs": 1.0,
    "friction_outer_fs": (),
    "constrained_outer_fs": (12.0,),
    "constrained_inner_fs": HELD_INNER_FS,
    "rigid_outer_fs": (),
    "mode": "unix",
}
COLUMNS: Columns = {
    "variant": ("variant", ""),
    **SPEED_COLUMNS,
    "× 1 fs": ("speedup vs 1 fs", ".2f"),
    "ceiling": ("ceiling vs 1 fs", ".2f"),
    "× 2 fs HMR": ("speedup vs 2 fs HMR", ".2f"),
    "ceiling × 2 fs HMR": ("ceiling vs 2 fs HMR", ".2f"),
    "× 4 fs held": ("speedup vs 4 fs held", ".2f"),
    "ceiling × 4 fs held": ("ceiling vs 4 fs held", ".2f"),
    "teacher ms": ("teacher_ms", ".1f"),
    "student ms": ("student_ms", ".2f"),
    "overhead": ("overhead_fraction", ".1%"),
}


def variants(settings: BenchSettings) -> list[Variant]:
    """Single steps, multiple steps with HMR, the same without i-PI, and the packaged model.

    Beyond 6 fs multiple steps have the noise that `mts prepare` chooses for them.
    """
    single = Variant(
        label="single step, 1 fs",
        teacher=settings.teacher,
        student=None,
        outer_fs=1.0,
        inner_fs=1.0,
        device=settings.device,
        threads=settings.threads,
    )
    heavy = replace(single, hydrogen_mass=HYDROGEN_MASS_DA)
    twice = replace(heavy, label="single step, 2 fs, HMR", outer_fs=2.0, inner_fs=2.0)
    label = "single step, 4 fs, HMR, held bonds"
    held = replace(heavy, label=label, outer_fs=4.0, inner_fs=4.0, constrain=True)

    def mts(outer_fs: float, note: str = "", **more: Any) -> Variant:
        steps: dict[str, Any] = {"outer_fs": outer_fs, "inner_fs": settings.inner_fs}
        made = replace(heavy, student=settings.student, **{"mode": settings.mode, **steps, **more})
        noise = chosen(
            "auto",
            outer_fs=outer_fs,
            hydrogen_friction=made.hydrogen_friction_per_ps is not None,
        )
        if noise == "high-pass":
            made, note = replace(made, high_pass=True), f", high-pass noise{note}"
        return replace(made, label=f"MTS {outer_fs:g}/{made.inner_fs:g} fs, HMR{note}")

    gamma = HYDROGEN_FRICTION_PER_PS
    found = [single, twice, held, *(mts(outer) for outer in settings.outer_fs)]
    found += [
        mts(outer, f", γ_H {gamma:g}/ps", hydrogen_friction_per_ps=gamma)
        for outer in settings.friction_outer_fs
    ]
    for outer in settings.constrained_outer_fs:
        inner_fs = inner_fs_near(settings.constrained_inner_fs, outer)
        found.append(mts(outer, ", held bonds", constrain=True, inner_fs=inner_fs))
    for outer in settings.rigid_outer_fs:
        inner_fs = inner_fs_near(RIGID_INNER_FS, outer)
        found.append(
            mts(outer, ", rigid water", constrain=True, rigid_water=True, inner_fs=inner_fs)
        )
    found.append(mts(settings.outer_fs[-1], ", in one process", mode="none"))
    if settings.teacher == "so3lr":
        spec = packaged_spec(settings.device)
        found.append(replace(single, label="packaged ASE calculator, 1 fs", teacher=spec))
    for variant in found:
        variant.protocol(1)  # time steps that do not fit are reported before anything runs
    return found


def measure(settings: BenchSettings) -> Result:
    """Time all variants in turn and compare them with single steps."""
    todo = variants(settings)
    rows, notes = time_variants(todo, settings)
    for variant, row in zip(todo, rows, strict=True):
        ceiling = _ceiling(variant, row)
        for name, single, base in zip(BASELINES, todo, rows, strict=False):
            row[f"speedup vs {name}"] = ratio(base["s_per_ps"], row["s_per_ps"])
            row[f"ceiling vs {name}"] = ratio(ceiling, single.outer_fs)
    return Result("speedup", environment(settings), rows, notes)


def time_variants(
    todo: list[Variant], settings: BenchSettings
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run all variants in turn; a row for each, and notes on those that could not be run."""
    held = {
        rigid: HeldStart(settings, hydrogen_mass_Da=HYDROGEN_MASS_DA, rigid_water=rigid)
        for rigid in (False, True)
    }
    runs, left_out = in_turn({v.label: _runner(v, settings, held) for v in todo}, settings)
    rows = [
        {
            "variant": variant.label,
            **speed(runs[variant.label], variant.outer_fs),
            **{
                key: median_of(runs[variant.label], key)
                for key in ("teacher_ms", "student_ms", "overhead_fraction")
            },
            "runs": len(runs[variant.label]),
            "steps": median_of(runs[variant.label], "steps"),
        }
        for variant in todo
    ]
    return rows, [f"{label}: {reason}" for label, reason in left_out.items()]


def _runner(variant: Variant, settings: BenchSettings, held: dict[bool, HeldStart]) -> Run:
    if variant.constrain:
        at = held[variant.rigid_water]
        return lambda steps: run_under_ipi(at.atoms, variant, steps, held=at.distances)
    run = run_in_process if variant.mode == "none" else run_under_ipi
    return lambda steps: run(settings.structure, variant, steps)


def _ceiling(variant: Variant, row: dict[str, Any]) -> float | None:
    """Largest speed-up over single steps of 1 fs; None for single steps."""
    r = ratio(row["student_ms"], row["teacher_ms"])
    if variant.student is None or r is None:
        return None
    return variant.outer_fs / (1.0 + variant.outer_fs / variant.inner_fs * r)
