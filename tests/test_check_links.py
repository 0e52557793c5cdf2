"""Links of the built manual that lead nowhere are found."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def broken_links(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("check_links").broken_links


def test_links_to_nowhere_are_found(broken_links, tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "graph.html").write_text(
        '<h1 id="graph">Graph</h1><a name="old">x</a><a href="../index.html#no">no</a>'
    )
    (tmp_path / "a b.png").write_text("")
    (tmp_path / "index.html").write_text(
        '<h1 id="here">Here</h1><img src="a%20b.png"><img src="lost.png"><a href="#here">1</a><a href="#">2</a>'
        '<a href="api/graph.html#graph">3</a><a href="api/graph.html#old">4</a><a href="api/graph.html#new">5</a>'
        '<a href="https://example.org/lost#x">6</a><a href="mailto:a@b.c">7</a><a href="#there">8</a>'
    )
    assert broken_links(tmp_path) == [
        "api/graph.html: ../index.html#no",
        "index.html: lost.png",
        "index.html: api/graph.html#new",
        "index.html: #there",
    ]


def test_an_empty_folder_is_no_manual(broken_links, tmp_path):
    with pytest.raises(FileNotFoundError, match="make docs"):
        broken_links(tmp_path)
