"""What `featurestore sql` reads: the views, and nothing else unless it may."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from conftest import CLASSES, ROOT, TABLES

from featurestore import FeatureStore, StoreSpec
from featurestore.backend import errors, parsed, query
from featurestore.console import cli
from featurestore.errors import ArtifactError, QueryError

VIEWS = {"fates", "labels"}
INSIDE = {
    "duckdb": [
        "select * from fates", "from FATES", 'select * from "Fates" as f join labels using (x)',
        "with a as (select * from fates), b as (select * from a) select * from b, a",
        "with recursive t as (select 1 as n union all select n + 1 from t where n < 3) from t",
        "select * from range(3) as t (n), unnest([1, 2]), (values (1)) as v (a)",
        "select (select count(*) from labels) from fates where x in (select x from labels)",
        "select * from generate_series(1, 3)", "select fates from fates", "values (1)",
        "select * from fates, lateral (select fates.x + 1)",
        "from (from fates pivot (count(*) for x in (1)))",
        "with a as (select 1) (select * from (select * from a))",
        "describe fates", "describe select x from fates", "describe", "show tables",
        "summarize fates", "select * from (summarize fates)", "show fates",
        "explain select * from fates", "explain analyze from fates",
        "explain (format json) select 1", "pivot fates on x in (1) using count(*)",
        "pivot fates on x using count(*)", "unpivot fates on x into name n value v",
        "from (pivot fates on x using count(*)) order by 1", "/* ü */ explain -- ; \n from fates",
    ],
    "spark": [
        "select * from fates", "select * from `fates` lateral view explode(array(1)) t as a",
        "select * from range(3)", "with text as (select 1 as a) select * from text",
        "select * from values (1), (2) as t(a)",
    ],
}  # fmt: skip
OUTSIDE = {
    "duckdb": {
        "select * from 'x.csv'": "x.csv",
        "from '/etc/passwd'": "/etc/passwd",
        "select * from x.csv": "x.csv",
        "select * from other.main.fates": "other.main.fates",
        "select * from read_csv('x')": "read_csv",
        "select * from read_parquet(['x', 'y'])": "read_parquet",
        "select * from fates, lateral read_text('x')": "read_text",
        "select (select content from read_blob('x')) from fates": "read_blob",
        "select * from glob('*')": "glob",
        "select * from fates positional join 'x.csv'": "x.csv",
        "select x from fates where x in (from 'x.csv')": "x.csv",
        "select * from (summarize 'x.csv')": "x.csv",
        "describe 'x.csv'": "x.csv",
        "summarize from read_csv('x')": "read_csv",
        "explain analyze select * from 'x.csv'": "x.csv",
        "pivot 'x.csv' on a using count(*)": "x.csv",
        "unpivot 'x.csv' on a into name n value v": "x.csv",
        "show databases": 'show "databases"',
        "select * from fates; from 'x.csv'": "x.csv",
        "select * from (pivot 'x.csv' on a)": "x.csv",
        "select * from query('from read_csv(1)')": "query",
        "select * from query_table('x.csv')": "query_table",
        "select * from delta_scan('x')": "delta_scan",
        "select * from sqlite_scan('x', 'y')": "sqlite_scan",
        "select * from duckdb_settings()": "duckdb_settings",
        "select getenv('HOME')": "getenv",
        "select * from information_schema.tables": "information_schema.tables",
        "select * from fatess": "fatess; did you mean 'fates'?",
        # A name that WITH gives elsewhere is a file here.
        'with "x.csv" as (select * from "x.csv") select * from "x.csv"': "x.csv",
        "with b as (from a), a as (select 1) from b": "a",
        'select * from (with "x.csv" as (select 1) from "x.csv") as q, "x.csv"': "x.csv",
    },
    "spark": {
        "select * from text.`/etc/passwd`": "text./etc/passwd",
        "select * from csv.`/x` as t, fates": "csv./x",
        "select * from parquet.`s3://x`": "parquet.s3://x",
        "select * from delta.`/x`": "delta./x",
        "select * from prod.patients": "prod.patients",
        "select * from people": "people",
        "select * from read_files('/x')": "read_files",
        "select secret('scope', 'key')": "secret",
        "select a from fates where x = (select max(value) from text.`/x`)": "text./x",
    },
}


def outside(dialect: str, text: str) -> Iterator[str]:
    if dialect == "spark":
        yield from query.outside(sqlglot.parse_one(text, dialect=dialect), VIEWS)
        return
    with duckdb.connect() as con:
        for statement in parsed.statements(con, text):
            yield from statement.outside(VIEWS)


@pytest.mark.parametrize(
    ("dialect", "text"), [(name, text) for name, texts in INSIDE.items() for text in texts]
)
def test_queries_of_the_views_alone_are_taken(dialect: str, text: str):
    assert list(outside(dialect, text)) == []


@pytest.mark.parametrize(
    ("dialect", "text", "reason"),
    [(name, *pair) for name, texts in OUTSIDE.items() for pair in texts.items()],
)
def test_whatever_else_is_read_is_named(dialect: str, text: str, reason: str):
    with pytest.raises(QueryError, match="none of the views") as refused:
        query.refuse_outside(outside(dialect, text), VIEWS)
    assert refused.value.found == reason
    assert "--external" in refused.value.fix


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("copy fates to 'x.csv'", "COPY: it reads or writes files"),
        ("explain copy fates to 'x.csv'", "COPY: it reads or writes files"),
        ("select 1; attach 'x.db'", "ATTACH: it opens another database"),
        ("install httpfs", "LOAD: it installs or loads an extension"),
        ("load httpfs", "LOAD: it installs or loads an extension"),
        ("set threads = 1", "SET: it changes settings"),
        ("pragma memory_limit = '1GB'", "SET: it changes settings"),
        ("pragma enable_profiling", "PRAGMA: it changes settings"),
        ("pragma table_info('fates')", "PRAGMA of a table: write describe, show or summarize"),
        ("export database 'x'", "EXPORT: it writes files"),
        ("drop view fates", "DROP: it changes data or views"),
        ("create table mine as from fates", "CREATE: it changes data or views"),
        ("create type mine as enum (select 'a')", "CREATE: it changes data or views"),
        ("insert into fates values (1)", "INSERT: it changes data or views"),
        ("explain delete from fates", "DELETE: it changes data or views"),
        ("call duckdb_tables()", "CALL: it runs what is no view"),
        ("-- nothing", "no statement"),
    ],
)
def test_what_writes_is_refused_with_what_it_does(text: str, reason: str):
    with duckdb.connect() as con, pytest.raises(QueryError) as refused:
        parsed.statements(con, text)
    assert refused.value.found == reason


@pytest.mark.parametrize("file", sorted((ROOT / "sql").glob("*.sql")), ids=lambda file: file.stem)
def test_questions_ask_the_views_alone(file: Path):
    views = {"fates", "test_fates", "coverages", "classes", "labels", "slides"}
    with duckdb.connect() as con:
        [statement] = parsed.statements(con, file.read_text())
        assert list(statement.outside(views)) == []


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("select count(*) from fates", []), ("select x from fates", []), ("from fates", ["fates"]),
        ("select vector from labels", ["labels"]), ("select labels from labels", ["labels"]),
        ("summarize labels", ["labels"]), ("describe labels", []),
        ("select columns('v.*') from labels, fates", ["fates", "labels"]),
        ("pivot labels on x using count(*)", ["labels"]),
    ],
)  # fmt: skip
def test_which_views_a_column_may_be_read_of(text: str, views: list[str]):
    with duckdb.connect() as con:
        [statement] = parsed.statements(con, text)
        assert statement.read_wholly(sorted(VIEWS), "vector") == views


@pytest.fixture
def store(artifacts: TABLES) -> FeatureStore:
    """Return a store of artifacts in files whose names are patterns, beside one of other data."""
    named = {key.removeprefix("data."): Path(file) for key, file in artifacts().items()}
    odd = {key: file.rename(file.with_name(f"[{key}] it's *.parquet"))
           for key, file in named.items()}  # fmt: skip
    pq.write_table(pa.table({"a": ["secret"]}), "other.parquet")
    return FeatureStore(StoreSpec(**{**CLASSES, **{key: str(f) for key, f in odd.items()}}))


def test_the_engine_opens_the_artifacts_alone_once_it_is_sealed(store: FeatureStore):
    """Whatever a query looks like: files, folders, extensions, variables and settings are shut."""
    store.seal()
    assert store.sql("select count(*) as n from fates").to_pyarrow().to_pylist() == [{"n": 12}]
    secret = pa.table({"a": ["secret"]})
    assert len(secret) == 1  # a variable that DuckDB would find
    for text in (
        "from 'other.parquet'", "from read_text('/etc/hostname')", "from glob('*')",
        "from read_csv('/etc/passwd')", "from secret",
    ):  # fmt: skip
        with pytest.raises(QueryError):
            store.sql(text, external=True).to_pyarrow()
    for statement in ("set threads = 1", "load httpfs", "attach 'x.db'", "copy fates to 'x.csv'"):
        with errors.translated(), pytest.raises(QueryError), errors.translated():
            store.connection.con.execute(statement)
    assert {file.name for file in Path().iterdir()} == {"in", "other.parquet"}


@pytest.mark.slow
def test_a_sealed_engine_still_spills(artifacts: TABLES):
    named = {key.removeprefix("data."): file for key, file in artifacts().items()}
    store = FeatureStore(StoreSpec(**{**CLASSES, **named}), memory_limit="100MB", threads=1)
    store.seal()
    text = "select max(n) as n from (select range as n, md5(range::varchar) as h from range(3_000_000) order by h)"  # noqa: E501
    assert store.sql(text).to_pyarrow().to_pylist() == [{"n": 2_999_999}]


def test_external_data_are_read_if_they_may_be(
    artifacts: TABLES, capsys: pytest.CaptureFixture[str]
):
    named = artifacts()
    pq.write_table(pa.table({"a": ["outer"]}), "other.parquet")
    Path("store.yaml").write_text(
        f"data: {{tiles: {named['data.tiles']}, embeddings: {named['data.embeddings']}}}\n"
        "class_indices: {Fat: 0, Muscle: 1}\nthresholds: {Fat: 0.5, Muscle: 0.5}\n"
    )
    ask = ["--config", "store.yaml", "sql", "select a from 'other.parquet'", "--format", "csv"]
    assert cli.main(ask) == 2
    output = capsys.readouterr()
    assert "error: The query reads what is none of the views" in output.err
    assert not output.out
    assert cli.main([*ask, "--external"]) == 0
    assert capsys.readouterr().out == '"a"\n"outer"\n'


def test_a_view_of_an_artifact_that_is_not_there_names_it(store: FeatureStore):
    """A question that comes with the feature store, asked of a cohort without test tiles."""
    question = (ROOT / "sql" / "patient_overlap.sql").read_text()
    with pytest.raises(ArtifactError) as refused:
        store.sql(question)
    assert refused.value.wrong == (
        "The query reads the view test_fates, which is made of the artifact test_tiles"
    )
    assert refused.value.found == "data.test_tiles is not set"
    assert "`featurestore split`" in refused.value.fix
    with pytest.raises(ArtifactError, match="the view Slides, which is made of"):
        store.sql("select count(*) from Slides")


def test_sql_from_python_asks_the_views_alone_by_default(store: FeatureStore):
    with pytest.raises(QueryError, match="none of the views"):
        store.sql("from 'other.parquet'")
    assert store.sql("from 'other.parquet'", external=True).to_pyarrow().to_pylist() == [
        {"a": "secret"}
    ]


def test_statements_that_read_are_answered_in_their_order(store: FeatureStore):
    """As DuckDB answers them; nothing is, unless all read the views alone."""
    store.seal()
    kept, types, classes, plan = store.answers(
        "select count(*) as n from fates; describe classes;"
        "from (pivot fates on label using count(*) group by fold) order by fold;"
        "explain from funnel"
    )
    assert kept.to_pylist() == [{"n": 12}]
    assert types["column_name"].to_pylist() == ["name", "index", "threshold"]
    assert classes.to_pylist() == [
        {"fold": 0, "Fat": 3, "Muscle": 3}, {"fold": 1, "Fat": 3, "Muscle": 3},
    ]  # fmt: skip
    assert plan.column_names == ["explain_key", "explain_value"]
    [tables] = store.answers("show tables")
    assert {"fates", "slide_classes"} <= set(tables["name"].to_pylist())
    assert not [n for n in tables["name"].to_pylist() if n.startswith(("ibis_", "parquet_"))]
    with pytest.raises(QueryError, match="Only what reads"):
        store.answers("select 1; copy fates to 'x.csv'")
    with pytest.raises(QueryError, match="no one table"):
        store.sql("select 1; select 2")
    assert store.sql("summarize classes").filter(ibis._.column_name == "name").count().to_pyarrow()


def test_a_view_is_an_ibis_table(store: FeatureStore):
    """With its grain and its rows in a notebook; what is made of it is Ibis' own."""
    fates = store["fates"]
    assert isinstance(fates, ir.Table)
    fat = fates.filter(fates.label == "Fat")
    assert type(fat) is ir.Table
    assert len(fat.to_pandas()) == 6
    joined = fates.join(store["classes"], fates.label == store["classes"].name)
    assert joined.count().to_pyarrow().as_py() == 12
    assert set(fates._repr_mimebundle_()) == {"text/plain", "text/html"}
    with pytest.raises(QueryError, match="did you mean 'fates'"):
        store["fatess"]
    with pytest.raises(QueryError, match="predictions are of runs"):
        store["predictions"]
