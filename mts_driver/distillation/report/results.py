"""What a distillation achieved, measured on frames that the student never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mts_driver.validation.drift import Drift
from mts_driver.validation.evaluation import Evaluated
from mts_driver.validation.force_constants import ForceConstants
from mts_driver.validation.stretch import StretchCurve

HEATING_FRICTION_PER_PS = 1.0
"""At which the heating is predicted."""


@dataclass(frozen=True, kw_only=True)
class DistillationReport:
    """Everything that was measured, and the files that show it.

    Attributes
    ----------
    title : str
        Of the picture and the page.
    forces : Evaluated
        On held-out frames.
    constants : ForceConstants
        Along bonds of held-out frames; may be empty.
    contacts : Evaluated, optional
        On held-out frames with close contacts.
    curves : sequence of StretchCurve
        One for each kind of bond.
    drifts : mapping of float to Drift
        By outer step, fs.
    student_ms, teacher_ms : float
        Cost of a call.
    facts : mapping
        What else belongs in the summary: ``command``, ``settings`` (a mapping), ``labels`` (counts
        by kind), ``wall_s``, ...
    """

    title: str
    forces: Evaluated
    constants: ForceConstants = field(default_factory=lambda: ForceConstants.joined([]))
    contacts: Evaluated | None = None
    curves: Sequence[StretchCurve] = ()
    drifts: Mapping[float, Drift] = field(default_factory=dict)
    student_ms: float
    teacher_ms: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return all numbers as JSON holds them; null stands for what could not be measured."""
        drifts = {str(float(outer)): d.as_dict() for outer, d in sorted(self.drifts.items())}
        heating = {
            str(float(k)): d.heating_K(HEATING_FRICTION_PER_PS)
            for k, d in sorted(self.drifts.items())
        }
        hydrogen = self.constants.to_hydrogen
        return {
            **self.forces.summary(),
            "xh_force_constant_error": self.constants.error(hydrogen),
            "heavy_force_constant_error": self.constants.error(~hydrogen),
            "force_constant_error_by_bond": self.constants.errors_by_kind() or None,
            "nve_respa_drift_meV_atom_ps": drifts or None,
            "predicted_heating_K": heating or None,
            "close_contacts": self.contacts and self.contacts.strong_forces(),
            "stretch": {curve.bond: curve.as_dict() for curve in self.curves} or None,
            "student_ms": self.student_ms,
            "teacher_ms": self.teacher_ms,
            **self.facts,
        }
