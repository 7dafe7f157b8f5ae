"""Pictures of who imports whom, drawn from the imports themselves, of packages or modules.

``<!-- imports PACKAGE -->`` in a page becomes the picture of what is in that package, and ``<!--
imports -->`` that of all. An arrow that follows from others is left out. A circle cannot be drawn
so: it ends the build.
"""

import re
from collections import defaultdict
from graphlib import TopologicalSorter
from html import escape
from importlib.util import find_spec
from pathlib import Path

import grimp
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOTS = ("integrators", "mts_driver")
MARK = re.compile(r"<!-- imports ?(\S*) -->")
WIDTH, ROW, BOX, LETTER, GAP = 800, 66, 28, 7.6, 14
STYLE = (
    "<style>.imports rect{fill:var(--md-code-bg-color,#f5f5f5);stroke:currentColor}"
    ".imports text{fill:currentColor;font:13px monospace;text-anchor:middle}"
    ".imports path{fill:none;stroke:currentColor;opacity:.45}</style>"
)

Imports = dict[str, set[str]]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the pictures where the marks are."""
    return MARK.sub(lambda mark: picture(imports_in(mark.group(1))), markdown)


def imports_in(package: str) -> Imports:
    """Return what each module or package directly in ``package`` imports of the others."""
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=True)
    inside = graph.find_children(package or "mts_driver") | (set() if package else {"integrators"})
    for name in inside:
        graph.squash_module(name)
    theirs = graph.find_modules_directly_imported_by
    return {name: (inside & theirs(name)) - {name} for name in inside}


def needed(imports: Imports) -> Imports:
    """Leave out what an import brings by way of another; `graphlib.CycleError` for a circle."""
    below: Imports = {}
    for name in TopologicalSorter(imports).static_order():
        below[name] = imports[name].union(*(below[other] for other in imports[name]))
    return {
        name: {o for o in others if not any(o in below[p] for p in others - {o})}
        for name, others in imports.items()
    }


def picture(imports: Imports) -> str:
    """Draw the imports as SVG, importers above what they import."""
    arrows = needed(imports)
    height: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        height[name] = max((height[other] + 1 for other in arrows[name]), default=0)
    rows = defaultdict(list)
    for name in sorted(height):
        rows[height[name]].append(name)
    top = max(rows)
    place = {}
    for number in range(top, -1, -1):  # in the order of what imports them
        importers = {n: [place[m] for m in place if n in arrows[m]] for n in rows[number]}
        wish = {n: sum(x for x, _ in p) / len(p) if p else WIDTH / 2 for n, p in importers.items()}
        x = _spread(sorted(rows[number], key=lambda name: (wish[name], name)))
        place |= {name: (x[name], (top - number) * ROW + ROW / 2) for name in rows[number]}
    paths = [_arrow(place[a], place[b]) for a in sorted(arrows) for b in sorted(arrows[a])]
    boxes = [_box(name, *place[name]) for name in sorted(place)]
    return (
        f'<svg class="imports" viewBox="0 0 {WIDTH} {(top + 1) * ROW}" role="img" '
        f'aria-label="Imports, from the top down" width="100%">{STYLE}'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0L8,4L0,8"/></marker></defs>'
        f"{''.join(paths + boxes)}</svg>"
    )


def _width(name: str) -> float:
    return LETTER * len(_label(name)) + GAP


def _label(name: str) -> str:
    return name.rpartition(".")[2] + ("/" if find_spec(name).submodule_search_locations else "")


def _spread(names: list[str]) -> dict[str, float]:
    """Return places of boxes in a row, with the same room between them."""
    room = (WIDTH - sum(map(_width, names))) / (len(names) + 1)
    found, left = {}, room
    for name in names:
        found[name] = left + _width(name) / 2
        left += _width(name) + room
    return found


def _box(name: str, x: float, y: float) -> str:
    spec = find_spec(name)
    about = re.match(r'"""(.*?)(\n|"""|$)', Path(spec.origin).read_text())
    return (
        f"<g><title>{escape(name)}: {escape(about.group(1) if about else '')}</title>"
        f'<rect x="{x - _width(name) / 2:.0f}" y="{y - BOX / 2:.0f}" '
        f'width="{_width(name):.0f}" height="{BOX}" rx="5"/>'
        f'<text x="{x:.0f}" y="{y + 4.5:.0f}">{escape(_label(name))}</text></g>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (u, v) = start, end
    y, v = y + BOX / 2, v - BOX / 2
    bend = (v - y) / 2
    return (
        f'<path marker-end="url(#tip)" d="M{x:.0f},{y:.0f}C{x:.0f},{y + bend:.0f} '
        f'{u:.0f},{v - bend:.0f} {u:.0f},{v:.0f}"/>'
    )
