"""Files of the repository that pages link to join the site, at ``repository/`` and their path.

Pages are read in two places. Among the sources a link leads out of ``docs/`` to the file itself; in
the site there is a copy of it, and the link leads there. Folders have no page: they are named only.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = "docs/pages/"
JOINED = "repository/"
PAPERS = ("CONTRIBUTING.md", "CHANGELOG.md", "inputs/README.md")
"""In the navigation, so that they are there whether a page links to them or not."""

FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def in_repository(src_uri: str) -> str:
    """Return the path in the repository of a file of the site."""
    return src_uri.removeprefix(JOINED) if src_uri.startswith(JOINED) else PAGES + src_uri


def in_site(path: str) -> str:
    """Return the path in the site of a file of the repository."""
    return path.removeprefix(PAGES) if path.startswith(PAGES) else JOINED + path


def target_of(link: str, page: str) -> str | None:
    """Return the path in the repository that a relative link of ``page`` leads to."""
    if re.match(r"[a-z]+:|#", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))


def linked_files(path: str) -> set[str]:
    """Return the files outside the pages that a document of the repository links to."""
    text = FENCE.sub("", (ROOT / path).read_text())
    targets = {target_of(link, path) for _, _, link in LINK.findall(text)}
    return {t for t in targets if t and not t.startswith(PAGES) and (ROOT / t).is_file()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what that links to."""
    wanted = [in_repository(file.src_uri) for file in files.documentation_pages()]
    joined = list(PAPERS)
    for path in [*wanted, *PAPERS]:
        joined += linked_files(path)
    for path in joined:
        if JOINED + path in files.src_uris:
            continue
        files.append(File.generated(config, JOINED + path, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            joined += linked_files(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead relative links to where their targets are in the site."""
    here = in_repository(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target = target_of(link, here)
        if target is None:
            return match.group()
        if (ROOT / target).is_dir():
            return text
        start = posixpath.dirname(page.file.src_uri)
        _, hash_, anchor = link.partition("#")
        return f"{mark}[{text}]({posixpath.relpath(in_site(target), start)}{hash_}{anchor})"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)
