"""The page of a run, read as text and looked at in a real browser."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from browser import chromium, narrow
from conftest import ROOT, TABLES, launch
from refused import arguments
from selenium.webdriver.common.by import By

from train import probe
from train.config.sections import Evidence
from train.evaluation.evaluate import evaluate
from train.predictions.table import Predictions
from train.reports import results
from train.reports.html import Headline, Page, Picture, Table, Text, cells, html
from train.runtime import fit_state

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=1>',
    "Öl & 'Fett'",
]
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc000"
    "000301010018dd8db00000000049454e44ae426082"
)


class Reader(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_page() -> Page:
    page = Page(HOSTILE[0], HOSTILE[1], [Headline(name, name, name) for name in HOSTILE])
    page.add("data", Table(HOSTILE[0], {name: [name] for name in HOSTILE}, HOSTILE[1]))
    page.add("good", Picture(HOSTILE[1], DOT), Text(HOSTILE[0], HOSTILE[1], code=True))
    page.add("fails", Text(HOSTILE[0], HOSTILE[2], folded=True))
    return page


def test_names_are_text_whatever_they_hold():
    content = html(hostile_page())
    read = Reader(content)
    assert "script" not in read.tags
    assert read.tags.count("img") == 1
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    for name in HOSTILE:
        assert name in read.text


def test_nothing_is_loaded_from_elsewhere():
    read = Reader(html(hostile_page()))
    for name, value in read.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value
    assert not {"script", "iframe", "object", "embed"} & set(read.tags)


def test_a_section_without_content_is_not_there():
    page = Page("run")
    page.add("model", Text("linear"))
    content = html(page)
    assert 'href="#model"' in content
    assert 'href="#data"' not in content


def test_numbers_have_the_digits_that_they_need():
    assert cells([1234567, None]) == ["1,234,567", ""]
    assert cells([0.0, 0.4]) == ["0", "0.4"]
    assert cells([0.5, 0.96834]) == ["0.5000", "0.9683"]
    assert cells([1e-5, 0.96834, float("nan")]) == ["1e-05", "0.9683", ""]
    assert cells([True, "a"]) == ["yes", "a"]


def test_any_table_can_be_added():
    """Whoever has more to tell adds a table; a long one says what it leaves out."""
    page = Page("run")
    page.add("good", Table("By scanner", {"scanner": ["A"] * 70, "accuracy": [0.91234] * 70}))
    content = html(page)
    assert "By scanner" in content
    assert content.count("0.9123") == 60
    assert "10 more rows" in content


def test_pictures_and_what_is_folded_are_opened_by_a_reader():
    page = Page("run")
    page.add("good", Table("Figures", {"a": [1]}), Table("Inputs", {"a": [2]}, folded=True))
    page.add("good", Picture("F1 by class", DOT), Picture("Curves", DOT))
    content = html(page)
    assert re.findall(r"<summary>(.*?)</summary>", content) == ["Inputs", "F1 by class · Curves"]
    assert "<h3>Figures</h3>" in content


def test_intervals_are_drawn_where_there_are_any():
    nan = float("nan")
    table = Table("t", {"a": [1, 2]}, strip=[(0.5, 0.25, 1.5), (0.5, nan, nan)])
    assert table.drawn(0) == (50.0, 25.0, 100.0)
    assert table.drawn(1) is None


def failing() -> Page:
    """Four tiles of two slides; two errors, the surer one the second."""
    table = pa.table({
        "slide_id": ["s1", "s1", "s2", "s2"], "x": [1000, 2, 3, 4], "y": [0, 0, 0, 0],
        "target": [0, 0, 1, 1], "pred": [0, 1, 0, 1],
        "prob_a": np.float32([0.9, 0.4, 0.8, 0.1]), "prob_b": np.float32([0.1, 0.6, 0.2, 0.9]),
    })  # fmt: skip
    page = Page()
    predictions = Predictions.from_table(table.take([1, 2, 0, 3]), ["a", "b"])
    results.add_failures(page, evaluate(predictions, Evidence()), "test")
    return page


def test_failures_are_named_the_worst_first():
    worst, errors, most = failing().sections["fails"]
    assert isinstance(worst, Table) and isinstance(errors, Table) and isinstance(most, Table)
    assert worst.columns["taken for another"] == ["a for b (1)", "b for a (1)"]
    assert [errors.columns[name] for name in ("slide_id", "x", "y")] == [
        ["s2", "s1"], ["3", "2"], ["0", "0"]
    ]  # fmt: skip
    assert errors.columns["true"] == ["b", "a"]
    assert errors.columns["probability"] == pytest.approx([0.8, 0.6])
    assert most.columns["share of true"] == ["50.0%", "50.0%"]


# -- pages of runs --------------------------------------------------------------------------------


def tiny(tables: TABLES, *more: str) -> list[str]:
    return arguments(tables(), "tracking.enabled=false", *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fold=1"], ["Macro F1, validation", "Worst slides, validation", "Fate of the tiles"]),
        (["fold=1", "head=mlp"], ["Macro F1, validation", "mlp"]),
        (["fold=all"], ["Macro F1, out of fold", "Settings", "Worst slides, out of fold"]),
        (["fold=all", "probe=knn"], ["Macro F1, out of fold", "knn", "none registered"]),
    ],
)
def test_a_page_without_tracking(artifacts: TABLES, argv: list[str], words: list[str]):
    """It lies in `output`, and says that nothing was tracked."""
    assert probe.main(tiny(artifacts, *argv, "output=out")) == 0
    read = Reader(Path("out/report.html").read_text())
    for word in [*words, "not tracked", "How to reproduce it", "none found", argv[0]]:
        assert word in read.text, word
    assert "img" in read.tags


@pytest.mark.slow
def test_a_checkpoint_validated_has_a_page(artifacts: TABLES):
    assert probe.main(tiny(artifacts, "fold=1", "output=out")) == 0
    argv = ["fold=1", "mode=validate", "checkpoint=out/checkpoint.safetensors", "output=again"]
    assert probe.main(tiny(artifacts, *argv)) == 0
    text = Reader(Path("again/report.html").read_text()).text
    assert "Macro F1, validation" in text
    for word in ("out/checkpoint.safetensors", "that of fold 1: trained on the other folds",
                 "lowest validation/loss", "none: every figure"):  # fmt: skip
        assert word in text, word


@pytest.mark.slow
def test_a_resumed_fit_has_the_whole_page(artifacts: TABLES, monkeypatch: pytest.MonkeyPatch):
    argv = tiny(artifacts, "fold=1", "output=out")
    save = fit_state.FileCheckpointer.save

    def killed(self: fit_state.FileCheckpointer) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_state.FileCheckpointer, "save", killed)
        assert probe.main(argv) == 130
    assert not Path("out/report.html").exists()
    assert probe.main([*argv, "resume=true"]) == 0
    text = Reader(Path("out/report.html").read_text()).text
    for word in ("Inputs", "Fate of the tiles", "Tiles by class and fold", "Macro F1, validation"):
        assert word in text


@pytest.fixture(scope="module")
def run(digits_home: Path) -> tuple[Path, dict[str, float], str]:
    """Return the main command's page as it lies in MLflow, the run's figures and its id."""
    client = mlflow.MlflowClient(f"sqlite:///{digits_home / 'mlflow.db'}")
    id_ = re.findall(r"run: (\w{32})", (digits_home / "stdout.txt").read_text())[0]
    recorded = client.get_run(id_)
    script = ROOT / "train" / "probe.py"
    assert recorded.data.params["command"].endswith(f"accelerate launch {script} fold=4")
    page = digits_home / recorded.info.artifact_uri / "report.html"
    figures = json.loads(page.with_name("metrics.json").read_text())["data"]
    return page, dict(figures), id_


SCREENS = 2
OPEN = "document.querySelectorAll('details').forEach(one => one.open = arguments[0])"
HEIGHT = "return document.documentElement.scrollHeight"
SCALES = """return [...document.images].filter(one => one.offsetParent)
    .map(one => one.getBoundingClientRect().width / one.naturalWidth)"""
BEYOND = """return [...document.querySelectorAll('body, body *')]
    .filter(one => !one.closest('.scroll *, nav ul *'))
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 99))"""
"""What of a page lies beyond its right edge, but for what scrolls in a box of its own."""


@pytest.mark.slow
def test_a_browser_shows_the_page(run: tuple[Path, dict[str, float], str], tmp_path: Path):
    """Offline: no request, no console message; every picture decoded; nothing overflows."""
    file, metrics, id_ = run
    with chromium(tmp_path / "profile") as browser:
        browser.get(file.as_uri())
        headings = [one.text for one in browser.find_elements(By.TAG_NAME, "h2")]
        assert headings == [
            "Data", "Model", "How good it is", "Where it fails", "How to reproduce it"
        ]  # fmt: skip
        cards = [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".headlines div")]
        low, high = (metrics[f"best/validation/f1_macro_{end}"] for end in ("low", "high"))
        value = metrics["best/validation/f1_macro"]
        assert f"Macro F1, validation\n{value:.3f}\n{low:.3f} – {high:.3f}" in cards
        assert "Leakage\nfound\n11 values of slide_id in several folds" in cards
        body = browser.find_element(By.TAG_NAME, "body").text
        for name in ("kappa", "brier", "auroc_macro"):
            assert f"{metrics[f'best/validation/{name}']:.4f}" in body
        for text in (id_, "accelerate launch", "train/probe.py fold=4", "replay.py models:/tissue"):
            assert text in body
        sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
        assert len(sizes) >= 9
        assert min(sizes) > 0
        loaded = "return performance.getEntriesByType('resource').map(e => e.name)"
        assert not [u for u in browser.execute_script(loaded) if not u.startswith("data:")]
        assert {url for url in asked(browser) if not url.startswith("data:")} == {file.as_uri()}
        assert browser.get_log("browser") == []
        for link in browser.find_elements(By.CSS_SELECTOR, "nav a"):
            link.click()
            assert browser.execute_script("return location.hash").startswith("#")
        heights = {}
        for width, is_open in ((1100, False), (400, False), (1100, True), (400, True)):
            narrow(browser, width)
            browser.execute_script(OPEN, is_open)
            assert browser.execute_script(BEYOND) == [], (width, is_open)
            heights[width, is_open] = browser.execute_script(HEIGHT)
            # What is opened can be read: hardly smaller than drawn, in a box that scrolls.
            assert min(browser.execute_script(SCALES), default=1) > 0.9, width
        assert heights[1100, False] < SCREENS * 1_350, "what matters is not on two screens"
        assert heights[1100, True] > 3 * heights[1100, False]


@pytest.mark.slow
def test_a_browser_runs_nothing_that_names_smuggle_in(tmp_path: Path):
    file = tmp_path / "page.html"
    file.write_text(html(hostile_page()))
    with chromium(tmp_path / "profile") as browser:
        browser.get(file.as_uri())
        assert browser.title == HOSTILE[0]
        assert {url for url in asked(browser) if not url.startswith("data:")} == {file.as_uri()}
        assert browser.get_log("browser") == []


def asked(browser) -> list[str]:
    """Return what the browser asked for."""
    entries = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    return [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.slow
def test_two_processes_say_so(artifacts: TABLES, tmp_path: Path):
    argv = tiny(artifacts, "fold=1", "output=out")
    script = str(ROOT / "train" / "probe.py")
    command = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2",
               "--master_port", "29641", script, *argv]  # fmt: skip
    done = launch(command, tmp_path, ACCELERATE_USE_CPU="1")
    assert done.returncode == 0, done.stderr
    text = Reader((tmp_path / "out" / "report.html").read_text()).text
    assert re.search(r"ACCELERATE_USE_CPU=1 .*torchrun --nproc_per_node 2 ", text)
    assert re.search(r"processes\s+2\s", text)
