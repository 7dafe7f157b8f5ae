"""Everything that `mts_driver` offers by name; each is made where its work is done.

========================= ====================================================================
`load_potential`          a model, from its specification
`simulate`                molecular dynamics in this process
`prepare`, `run`          a run under i-PI
`distill`                 a student from a teacher
`check`, `resonance`      what a student is worth, and how far the outer step can go
`report`                  what a run gained, and whether its physics held
========================= ====================================================================

They return `SimulationResult`, `PreparedRun`, `RunResult`, `DistillationResult`, `CheckResult`,
`ResonanceResult` and `Report`. What a user can put right is a `UserError`.
"""

from mts_driver.analysis.report import Report
from mts_driver.distillation.make_student import DistillationResult, distill
from mts_driver.errors import UserError
from mts_driver.potentials.load import load_potential
from mts_driver.runs.prepare import PreparedRun, prepare
from mts_driver.runs.run import RunResult, run
from mts_driver.simulation.simulate.result import Holes, SimulationResult, Timings
from mts_driver.simulation.simulate.run import simulate
from mts_driver.super_resolution.report import report
from mts_driver.validation.check_student import CheckResult, check
from mts_driver.validation.resonance.resonance import ResonanceResult, resonance

__all__ = [
    "CheckResult",
    "DistillationResult",
    "Holes",
    "PreparedRun",
    "Report",
    "ResonanceResult",
    "RunResult",
    "SimulationResult",
    "Timings",
    "UserError",
    "check",
    "distill",
    "load_potential",
    "prepare",
    "report",
    "resonance",
    "run",
    "simulate",
]
