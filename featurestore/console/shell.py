"""An interactive SQL prompt over the views: history, completion, a pager."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import Output
from pygments.lexers.sql import SqlLexer

from featurestore.backend import errors
from featurestore.console import answers
from featurestore.console.tables import print_table
from featurestore.errors import FeatureStoreError
from featurestore.printing import Console
from featurestore.store import FeatureStore
from featurestore.views.catalogue import column_notes, describe_view

KEYWORDS = (
    "select", "from", "where", "group by", "order by", "having", "limit", "with", "as", "join",
    "inner join", "left join", "on", "using", "union all", "distinct", "count(*)", "sum", "avg",
    "min", "max", "round", "case", "when", "then", "else", "end", "and", "or", "not", "in",
    "between", "like", "is null", "is not null", "filter (where", "over (partition by", "desc",
)  # fmt: skip
HELP = r"""End a statement with ; and it is run. Tab completes.
\d        the views            \d VIEW   one view with its columns
\q        leave (or Ctrl-D)    Ctrl-C    drop the line"""
LIMIT = 1000  # rows that are shown


class Names(Completer):
    """Completes view names, the columns of the views that the text names, and SQL keywords.

    Parameters
    ----------
    views
        Name of each view to its columns.
    """

    def __init__(self, views: Mapping[str, Sequence[str]]) -> None:
        self.views = views

    def get_completions(self, document: Document, _: object) -> Iterable[Completion]:
        """Yield what the word before the cursor may become, the likeliest first."""
        begun = _word(document.text_before_cursor)
        bare = begun.lstrip('"').casefold()
        if not bare and not begun:
            return
        for name in candidates(document.text, self.views):
            if name.strip('"').casefold().startswith(bare):
                yield Completion(name, start_position=-len(begun))


def _word(text: str) -> str:
    """Return the name that a text ends in the middle of; one in quotes may hold anything."""
    match = re.search(r'"[^"]*$|[\w\\]+$', text)
    return match.group() if match else ""


def candidates(text: str, views: Mapping[str, Sequence[str]]) -> list[str]:
    """Return names in the order in which to offer them: columns in view, views, keywords.

    A name that SQL would read otherwise stands in double quotes.
    """
    named = [view for view in views if re.search(rf"\b{re.escape(view)}\b", text)]
    columns = [column for view in named or views for column in views[view]]
    return list(dict.fromkeys([*map(quoted, columns), *views, *KEYWORDS]))


def quoted(name: str) -> str:
    """Return a name as SQL takes it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def run(
    store: FeatureStore, home: Path, input: Input | None = None, output: Output | None = None,
    console: Console | None = None, *, external: bool = False,
) -> None:  # fmt: skip
    """Read statements and answer them until the user leaves.

    Parameters
    ----------
    store
        Whose views are asked.
    home
        Folder in which the history is kept.
    input, output
        Other than the terminal, for tests.
    console
        Where answers go.
    external
        Whether statements may read what is none of the views.
    """
    if not external:
        store.seal()
    console = console or Console()
    views = dict(store.name_views())
    home.mkdir(parents=True, exist_ok=True)
    session: PromptSession[str] = PromptSession(
        "views> ",
        history=FileHistory(str(home / "history")),
        completer=Names(views),
        lexer=PygmentsLexer(SqlLexer),
        multiline=True,
        key_bindings=_keys(),
        prompt_continuation="     . ",
        input=input,
        output=output,
    )
    for line in HELP.splitlines():
        console.print(line, highlight=False)
    while True:
        try:
            text = session.prompt().strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text in (r"\q", "exit", "quit"):
            return
        if text.strip(";"):
            try:
                answer(store, views, text, console, external)
            except FeatureStoreError as error:
                for line in f"error: {error}".splitlines():
                    console.print(line, highlight=False)


def _keys() -> KeyBindings:
    """Enter ends the text where a statement ends; else it begins another line."""
    keys = KeyBindings()

    @Condition
    def is_whole() -> bool:
        from prompt_toolkit.application import get_app

        text = get_app().current_buffer.text.strip()
        return not text or text.endswith(";") or text.startswith("\\") or text in ("exit", "quit")

    @keys.add("enter", filter=is_whole)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


def answer(
    store: FeatureStore, views: Mapping[str, Sequence[str]], text: str, console: Console,
    external: bool = False,
) -> None:  # fmt: skip
    r"""Print the answer to a statement, or to ``\d``."""
    word, _, name = text.rstrip(";").partition(" ")
    if word == r"\d":
        _show(_described(views, name.strip()), console)
        return
    started = time.perf_counter()
    with errors.translated(), answers.presentable("table"):
        rows = store.sql(text, external).to_pyarrow()
        took = time.perf_counter() - started
        _show(rows, console)
    console.print(f"{len(rows):,} rows, {took:.2f} s", highlight=False)


def _described(views: Mapping[str, Sequence[str]], name: str) -> pa.Table:
    if name in views:
        notes = column_notes(views[name])
        return pa.table({"column": list(notes), "what it is": list(notes.values())})
    return pa.table({"view": list(views), "what it is": [describe_view(view) for view in views]})


def _show(rows: pa.Table, console: Console) -> None:
    """Print a table, through the pager where the screen is too small for it."""
    if not console.is_terminal or len(rows) + 6 < console.height:
        print_table(rows, console, limit=LIMIT)
        return
    with console.pager(styles=True):
        print_table(rows, console, limit=LIMIT)
