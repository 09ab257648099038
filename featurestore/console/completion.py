"""``featurestore completion``: what a shell needs to complete commands, options and keys."""

import argparse
from typing import Any

import shtab

from featurestore.console import cli, keys
from featurestore.spec import store_arguments
from featurestore.spec.keys import documented

COMPLETE: dict[str, Any] = {
    "bash": "_featurestore_keys",
    "zsh": "_featurestore_keys",
}
"""The functions of `PREAMBLE`, as shtab takes them."""
PREAMBLE = {
    "bash": '_featurestore_keys() { compgen -W "KEYS" -- "$1"; }',
    "zsh": "_featurestore_keys() { compset -P '*=' && _files || compadd -S '' -- KEYS; }",
}
# shtab registers what `eval` reads, and would complete at once what `source` does.
SOURCED = ("[[ $zsh_eval_context[-1] == eval ]]", "[[ $zsh_eval_context[-1] != loadautofunc ]]")
COMPDEF = "  compdef "
STARTED = "  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"
# bash takes `key`, `=` and the value for three words, and adds a blank to what it completes.
WRAPPED = """
_featurestore_words() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  if [[ "$word" == "=" || "${COMP_WORDS[COMP_CWORD-1]}" == "=" ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "${word#=}")
    return 0
  fi
  _shtab_featurestore
  if [[ "${COMPREPLY[0]-}" == *= ]]; then compopt -o nospace 2>/dev/null; fi
  return 0
}
complete -o bashdefault -F _featurestore_words featurestore
"""


def run(options: argparse.Namespace) -> None:
    """Print the script, for example for ``source <(featurestore completion bash)``."""
    print(script(options.shell))  # a program, printed as it is


def script(shell: str) -> str:
    """Return the completions of all commands as a script of a shell.

    Parameters
    ----------
    shell
        ``bash`` or ``zsh``.
    """
    parser = cli.parser()
    [commands] = [action for action in parser._actions if action.dest == "command"]
    assert isinstance(commands.choices, dict)
    for name, command in commands.choices.items():
        if name not in cli.WITHOUT_KEYS:
            _take_keys(command)
    preamble = PREAMBLE[shell].replace("KEYS", " ".join(f"{key}=" for key in known()))
    completions: str = shtab.complete(parser, shell, preamble=preamble)
    if shell == "bash":
        return completions + WRAPPED
    return completions.replace(*SOURCED).replace(COMPDEF, STARTED + COMPDEF)


def known() -> list[str]:
    """Return the keys that may stand after a command."""
    return [*keys.FILES, *keys.OPTIONS, *(name for name, *_ in documented(store_arguments.KEYS))]


def _take_keys(command: argparse.ArgumentParser) -> None:
    """Let the last arguments of a command be completed as keys, for shtab to see."""
    optional = command.get_default("optional")
    places = [action for action in command._actions if action.dest == optional]
    action: Any = places[0] if places else command.add_argument("settings", nargs="*")
    action.nargs, action.complete = "*", COMPLETE
