"""`featurestore completion`: what bash and zsh complete, asked of them."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from featurestore.console import completion

ASK = """
t() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _featurestore_words 2>/dev/null
  echo "${COMPREPLY[*]}"
}
"""
QUESTIONS = {
    # the words of a line, the last of which is completed -> what there is
    "featurestore che": "check",
    "featurestore --ver": "--version",
    "featurestore sql --form": "--format",
    "featurestore plot fun": "funnel",
    "featurestore import tri": "trident",
    "featurestore funnel tissue": "tissue_prop_min=",
    "featurestore sql select tissue": "tissue_prop_min=",
    "featurestore sql -f fold_balance tissue": "tissue_prop_min=",
    "featurestore plot funnel data.test_t": "data.test_tiles=",
    "featurestore diff before after tracking": "tracking.uri=",
    "featurestore completion z": "zsh",
    "featurestore funnel data = data.ya": "data.yaml",
}


def test_bash_completes_commands_options_keys_and_files(tmp_path):
    (tmp_path / "data.yaml").touch()
    script = completion.script("bash") + ASK + "".join(f"t {line}\n" for line in QUESTIONS)
    done = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, cwd=tmp_path, check=True
    )
    answers = [line.split() for line in done.stdout.splitlines()]
    assert dict(zip(QUESTIONS, answers, strict=True)) == {
        line: [answer] for line, answer in QUESTIONS.items()
    }


LISTENS = "\x1b[?2004h"  # the line editor of zsh asks for pasted text to be marked
TYPED = {
    # what is typed before the tabulator -> what stands there after it
    "che": "check",
    "sql --form": "sql --format",
    "import tri": "import trident",
    "funnel tissue": "funnel tissue_prop_min=",
    "funnel data=data.ya": "funnel data=data.yaml",
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
def test_zsh_loads_it_and_completes_the_same(tmp_path: Path):
    """As its documentation says, at a terminal; the program is one that says what it was given."""
    (tmp_path / "data.yaml").touch()
    (tmp_path / "script").write_text(completion.script("zsh"))
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=its_end, stdout=its_end, stderr=its_end, cwd=tmp_path,
        env={**os.environ, "TERM": "dumb", "HOME": str(tmp_path)}, start_new_session=True,
    )  # fmt: skip
    os.close(its_end)
    try:
        until_it_listens(terminal)
        said(terminal, "source <(cat script); featurestore() print -r -- 'given:' $* .")
        answers = {line: said(terminal, f"featurestore {line}\t") for line in TYPED}
        assert answers == {line: [f"given: {answer} ."] for line, answer in TYPED.items()}
    finally:
        os.close(terminal)
        process.kill()
        process.wait()


def said(terminal: int, line: str) -> list[str]:
    """Type a line at a terminal; return the lines of the answer that say what was given."""
    os.write(terminal, f"{line}\n".encode())
    return [one for one in until_it_listens(terminal).splitlines() if one.startswith("given: ")]


def until_it_listens(terminal: int) -> str:
    """Return what zsh prints before it reads a line: what is typed earlier may be lost."""
    printed, end = "", time.monotonic() + 30
    while LISTENS not in printed and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            printed += os.read(terminal, 65536).decode()
    assert LISTENS in printed, printed
    return printed
