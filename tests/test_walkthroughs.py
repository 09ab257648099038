"""Pages that take one by the hand: what they write, run and show, in one folder, in their order."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, launch_line
from documents import commands, read

WALKTHROUGHS = [
    "docs/five-minutes-of-sql.md",
    "docs/from-features-to-model.md",
    "docs/growing-cohort.md",
]


@dataclass(frozen=True)
class Step:
    """A block of a page: its language and its text."""

    language: str
    text: str


def steps(page: str) -> list[Step]:
    """Return the blocks of a page that are run, or are what a run shows."""
    blocks = re.findall(r"^```(python|yaml|sh|text)\n(.*?)^```", read(page), re.DOTALL | re.M)
    return [Step(*block) for block in blocks]


def run(text: str, folder: Path) -> str:
    """Run the commands of a block as a user would; return what they print."""
    printed = ""
    for command in commands(text):
        written = re.sub(r"(^|\s)(train|sql)/", rf"\1{ROOT}/\2/", command)
        done = launch_line(written, folder)
        assert done.returncode == 0, command + done.stdout + done.stderr
        printed += done.stdout
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKTHROUGHS)
def test_a_page_runs_from_its_first_line_to_its_last(page: str, tmp_path: Path):
    """A block that begins with the comment ``# NAME: ...`` is the file of that name."""
    for step in steps(page):
        if step.language in ("python", "yaml"):
            name = re.match(r"# ([\w.-]+):", step.text)
            assert name, step.text
            (tmp_path / name[1]).write_text(step.text)
    printed = ""
    for step in steps(page):
        if step.language == "sh":
            printed = run(step.text, tmp_path)
        elif step.language == "text":
            assert step.text in printed
