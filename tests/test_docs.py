"""What the papers say is there: commands, verbs, flags, files."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from preprocessing.engines import DASK_OPTIONS

ROOT = Path(__file__).parents[1]
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("k8s/**/*.md")])
MAX_README_LINES = 150


@cache
def targets() -> frozenset[str]:
    names = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return frozenset(names)


@cache
def help_of(stage: str, verb: str = "") -> str:
    command = [sys.executable, "-m", stage, *([verb] if verb else []), "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


@cache
def options_of_beam() -> frozenset[str]:
    return frozenset({*PipelineOptions([]).get_all_options(), *DASK_OPTIONS})


def code_of(paper: Path) -> list[str]:
    """Gives each line of code blocks and each inline code of a paper."""
    text = paper.read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [*joined.splitlines(), *inline]


def test_there_are_papers_to_check():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {path.name for path in PAPERS}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_commands_name_targets(paper):
    for line in code_of(paper):
        for target in re.findall(r"\bmake ([a-z0-9-]+)", line):
            assert target in targets(), f"{paper.name}: make {target}"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_commands_name_verbs_and_flags(paper):
    for line in code_of(paper):
        found = re.search(r"python -m (preprocessing|trainer|serving)\b(.*)", line)
        if not found or "VERB" in line:
            continue
        stage, rest = found.groups()
        own, _, beams = (part.strip() for part in rest.partition(" -- "))
        words = shlex.split(own, comments=True)
        verbs = [word for word in words if not word.startswith("-")]
        if not verbs:
            continue
        for flag in (word for word in words if word.startswith("--")):
            assert flag in help_of(stage, verbs[0]), f"{paper.name}: {line}"
        for option in shlex.split(beams, comments=True):
            name = option.removeprefix("--").split("=")[0]
            assert name in options_of_beam(), f"{paper.name}: {line}"
        assert re.search(rf"\b{verbs[0]}\b", help_of(stage)), f"{paper.name}: {line}"


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(paper):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", paper.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (paper.parent / link).exists(), f"{paper.name}: {link}"


def test_docstrings_name_decisions_that_are_there():
    for path in ROOT.glob("*/**/*.py"):
        if path.is_relative_to(ROOT / ".venv"):
            continue
        for name in re.findall(r"docs/decisions/\d{4}[\w-]+\.md", path.read_text()):
            assert (ROOT / name).is_file(), f"{path}: {name}"


def test_every_target_is_explained_by_make_help():
    shown = subprocess.run(
        ["make", "help"], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    for target in targets():
        assert re.search(rf"^{target}\b", shown, flags=re.MULTILINE), target


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("data", "URL"),
        ("tfrecords", "IMAGES"),
        ("inspect", "DATA"),
        ("train-multigpu", "DATA"),
        ("evaluate", "RUN"),
        ("cross-validate", "DATA"),
        ("export", "RUN"),
        ("serve", "MODEL"),
        ("predict", "INPUT"),
    ],
)
def test_target_without_its_variable_says_which_one(target, missing):
    # --assume-old: the environment is not looked at, so nothing is installed by this test.
    made = subprocess.run(
        ["make", "-n", "--assume-old=requirements.lock", "--assume-old=setup.py", target],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert made.returncode
    assert f"{missing} is missing: " in made.stderr


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_continuous_integration_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)


def test_locked_packages_have_hashes_and_no_addresses():
    for name in ("requirements.lock", "requirements-gpu.lock"):
        text = (ROOT / name).read_text()
        pinned = re.findall(r"^[\w.-]+==[^\n]*\\\n    --hash=sha256:", text, flags=re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^\S+==", text, flags=re.MULTILINE)) > 50
        assert "://" not in text


def test_every_requirement_of_setup_is_locked():
    setup = (ROOT / "setup.py").read_text()
    locked = (ROOT / "requirements.lock").read_text().lower()
    names = set(re.findall(r'"([a-zA-Z0-9-]+)>=[^"]*"', setup))
    assert {"apache-beam", "gdown", "grpcio", "numpy", "pillow", "tensorflow"} <= names
    for name in names:
        assert re.search(rf"^{name.lower()}==", locked, flags=re.MULTILINE), name
