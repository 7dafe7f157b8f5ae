"""Docstrings are for `help()` and editors: marks of reStructuredText are no part of a page."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the second colon before examples and the roles of names away."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    html = re.sub(r"::(?=</p>\s*<div class=\"(?:language-\w+ )?highlight)", ":", html)
    return re.sub(r":(?:func|mod|class|meth|attr):(?=<code>)", "", html)
