"""The HTML that report pages are made of."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5d6878; --line: #dde2e9; --bad: #c62828;
  --blue: #1f5fa8; }
body { margin: 0; background: #f4f6f9; color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 0 0 .7rem; }
p.lead { color: var(--soft); margin: 0 0 1.4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .8rem;
  margin-bottom: 1.2rem; }
.card, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.card { padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.3; color: var(--blue); }
.card span { color: var(--soft); font-size: .85rem; display: block; }
.bad, .card.bad b { color: var(--bad); }
section { padding: 1.1rem 1.3rem; margin-bottom: 1.2rem; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 0 1.2rem;
  align-items: start; }
img { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: .85rem; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
table.facts td { text-align: left; overflow-wrap: anywhere; }
table.facts th { text-align: left; padding-top: 1rem; }
table.facts td:first-child { width: 16rem; color: var(--soft); }
tr:last-child td { border-bottom: none; }
pre { background: #f4f6f9; border-radius: 6px; padding: .7rem .9rem; overflow-x: auto;
  font-size: .85rem; margin: .4rem 0 .9rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--blue); }
.note { color: var(--soft); font-size: .85rem; margin: .6rem 0 0; }
"""
NO_NUMBER = "–"


def document(title: str, body: Sequence[str]) -> str:
    """Return a page that needs no other file; the title is text, the body HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """Return a framed part of the page; the content is HTML."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f"<section>{heading}{content}</section>"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False, style: str = ""
) -> str:
    """Return a table; ``raw`` cells are HTML already, others are escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = (
        "<tr>" + "".join(f"<td>{cell if raw else escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    body = "".join(lines)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def plain(value: Any) -> str:
    """Return a value of the summary as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def number(value: float | None, form: str) -> str:
    """Return a formatted number; a dash stands for None."""
    return NO_NUMBER if value is None else f"{value:{form}}".replace("-", "−")


def signed(value: float | None, form: str) -> str:
    """Return `number` with its sign."""
    return number(value, "+" + form)


def percent(value: float, *, sign: bool = True) -> str:
    """Return a share as per cent."""
    return f"{value:{'+' if sign else ''}.2%}".replace("-", "−").replace("%", " %")
