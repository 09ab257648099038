"""`featurestore completion`: what bash completes, asked of bash."""

import subprocess

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


@pytest.mark.parametrize("word", ["label-issues", "--memory-limit", "thresholds=", "data.tiles="])
def test_zsh_is_told_of_the_same(word: str):
    assert word in completion.script("zsh")
