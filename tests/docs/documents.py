"""The documents, and what their code blocks hold."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = (
    *("README.md", "CONTRIBUTING.md", "inputs/README.md"),
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs" / "pages").rglob("*.md")),
)
DOCUMENTS = {name: (ROOT / name).read_text() for name in PAGES}


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def inline_code(text: str) -> list[str]:
    """What the text has in single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def shell_commands(text: str) -> list[list[str]]:
    """Words of every command in the bash blocks, with those chained by && apart."""
    lines = [
        line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [word for word in words if word]


def examples(text: str) -> dict[str, str]:
    """Python blocks by the name of the file that their first line is."""
    found = {}
    for code in blocks(text, "python"):
        first = code.partition("\n")[0]
        name = first.removeprefix("# ") if re.fullmatch(r"# [\w/]+\.py", first) else ""
        assert name not in found, f"two examples are called {name!r}"
        found[name] = code
    return found


def section(text: str, title: str) -> str:
    """What is under a heading, to the next one of any level but the first."""
    (found,) = re.findall(rf"^##+ {title}\n(.*?)(?=^##+ |\Z)", text, re.DOTALL | re.MULTILINE)
    return found
