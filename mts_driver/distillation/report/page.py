"""The distillation report as one HTML page that needs no other file."""

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from mts_driver.distillation.report import html
from mts_driver.distillation.report.results import HEATING_FRICTION_PER_PS
from mts_driver.validation.evaluation import STRONG_EV_A

SHOWN = {
    "force_rmse_eV_A", "force_rmse_by_system_eV_A", "teacher_force_rms_eV_A", "test_atoms",
    "max_force_difference_eV_A", "xh_force_constant_error", "heavy_force_constant_error",
    "force_constant_error_by_bond", "nve_respa_drift_meV_atom_ps", "predicted_heating_K",
    "stretch", "close_contacts", "student_ms", "teacher_ms", "labels", "settings", "command",
}  # fmt: skip
"""Keys of the summary that have a place of their own; all others are listed with the provenance."""


def page(title: str, summary: Mapping[str, Any], picture: bytes) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Heading.
    summary : mapping
        `DistillationReport.summary`.
    picture : bytes
        A PNG.
    """
    image = base64.b64encode(picture).decode("ascii")
    body = [
        f"<h1>{escape(title)}</h1>",
        '<p class="lead">How close the student is to its teacher, on frames that it never saw.</p>',
        _cards(summary),
        html.section("", f'<img alt="Figures of this report" src="data:image/png;base64,{image}">'),
        '<div class="pair">',
        _forces(summary),
        _stiffness(summary),
        "</div>",
        _drift(summary),
        _stretch(summary),
        _contacts(summary),
        _provenance(summary),
    ]
    return html.document(title, body)


def _cards(summary: Mapping[str, Any]) -> str:
    """Show the numbers that decide, large."""
    force, stiff = summary["force_rmse_eV_A"], summary["xh_force_constant_error"]
    bias = f", bias {html.percent(stiff['mean'])}" if stiff else ""
    cards = [
        (f"{force['all']:.3f} eV/Å" if force else html.NO_NUMBER, "force RMSE", False),
        (
            f"{html.percent(stiff['rms'], sign=False)} rms" if stiff else html.NO_NUMBER,
            f"X–H force constants{bias}",
            False,
        ),
    ]
    for outer, drift in (summary["nve_respa_drift_meV_atom_ps"] or {}).items():
        heating = summary["predicted_heating_K"][outer]
        at = f"drift at {float(outer):g} fs, meV/atom/ps"
        if drift["mean"] is None:
            cards.append(("blew up", at, True))
        else:
            heats = f": {html.signed(heating, '.1f')} K at γ = {HEATING_FRICTION_PER_PS:g}/ps"
            text = at if heating is None else at + heats
            cards.append((html.number(drift["mean"], ".2g"), text, False))
    holes = [
        bond for bond, curve in (summary["stretch"] or {}).items() if curve["unsafe_lengths_A"]
    ]
    if summary["stretch"]:
        cards.append((", ".join(holes) or "none", "holes along stretched bonds", bool(holes)))
    ratio = summary["teacher_ms"] / summary["student_ms"]
    cost = f"{summary['student_ms']:.3g} ms a call against {summary['teacher_ms']:.3g} ms"
    cards.append((f"{ratio:.0f}×", f"cheaper than the teacher: {cost}", False))
    drawn = "".join(
        f'<div class="card{" bad" if bad else ""}"><b>{escape(value)}</b>'
        f"<span>{escape(what)}</span></div>"
        for value, what, bad in cards
    )
    return f'<div class="cards">{drawn}</div>'


def _forces(summary: Mapping[str, Any]) -> str:
    errors, systems = summary["force_rmse_eV_A"], summary["force_rmse_by_system_eV_A"]
    if errors is None:
        return html.section("Forces", "<p>No held-out frames.</p>")
    tables = html.table(("atoms", "RMSE (eV/Å)"), ((k, f"{v:.4f}") for k, v in errors.items()))
    if len(systems) > 1:
        tables += html.table(
            ("system", "RMSE (eV/Å)"), ((k, f"{v:.4f}") for k, v in systems.items())
        )
    return html.section(
        "Forces",
        tables + f'<p class="note">{summary["test_atoms"]:,} atoms; RMS of the teacher\'s forces '
        f"{summary['teacher_force_rms_eV_A']:.3f} eV/Å; largest |ΔF| on an atom "
        f"{summary['max_force_difference_eV_A']:.2f} eV/Å.</p>",
    )


def _stiffness(summary: Mapping[str, Any]) -> str:
    rows = [
        (kind, str(e["bonds"]), f"{e['teacher_mean_eV_A2']:.2f}", html.percent(e["mean"]),
         html.percent(e["rms"], sign=False))
        for kind, e in (
            ("all X–H", summary["xh_force_constant_error"]),
            ("all heavy", summary["heavy_force_constant_error"]),
            *(summary["force_constant_error_by_bond"] or {}).items(),
        )
        if e is not None
    ]  # fmt: skip
    if not rows:
        return html.section("Force constants along bonds", "<p>No bonds.</p>")
    header = ("bonds", "measured", "teacher (eV/Å²)", "mean error", "rms error")
    return html.section("Force constants along bonds", html.table(header, rows))


def _drift(summary: Mapping[str, Any]) -> str:
    title, drifts = "NVE-RESPA drift", summary["nve_respa_drift_meV_atom_ps"]
    if drifts is None:
        return html.section(title, "<p>No run without a thermostat.</p>")
    rows = [
        (
            f"{float(outer):g} / {d['inner_fs']:g}",
            f'<span class="bad">{d["blown_up"]} of {len(d["values"])} blew up</span>'
            if d["mean"] is None
            else f"{html.number(d['mean'], '.3f')} ± {html.number(d['standard_error'], '.3f')}",
            html.signed(summary["predicted_heating_K"][outer], ".2f"),
            html.number(d["max_force_difference_eV_A"], ".2f"),
            str(d["clip_events"]),
        )
        for outer, d in drifts.items()
    ]
    header = ("outer / inner (fs)", "meV/atom/ps", "heating (K)", "largest |ΔF| (eV/Å)", "clipped")
    first = next(iter(drifts.values()))
    note = (
        f"{len(first['values'])} runs of {first['picoseconds']:.3g} ps each; heating = "
        f"drift/(3 k<sub>B</sub>γ) at γ = {HEATING_FRICTION_PER_PS:g}/ps, less the share of the "
        "centre of mass, which no heat goes into."
    )
    return html.section(title, html.table(header, rows, raw=True) + f'<p class="note">{note}</p>')


def _stretch(summary: Mapping[str, Any]) -> str:
    if summary["stretch"] is None:
        return html.section("Stretched bonds", "<p>No bond that can be stretched.</p>")
    rows = []
    for bond, curve in summary["stretch"].items():
        pairs = zip(curve["teacher_eV_A"], curve["student_eV_A"], strict=True)
        known = [(a, b) for a, b in pairs if b is not None]
        unsafe = curve["unsafe_lengths_A"]
        holes = f"{len(unsafe)}, {unsafe[0]:.2f} to {unsafe[-1]:.2f} Å" if unsafe else ""
        rows.append(
            (
                escape(bond),
                f"{curve['lengths_A'][0]:.2f} to {curve['lengths_A'][-1]:.2f}",
                f"{-min(curve['teacher_eV_A']):.2f}",
                f"{-min((b for _, b in known), default=0.0):.2f}",
                html.number(curve["torn_force_rmse_eV_A"], ".2f"),
                f'<span class="bad">{holes}</span>' if holes else "none",
            )
        )
    header = ("bond", "lengths (Å)", "strongest pull, teacher (eV/Å)", "student",
              "rms error, torn bond (eV/Å)", "lengths in a hole")  # fmt: skip
    return html.section("Stretched bonds", html.table(header, rows, raw=True))


def _contacts(summary: Mapping[str, Any]) -> str:
    found = summary["close_contacts"]
    if found is None:
        return ""
    opposite = html.percent(found["opposite"], sign=False)
    return html.section(
        "Close contacts",
        f"<p>Where molecules were pushed into one another, and the teacher's force on an atom is "
        f"{STRONG_EV_A[0]:g} to {STRONG_EV_A[1]:g} eV/Å: RMSE {found['force_rmse_eV_A']:.2f} eV/Å; "
        f"the student's force points the opposite way on {opposite} of "
        f"{found['atoms']:,} atoms.</p>",
    )


def _provenance(summary: Mapping[str, Any]) -> str:
    """Where the student comes from: command, settings, labels and whatever else was noted."""
    parts = []
    if "command" in summary:
        parts.append(f"<pre>{escape(str(summary['command']))}</pre>")
    for name, values in (
        ("setting", summary.get("settings")),
        ("labels", summary.get("labels")),
        ("", {k: v for k, v in summary.items() if k not in SHOWN}),
    ):
        if values:
            rows = [(str(key), html.plain(value)) for key, value in values.items()]
            parts.append(html.table((name, ""), rows, style="facts"))
    everything = escape(json.dumps(summary, indent=2))
    parts.append(f"<details><summary>All numbers (JSON)</summary><pre>{everything}</pre></details>")
    return html.section("How it was made", "\n".join(parts))
