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
from collections.abc import Callable, Sequence

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
from featurestore.errors import FeatureStoreError, shown_warnings
from featurestore.interpreter import collect_seldom
from featurestore.printing import Console, print_error, quietly, say
from featurestore.spec import store_arguments
from featurestore.spec.places import file_question
from featurestore.undo import undone_if_refused

WITHOUT_KEYS = ("import", "cover", "completion")
"""Commands that read no configuration."""
QUIET = "--quiet"


def version() -> str:
    """Return the version of this package, as it is installed."""
    import importlib.metadata

    return importlib.metadata.version("tissue-probe")


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
        os._exit(130)  # a normal exit would wait for the query, which runs to its end
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
        with undone_if_refused("digits"):
            return load_command(options.run)(options) or 0


def load_command(target: str) -> Callable[[argparse.Namespace], int | None]:
    """Import the function that runs a command.

    Parameters
    ----------
    target
        ``module:function`` of this room, as `featurestore.console.commands` sets it: a command
        imports what it needs, and not what others need.
    """
    module, _, name = target.partition(":")
    run: Callable[[argparse.Namespace], int | None] = getattr(
        importlib.import_module(f"featurestore.console.{module}"), name
    )
    return run


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what a command line asks for; ``key=value`` may stand anywhere after the command.

    Raises
    ------
    SystemExit
        argparse does not understand it, or was asked for help.
    FeatureStoreError
        A ``key=value`` is not understood, see `featurestore.console.keys.read_settings`.
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
        words = [*_positional_words(options), *words]
        settings = [word for word in words if keys.is_setting(word)]
        unknown = _assign_words(options, [word for word in words if word not in settings])
        question = "".join(dict.fromkeys(map(file_question, unknown)))
        _refuse(argument_parser, unknown, question)
        keys.read_settings(options, settings)
    return options


def _positional_words(options: argparse.Namespace) -> list[str]:
    """Return the words that argparse took for positional arguments: they may be key=value."""
    words = getattr(options, options.optional) if options.optional else None
    return words if isinstance(words, list) else [] if words is None else [words]


def _assign_words(options: argparse.Namespace, words: list[str]) -> list[str]:
    """Assign words to the positional argument of a command; return those that are too many."""
    if options.optional == "places":
        options.places, words = words, []
    elif options.optional:
        setattr(options, options.optional, words[0] if words else None)
    return words[1:] if options.optional else words


def _refuse(parser: argparse.ArgumentParser, words: Sequence[str], question: str = "") -> None:
    if words:
        parser.error(f"unrecognized arguments: {' '.join(words)}{question}")


class Version(argparse.Action):
    """Prints the version and exits; the package's metadata is read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it."""
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
