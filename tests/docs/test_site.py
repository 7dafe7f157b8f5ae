"""The site that mkdocs makes of the documents; CI runs this where the extra `docs` is installed."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from documents import DOCUMENTS, ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Tags that make a browser fetch what they name."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-f",
            "docs/mkdocs.yml",
            "-d",
            folder,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page fetches, where it leads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"])
        if values.get(LOADED.get(tag, "")) and values.get("rel") not in ("next", "prev"):
            self.fetched.append(values[LOADED[tag]])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


def test_every_document_is_a_page(site):
    for document in DOCUMENTS:
        if document.startswith("docs/pages/"):
            made = Path(document).relative_to("docs/pages").with_suffix(".html")
            assert (site / made).is_file()
    for joined in ("CONTRIBUTING.html", "CHANGELOG.html", "inputs/index.html"):
        assert (site / "repository" / joined).is_file()


def test_nothing_is_fetched_from_other_sites(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        assert page.fetched
        for link in page.fetched:
            assert not re.match(r"[a-z]+:|//", link), f"{path}: {link}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", path.read_text()), path


def test_links_and_pictures_are_there(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    seen = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are from the root of a server
            continue
        for link in [*page.links, *page.fetched]:
            if re.match(r"[a-z]+:", link):
                continue
            where, _, anchor = link.partition("#")
            target = (path.parent / unquote(where)).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].anchors, f"{path}: {link}"
            seen += 1
    assert seen > 500


def test_every_command_and_the_api_are_in_the_reference(site):
    from mts_driver.cli.main import SUBCOMMANDS

    commands = Page(site / "reference" / "commands.html").anchors
    assert {f"mts-{name}" for name in SUBCOMMANDS} <= commands
    text = (site / "reference" / "commands.html").read_text()
    assert "--hydrogen-friction-per-ps" in text and "--hmr" not in text
    for page, name in (
        ("potentials", "mts_driver.potentials.load.load_potential"),
        ("potentials", "mts_driver.errors.UserError"),
        ("integrators", "integrators.splitting.respa_baoab"),
        ("drivers", "mts_driver.drivers.evaluator.Evaluator"),
    ):
        assert name in Page(site / "reference" / f"{page}.html").anchors


def test_imports_are_drawn(site):
    page = (site / "repository" / "CONTRIBUTING.html").read_text()
    packages, integrators = re.findall(r'<svg class="imports".*?</svg>', page, re.DOTALL)
    assert ">simulation/</text>" in packages and ">splitting</text>" in integrators
