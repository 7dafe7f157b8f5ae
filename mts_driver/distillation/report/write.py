"""The files of a report: numbers, a picture, a page."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from mts_driver.distillation.report.figure import draw
from mts_driver.distillation.report.page import page
from mts_driver.distillation.report.results import DistillationReport
from mts_driver.files import replacing, write_json


def write_report(
    report: DistillationReport, student: Path, *, json_file: Path | None = None
) -> dict[str, Any]:
    """Write NAME.json, NAME.png and NAME.html beside the student file NAME.safetensors.

    The numbers come first; where the picture cannot be drawn or written, a line says so and
    none of an earlier student is left beside them.

    Parameters
    ----------
    student : Path
        Its suffix is replaced.
    json_file : Path, optional
        Another place for the numbers.

    Returns
    -------
    dict
        `DistillationReport.summary`.
    """
    summary = report.summary()
    write_json(json_file or student.with_suffix(".json"), summary)
    picture, html = student.with_suffix(".png"), student.with_suffix(".html")
    try:
        draw(report, summary, picture)
        with replacing(html) as part:
            part.write_text(page(report.title, summary, picture.read_bytes()), encoding="utf-8")
    except Exception as error:  # hours of work do not end in a traceback of a figure
        print(f"no picture: {type(error).__name__}: {error}", file=sys.stderr)
        for path in (picture, html):
            with contextlib.suppress(OSError):
                path.unlink()
    return summary
