"""The page of commands is filled in from the commands themselves: it cannot be out of date."""

import re
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from mts_driver.cli.help_page import PANELS, panel_of
from mts_driver.cli.main import SUBCOMMANDS, application

PAGE, MARK = "reference/commands.md", "<!-- commands -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the commands where the mark is."""
    if page.file.src_uri != PAGE:
        return markdown
    commands: Any = typer.main.get_command(application())
    return markdown.replace(MARK, "\n".join(described(commands.commands[n]) for n in SUBCOMMANDS))


def described(command: Any) -> str:
    """Return the section of a command: usage, what it does, and its parameters in their panels."""
    usage = command.get_usage(command.make_context(command.name, [], resilient_parsing=True))
    usage = re.sub(r"\{(\w+)\}", lambda name: name.group(1).upper(), usage)
    lines = [f"## mts {command.name}", "", "```text", f"mts {usage.removeprefix('Usage: ')}", "```"]
    lines += ["", _text(command.help), ""]
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    for title in ("Arguments", *PANELS, "Options"):
        rows = [_row(p) for p in shown if panel_of(p) == title]
        if rows:
            lines += [f"**{title}**", "", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    named = ", ".join(f"`{name}`" for name in names)
    default = names[0] if parameter.default is True else parameter.default
    is_said = default in (None, "", False, ()) or callable(default)
    return f"- {named}: {_text(parameter.help or '')}" + ("" if is_said else f" (`{default}`)")


def _text(text: str) -> str:
    """Return a help text as Markdown, in which an i-PI tag is code and a star is no mark."""
    return re.sub(r"(?<!`)(<[a-z_]+>)", r"`\1`", text).replace("*", r"\*")
