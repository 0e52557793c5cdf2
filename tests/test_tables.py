"""The tables of the docs are what the result files say."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/results/README.md"]
    if "<!-- table: " in path.read_text()
]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("tables")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_is_typed_by_hand(tables, page):
    text = page.read_text()
    assert tables.with_tables(text) == text, "run `make tables`"
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->")


def test_a_changed_figure_is_noticed(tables):
    page = ROOT / "docs" / "contexts.md"
    text = page.read_text()
    assert "20.4 [20.2, 20.7]" in text
    assert tables.with_tables(text.replace("20.4 [20.2, 20.7]", "20.9 [20.2, 20.7]")) == text
    assert len(PAGES) >= 5
