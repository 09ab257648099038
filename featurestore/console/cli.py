"""``featurestore``: questions about the views, from the command line.

featurestore init cohort/
featurestore check data=data.yaml
featurestore sql -f fold_balance data=data.yaml
featurestore funnel data=data.yaml thresholds.Fat=0.5
featurestore --config runs:/RUN/config.yaml sql "select count(*) from fates" --format json
"""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from featurestore.console import keys
from featurestore.console.commands import (
    completion,
    cover,
    imports,
    init,
    label_issues,
    questions,
    split,
    training_sets,
)
from featurestore.errors import FeatureStoreError, FeatureStoreWarning
from featurestore.interpreter import collect_seldom
from featurestore.printing import Console, is_quiet, print_error, quietly, say
from featurestore.spec import store_arguments
from featurestore.spec.places import file_question
from featurestore.undo import undone_if_refused

WITHOUT_KEYS = ("import", "cover", "completion")
"""Commands that read no configuration."""
QUIET = "--quiet"


def version() -> str:
    """Return the version of this package, as it is installed."""
    from importlib.metadata import version as installed

    return installed("tissue-probe")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status, 2 after a refusal."""
    try:
        options = arguments(argv)
        with quietly(options.quiet):
            return _run(options)
    except FeatureStoreError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return 130
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of Ctrl-C
            raise
        say("interrupted", sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # what holds the answer would wait for its query, which goes on to its end
    except BrokenPipeError:  # `featurestore sql ... | head`
        sys.stderr.close()
    return 0


def _run(options: argparse.Namespace) -> int:
    collect_seldom()
    # Help and refused arguments do not wait for what reads artifacts.
    from featurestore.io import names
    from featurestore.io.objects import shared

    with shown_warnings(Console(stderr=True)), names.resolved_once():
        shared.use(options.store)
        with undone_if_refused("digits"):  # which nobody asked for who was refused
            return work(options.run)(options) or 0


def work(target: str) -> Callable[[argparse.Namespace], int | None]:
    """Return the function that does the work of a command.

    Parameters
    ----------
    target
        ``module:function`` of this room, as the arguments of the command name it: one command
        imports what it needs, and not what others do.
    """
    module, _, name = target.partition(":")
    run: Callable[[argparse.Namespace], int | None] = getattr(
        importlib.import_module(f"featurestore.console.{module}"), name
    )
    return run


@contextmanager
def shown_warnings(console: Console) -> Iterator[None]:
    """Print this project's warnings as lines; other libraries' are for us, not for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore" if is_quiet() else "always", FeatureStoreWarning)
        warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}")
        yield


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what a command line asks for; ``key=value`` may stand anywhere after the command.

    Raises
    ------
    SystemExit
        argparse does not understand it, or was asked for help.
    FeatureStoreError
        A ``key=value`` is not understood, see `featurestore.console.keys.take`.
    """
    argument_parser = parser()
    argv = sys.argv[1:] if argv is None else argv
    quiet = [word for word in argv if word == QUIET]  # it may stand anywhere
    argv = [*quiet, *(word for word in argv if word != QUIET)]
    options, words = argument_parser.parse_known_args(argv)
    if options.command is None:
        names = ", ".join(options.commands)
        argument_parser.error(f"name a command: {names}; `featurestore --help` says what they do")
    keyed = options.command not in WITHOUT_KEYS
    _refuse(argument_parser, [word for word in words if not keyed or word.startswith("-")])
    if keyed:
        words = [*_taken(options), *words]
        given = [word for word in words if keys.is_setting(word)]
        left = _given_back(options, [word for word in words if word not in given])
        _refuse(argument_parser, left, "".join(dict.fromkeys(map(file_question, left))))
        keys.take(options, given)
    return options


def _taken(options: argparse.Namespace) -> list[str]:
    """Return what argparse took for the arguments of a command: it may be a key=value."""
    taken = getattr(options, options.optional) if options.optional else None
    return taken if isinstance(taken, list) else [] if taken is None else [taken]


def _given_back(options: argparse.Namespace, words: list[str]) -> list[str]:
    """Give a command the words that are its own, and return those that are too many."""
    if options.optional == "places":
        options.places, words = words, []
    elif options.optional:
        setattr(options, options.optional, words[0] if words else None)
    return words[1:] if options.optional else words


def _refuse(asked: argparse.ArgumentParser, words: Sequence[str], question: str = "") -> None:
    if words:
        asked.error(f"unrecognized arguments: {' '.join(words)}{question}")


class Version(argparse.Action):
    """Prints the version and leaves; it is looked up by who asks for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Do so."""
        say(f"{parser.prog} {version()}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="featurestore",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            [
                "After every command but import and cover, key=value:",
                "  data=FILE classes=FILE  YAML of such keys; init writes one",
                "  runs=RUN  views of its predictions; also [RUN,models:/NAME/1,FILE]",
                *store_arguments.lines(),
            ]
        ),
    )
    parser.add_argument(
        "--config",
        metavar="URI",
        help="as data=FILE after the command; or runs:/RUN/config.yaml of a training run "
        "(default: the embedded digits)",
    )
    parser.add_argument("--tracking-uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI)")
    parser.add_argument(
        "--store",
        metavar="PLACE",
        default=os.environ.get("FEATURESTORE_STORE"),
        help="path or s3://bucket/prefix through which machines share what they make",
    )
    parser.add_argument("--threads", type=int, help="threads of the engine (default: every core)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="for example 4GB")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version, and leave")
    parser.add_argument(QUIET, action="store_true", help="no progress, no warnings; errors alone")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for group in (init, questions, cover, label_issues, split, training_sets, imports, completion):
        group.add(commands)
    parser.set_defaults(optional=None, runs=[], commands=[*commands.choices])
    return parser


if __name__ == "__main__":
    sys.exit(main())
