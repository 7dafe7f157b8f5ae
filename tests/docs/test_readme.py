"""The README: that it is short, that its set-up is what CI runs, and what CI runs beside it."""

import re
import subprocess
import tomllib

import yaml
from documents import README, ROOT, shell_commands

from mts_driver.cli.main import SUBCOMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CI = (ROOT / ".ci" / "run").read_text()


def setup_commands() -> list[str]:
    return re.findall(r"^pip install .*$", README, re.MULTILINE)


def test_it_fits_on_a_page():
    assert (ROOT / "README.md").stat().st_size <= 8_000


def test_the_way_of_a_project_is_in_the_readme():
    used = {command[1] for command in shell_commands(README) if command[0] == "mts"}
    assert {"prepare", "run", "report", "distill", "check"} <= used <= set(SUBCOMMANDS)


def test_there_are_exactly_two_set_up_commands():
    first, second = setup_commands()
    assert first.endswith("&& mts run inputs/water64/input.xml")
    assert second.endswith("&& pytest")
    for command in (first, second):
        assert command.startswith("pip install torch==2.13.0 && pip install -c constraints.txt -e ")
        assert "index-url" not in command


def test_extras_of_the_set_up_exist():
    for command in setup_commands():
        (named,) = re.findall(r"'\.\[([a-z0-9,]+)\]'", command)
        assert set(named.split(",")) <= set(EXTRAS)


def test_ci_runs_the_second_set_up_command():
    extract = re.search(r"^setup=\$\((.*)\)$", CI, re.MULTILINE)
    assert extract is not None
    found = subprocess.run(
        ["bash", "-c", extract.group(1)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == setup_commands()[1]
    assert '\neval "$setup"\n' in CI
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    for tool in ("ruff check .", "ruff format --check .", "mypy"):
        assert f"\n{tool}\n" in CI


def test_ci_builds_the_documents_after_the_tests():
    lines = CI.splitlines()
    build = 'mkdocs build --strict -f docs/mkdocs.yml -d "$environment/site"'
    assert lines.index('eval "$setup"') < lines.index(build)
    assert lines.index(build) == lines.index("pip install -c constraints.txt -e '.[docs]'") + 1
    assert "pytest -n 0 tests/docs/test_site.py" in lines


def test_hooks_before_a_commit_are_what_ci_checks():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    called = [" ".join(hook["entry"].split()[:2]) for hook in repo["hooks"]]
    assert called == ["ruff check", "ruff format", "mypy"]
    assert all(hook["language"] == "system" for hook in repo["hooks"])
    for tool in called:
        assert f"\n{tool}" in CI


def test_the_public_ci_calls_the_same_script():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    versions = [s["with"]["python-version"] for s in job["steps"] if "python" in s.get("uses", "")]
    assert versions == ["3.11"] and PROJECT["requires-python"] == ">=3.11"


def test_constraints_pin_every_direct_dependency():
    extras = [EXTRAS[e] for e in ("so3lr", "analysis", "general", "dev", "docs")]
    wanted = [line for group in (PROJECT["dependencies"], *extras) for line in group]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in wanted:
        assert re.split(r"[^A-Za-z0-9_-]", requirement)[0] in pins
    # a suffix such as +cpu would refuse every other build
    assert not [version for version in pins.values() if "+" in version]
