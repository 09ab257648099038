"""Text stays the text that was written; numbers are read by the type of their key."""

import string
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from featurestore.console import cli
from featurestore.errors import ConfigError
from featurestore.spec.keys import documented
from featurestore.spec.rules import field_names
from featurestore.spec.store_spec import DATA, TRAINING, StoreSpec
from train.config import load as config_load
from train.config import schema
from train.config import text as config_text
from train.config.load import load, recorded
from train.config.text import plain

ODD = ["", "null", "~", "on", "No", "007", "0x1F", "12:30", "1_000", "1e3", ".5", "2024-01-01",
       "a #1", "a: b", "- a", "[a, b]", "{a: b}", "*a", "&a", "!a", "%a", "@a", "'a'", '"a"', "a=b",
       "\\???", " a ", "a\nb\n", "a\tb", "${data.name}", "${oc.env:HOME}", "\\${x}", "???", "<<",
       "=", "é", "e\u0301", "\U0001f52c", "\x85", "\u2028", "\ufeff", "\x1b[31m",
       "x " * 200]  # fmt: skip
TEXTS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LOOKS = [text for text in ODD if text not in ("", "null", "???") and "${" not in text]
DIGITS = [f"{key}={value}" for key, value in {"fold": 4, "data.name": "mine"}.items()]


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.lists(TEXTS, unique=True, max_size=3), st.dictionaries(TEXTS, st.floats(0, 1)))
def test_what_is_recorded_is_read_again_as_it_was(
    text: str, groups: list[str], thresholds: dict[str, float]
):
    """By this project, and by PyYAML's own reader: the same texts, names and numbers.

    The store composes the letters of classes, so that they are those of the columns.
    """
    thresholds = {unicodedata.normalize("NFC", name): least for name, least in thresholds.items()}
    own = load(DIGITS)
    own.output = own.tracking.run_name = own.kfold_group = text
    own.data.tiles = text or "."  # an empty URI names nothing
    own.evidence.groups, own.thresholds = groups, thresholds
    own.class_indices = {name: index for index, name in enumerate(thresholds)}
    written = config_text.text(own)
    assert recorded(written, []) == own
    assert yaml.safe_load(written) == plain(own)
    store = StoreSpec.from_yaml(written.encode(), "store.yaml")
    assert store == StoreSpec.from_config(plain(own))
    composed = {unicodedata.normalize("NFC", name): value for name, value in thresholds.items()}
    assert (store.tiles, store.kfold_group, store.thresholds) == (text or ".", text, composed)


@pytest.mark.parametrize("text", LOOKS)
def test_an_argument_that_is_text_is_taken_literally(text: str):
    keys = ("output", "data.runs.tiles", "tracking.experiment", "kfold_group")
    settled = load([*DIGITS, *(f"{key}={text}" for key in keys)])
    assert settled.output == settled.data.runs["tiles"] == text
    assert settled.tracking.experiment == settled.kfold_group == text
    assert recorded(config_text.text(settled), [f"maps.slides={text}"]).maps.slides == text


def test_null_unsets_what_may_be_unset_and_is_text_elsewhere():
    settled = load([*DIGITS, "data.slides=null", "kfold_group=null", "threads=null"])
    assert (settled.data.slides, settled.kfold_group, settled.threads) == (None, "null", None)


@pytest.mark.parametrize(
    ("argument", "groups"),
    [
        ("[organ,007]", ["organ", "007"]),
        ("[on, 12:30, 'a,b', \"c#d\"]", ["on", "12:30", "a,b", "c#d"]),
        ("[]", []),
    ],
)
def test_lists_hold_text(argument: str, groups: list[str]):
    assert load([*DIGITS, f"evidence.groups={argument}"]).evidence.groups == groups


@pytest.mark.parametrize(
    "name",
    ["Connective-Tissue", "a.b", "a=b", "=", "a #1", 'O\'Brien "x"', "No", "007", "Größe: 1"],
)
def test_whatever_is_left_of_a_key_is_the_name_of_a_class(name: str):
    settled = load(
        [*DIGITS, f"thresholds.{name}=0.25", f"sweep.thresholds.{name}=[0.5,1]",
         f"class_indices.{name}=3"]
    )  # fmt: skip
    assert settled.thresholds[name] == 0.25
    assert settled.sweep.thresholds == {name: [0.5, 1.0]}
    assert settled.class_indices[name] == 3


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate=.5", "learning_rate", 0.5),
        ("learning_rate=2", "learning_rate", 2.0),
        ("learning_rate=1_000.5", "learning_rate", 1000.5),
        ("batch_size=1_000", "batch_size", 1000),
        ("batch_size=+5", "batch_size", 5),
        ("final=yes", "final", True),
        ("single_class=off", "single_class", False),
        ("resume=auto", "resume", "auto"),
        ("resume=true", "resume", True),
        ("fold=all", "fold", "all"),
        ("fold=[0,3]", "fold", [0, 3]),
        ("thresholds={Fat: 0.5, No: 1}", "thresholds", {"Fat": 0.5, "No": 1.0}),
    ],
)
def test_numbers_and_words_are_read_by_the_type_of_their_key(
    argument: str, key: str, value: object
):
    read = getattr(recorded("fold: 4\ndata: {name: mine}", [argument]), key)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("fold=010", ["fold is not a whole number", "found: fold=010", "write 10"]),
        ("seed=0x10", ["seed is not a whole number", "seed=0x10"]),
        ("seed=1e3", ["seed is not a whole number"]),
        ("seed=12:30", ["seed is not a whole number"]),
        ("seed=1.0", ["seed is not a whole number"]),
        ("seed=5 #1", ["seed is not a whole number", "seed=5 #1"]),
        ("seed=٣", ["seed is not a whole number"]),
        ("seed=" + "9" * 5000, ["seed is not a whole number"]),
        ("learning_rate=nan", ["learning_rate is not a finite number"]),
        ("learning_rate=.inf", ["learning_rate is not a finite number"]),
        ("learning_rate=1e999", ["learning_rate is not a finite number"]),
        ("learning_rate=0,1", ["learning_rate is not a finite number"]),
        ("final=maybe", ["final is not true or false"]),
        ("mode=Fit", ["mode is not fit, validate, test or predict", "did you mean 'fit'?"]),
        ("kfold_strategy=stratfied", ["did you mean 'stratified'?"]),
        ("evidence.groups=organ", ["a list of texts", "write for example evidence.groups=[organ]"]),
        ("evidence.groups=[a, b] # c", ["evidence.groups is not a list of texts"]),
        ("evidence.groups=[a, [b]]", ["evidence.groups[1] is not text", "=[b]"]),
        ("evidence.groups=[a, null]", ["evidence.groups[1] is not text", "quote it"]),
        ("sweep.learning_rate=[0.1", ["sweep.learning_rate is not a list of finite numbers"]),
        ("sweep.kfold_strategy=[stratfied]", ["sweep.kfold_strategy[0]", "mean 'stratified'?"]),
        ("fold=[0,1.5]", ["fold is not a whole number, all, a list of whole numbers or null"]),
        ("tracking=off", ["tracking is a section of keys", "tracking.KEY"]),
        ("thresholds.Fat=half", ["thresholds.Fat is not a finite number"]),
        ("data.test_tiles=", ["data.test_tiles has no value", "data.test_tiles=null"]),
        ("kfold_group=", ["kfold_group has no value"]),
        ("fold.x=4", ["no configuration key 'fold.x'"]),
        ("output=\udcff", ["not UTF-8"]),
        ("output=${HOME}/out", ["output is given as a template", "output=${HOME}/out"]),
        ("tracking.run_name=${nope}", ["tracking.run_name is given as a template"]),
        (r'evidence.groups=["\x24{k}"]', ["evidence.groups is given as a template"]),
        ("evidence.groups=[&a [*a]]", ["evidence.groups[0] is not text"]),
        ("output=???", ["output is not set", "found: output=???", "for example output="]),
        ("data.name=???", ["data.name is not set"]),
        ("seed=???", ["seed is not set"]),
        ("evidence.groups=[a,'???']", ["evidence.groups is not set"]),
        ("fold=3", ["fold is given twice", "fold=4 fold=3"]),
        ("data.name=other", ["data.name is given twice"]),
        ("thresholds={\u00e9: 0.7, e\u0301: 0.8}", ["thresholds.e\u0301 is set twice"]),
    ],
)
def test_what_is_no_value_of_its_key_is_refused(argument: str, words: list[str]):
    given_twice = "twice" in words[0]
    others = [a for a in DIGITS if given_twice or a.split("=")[0] != argument.split("=")[0]]
    with pytest.raises(ConfigError) as refusal:
        load([*others, argument])
    for word in words:
        assert word in str(refusal.value)


def test_files_keep_the_text_that_they_hold(tmp_path: Path):
    """Names of classes, runs and columns that YAML takes for truths, numbers or dates."""
    (tmp_path / "own.yaml").write_text(
        "data: {name: No, tiles: 2024-01-01, runs: {a: 0123, b: 12:30}}\n"
        "kfold_group: on\nevidence: {groups: [1, 1.0, ~x, 'null']}\n"
        "class_indices: {No: 0, 1: 1, 01: 2, 2024-01-01: 3, null: 4}\n"
        "thresholds: {No: 0, 1: 0.1, 01: 0.2, 2024-01-01: 0.3, null: 0.4}\n"
    )
    settled = load(["data=own.yaml", "fold=0"])
    assert (settled.data.name, settled.data.tiles) == ("No", "2024-01-01")
    assert settled.data.runs == {"a": "0123", "b": "12:30"}
    assert (settled.kfold_group, settled.evidence.groups) == ("on", ["1", "1.0", "~x", "null"])
    assert settled.class_indices == {"No": 0, "1": 1, "01": 2, "2024-01-01": 3, "null": 4}
    assert list(settled.thresholds) == list(settled.class_indices)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("k: 4\nseed: 1\nk: 5\n", ["k is set twice", "line 1", "line 3"]),
        ("thresholds: {1: 0.1, '1': 0.2}", ["thresholds.1 is set twice"]),
        ("thresholds: {\u00e9: 0.5, e\u0301: 0.9}", ["thresholds.e\u0301 is set twice"]),
        ("k: '5'", ["k is not a whole number", "k: '5' in ", "write 5 without quotes"]),
        ("fold: 010", ["fold is not", "write 10"]),
        ("kfold_group: null", ["kfold_group is not text", "'null'"]),
        ("kfold_group: !x y", ["kfold_group is not text"]),
        ("thresholds: [0.1]", ["thresholds is not a mapping from names to finite numbers"]),
        ("use: {dat: digits}", ["There is no 'dat' to use", "did you mean 'data'?"]),
        ("data: {tile: x}", ["'data.tile'", "did you mean 'data.tiles'?"]),
        ("- a", ["is not a mapping", "a list"]),
        ("a: [", ["cannot be read as YAML"]),
        ("? [a]\n: b", ["is not text"]),
        ("a: 1\n---\nb: 2", ["cannot be read as YAML"]),
        ("[" * 1200, ["cannot be read as YAML"]),
        ("output: ${oc.env:HOME}", ["output asks for more than the value of a key", "oc.env"]),
        ("output: ${data.${k}}", ["output asks for more"]),
        ("output: ${data.nam}", ["'data.nam', which is no key", "did you mean 'data.name'?"]),
        ("output: ${output}", ["output cannot be made of the keys", "Recursive"]),
        ("output: x${data.name}\ndata: {name: '${output}'}", ["cannot be made of the keys"]),
        ("output: ${evidence.groups}", ["evidence.groups has no text", "is a list"]),
        ("output: ${tracking}", ["'tracking', which is no key"]),
        ("output: ${k", ["output asks for more"]),
        ("output: ${}", ["output asks for more"]),
        ("fold: [0, '${data.name}']", ["fold[1] is not a whole number", "fold[1]=digits"]),
        ("k: ???", ["k is not set", "for example k="]),
        ("thresholds: ???", ["thresholds is not set"]),
        ("output: ${k}\nk: ???", ["k is not set", "output: ${k}"]),
        ("evidence: {groups: ['???']}", ["evidence.groups is not set"]),
        ("output: ${checkpoint}", ["checkpoint has no text", "is null"]),
    ],
)
def test_what_a_file_must_not_say(content: str, words: list[str], tmp_path: Path):
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(ConfigError) as refusal:
        load(["experiment=own.yaml", *([] if "fold" in content else ["fold=0"])])
    for word in words:
        assert word in str(refusal.value)


def test_only_files_name_other_keys_and_only_keys(tmp_path: Path):
    r"""`${k}` is the number of folds, `\${` the characters."""
    (tmp_path / "own.yaml").write_text(
        r"{seed: '${k}', output: '${data.name}/${k}/\${k}', tracking: {run_name: '${output}'}}"
    )
    settled = load(["experiment=own.yaml", "fold=0", "k=7", "data.name=\\mine"])
    assert settled.seed == 7
    assert settled.output == settled.tracking.run_name == r"\mine/7/${k}"


def test_what_a_key_is_made_of_is_read_by_its_type(tmp_path: Path):
    """A list's numbers too; text is made of numbers, and of what other keys are made of."""
    (tmp_path / "own.yaml").write_text(
        "fold: ['${seed}', '${k}']\nseed: ${max_epochs}\nmax_epochs: 3\nk: 5\n"
        "kfold_group: ${k}\nfinal: ${single_class}\nthresholds: {'1': '${k}e-1'}\n"
        "evidence: {groups: ['${k}', 'a${seed}']}\n"
    )
    settled = load(["experiment=own.yaml"])
    assert (settled.fold, settled.seed, settled.kfold_group) == ([3, 5], 3, "5")
    assert (settled.final, settled.evidence.groups) == (True, ["5", "a3"])
    assert settled.thresholds["1"] == 0.5


def test_what_must_be_set_is_set_by_a_later_layer(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("k: ???\noutput: k${k}\nthresholds: {'0': '???'}\n")
    settled = load(["experiment=own.yaml", "fold=0", "k=7", "thresholds.0=0.5"])
    assert (settled.k, settled.output, settled.thresholds["0"]) == (7, "k7", 0.5)


PIECES = ["${", "}", "$", "{", "\\", "${k}", "looked.up:", "looked.up:k", "oc.env:SECRET", "k", ":",
          "'", '"', "[", "]", "(", ")", ",", ".", " ", "\n", "???"]  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(text=st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_no_file_looks_anything_up_but_keys(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No resolver of OmegaConf's runs, however its call is hidden; backslashes count as its own."""
    calls: list[str] = []
    OmegaConf.register_resolver("looked.up", lambda *_: calls.append(text), replace=True)
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"output": text}))
    try:
        output = load(["experiment=own.yaml", "fold=0"]).output
    except ConfigError as refusal:
        output = str(refusal)
    finally:
        OmegaConf.clear_resolver("looked.up")
    assert not calls
    assert "hunter2" not in str(output)


def test_what_was_recorded_is_never_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another person's configuration does not read this one's environment."""
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "own.yaml").write_text(r"{data: {tiles: '\${oc.env:SECRET}'}, output: '\${k}'}")
    own = config_text.text(load([*DIGITS, "experiment=own.yaml"]))
    again = recorded(own, [])
    assert (again.data.tiles, again.output) == ("${oc.env:SECRET}", "${k}")
    assert StoreSpec.from_yaml(own.encode(), "store.yaml").tiles == "${oc.env:SECRET}"
    assert config_load.excerpt(own, ["data", "nothing"])["data"]["tiles"] == "${oc.env:SECRET}"
    assert "hunter2" not in config_text.text(again)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tresholds: {}", ["'tresholds'", "did you mean 'thresholds'?"]),
        ("tiles: a.parquet", ["'tiles'", "did you mean 'data.tiles'?"]),
        ("data: {tile: a.parquet}", ["'data.tile'", "did you mean 'data.tiles'?"]),
        ("data: a.parquet", ["data is a section of keys"]),
        ("data: {tiles: ''}", ["data.tiles has no value", "data.tiles=null"]),
        ('k: "5"', ["k is not a whole number", "store.yaml, line 1", "without quotes"]),
        ("k: 1", ["k is out of bounds", "k=1"]),
        ("seed: x", ["seed is not a whole number"]),
        ("seed: -1", ["seed is out of bounds"]),
        ("thresholds: [0.1]", ["thresholds is not a mapping"]),
        ("thresholds: {Fat: high}", ["thresholds.Fat is not a finite number"]),
        ("single_class: 2", ["single_class is not true or false"]),
        ("backend: duckbd", ["backend is not duckdb or pyspark", "did you mean 'duckdb'?"]),
        ("k: 5\nk: 6", ["k is set twice"]),
        ("just words", ["is not a mapping"]),
        ("\x00", ["cannot be read as YAML"]),
    ],
)
def test_a_store_is_not_made_of_what_is_not_understood(
    content: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "store.yaml").write_text(content)
    assert cli.main(["--config", "store.yaml", "funnel"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    for word in words:
        assert word in said


def test_a_spec_takes_values_of_its_types_alone():
    """Of Python: a number where text is declared, or text where a number is, is refused."""
    with pytest.raises(ConfigError, match="k is not a whole number"):
        StoreSpec.from_config({"k": "5"})
    with pytest.raises(ConfigError, match=r"data\.tiles is not text"):
        StoreSpec.from_config({"data": {"tiles": 7}})
    with pytest.raises(ConfigError, match=r"data\.slides has no value"):
        StoreSpec(slides="")
    with pytest.raises(ConfigError, match="A key of thresholds is not text"):
        StoreSpec.from_config({"thresholds": {1: 0.5}})
    with pytest.raises(ConfigError, match="not plain"):
        StoreSpec.from_config({"data": {"tiles": Path("a")}})
    assert StoreSpec.from_config({"data": {"tiles": "7"}, "k": 3}) == StoreSpec(tiles="7", k=3)


def test_the_store_knows_the_keys_that_it_has_no_use_for():
    names = {name for name, *_ in documented(schema.Config)}
    roots = {name if name.startswith("data.") else name.partition(".")[0] for name in names}
    roots = {".".join(name.split(".")[:2]) for name in roots}
    own = {f"data.{name}" if name in DATA else name for name in field_names(StoreSpec)}
    assert roots == own | set(TRAINING)
    assert not own & set(TRAINING)


@pytest.mark.slow
def test_letters_of_all_kinds_are_keys():
    """No class name is too odd for a key of its own."""
    names = [f"a{letter}b" for letter in string.printable.replace("=", "")]
    given = {name: number / 128 for number, name in enumerate(names)}
    arguments = [f"thresholds.{name}={threshold}" for name, threshold in given.items()]
    assert load([*DIGITS, *arguments]).thresholds.items() >= given.items()


def test_two_spellings_of_one_class_are_two_values_for_it():
    """Composed and decomposed letters are one name, in arguments and from Python."""
    with pytest.raises(ConfigError, match="is given twice"):
        load([*DIGITS, "thresholds.\u00e9=0.7", "thresholds.e\u0301=0.8"])
    with pytest.raises(ConfigError, match="is set twice"):
        StoreSpec(thresholds={"\u00e9": 0.7, "e\u0301": 0.8})
