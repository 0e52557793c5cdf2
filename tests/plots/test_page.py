"""A page of HTML."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from sb3_fcdl.plots import curves, page


class Reader(HTMLParser):
    """Collects the text and the tags, and notices what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_text_of_others_stays_text():
    text = "<script>alert('x')</script> & more"
    html = page.page(text, page.paragraph(text), [(text, page.table((text,), [(text,)]) + page.preformatted(text))])
    reader = Reader()
    reader.feed(html)
    assert reader.open == [] and "script" not in reader.tags
    # Title, heading, lead, link, heading of the section, two cells, preformatted.
    assert reader.texts.count(text) == 8


def test_picture_is_inside_the_page_and_always_the_same():
    figures = [curves.importances({"a": 0.5, "b": 0.25}) for _ in range(2)]
    first, second = (page.picture(figure, 'of "a" and b') for figure in figures)
    assert first == second and 'alt="of &quot;a&quot; and b"' in first
    (data,) = re.findall(r"base64,([^\"]+)", first)
    assert b"<svg" in base64.b64decode(data)


def test_episode_has_a_strip_for_each_variable_the_rewards_and_the_contexts():
    values = np.array([[0, 20.5], [1, 21.0], [1, 20.0]])
    figure = curves.episode(["window", "room"], values, [["shut", "open"], []], np.array([1.0, -1.0]), np.array([7, 3]))
    window, room, rewards, codes = figure.axes
    assert [label.get_text() for label in window.get_yticklabels()] == ["shut", "open"]
    assert room.lines[0].get_ydata().tolist() == [20.5, 21, 20]
    assert [bar.get_height() for bar in rewards.patches] == [1, -1]
    assert [label.get_text() for label in codes.get_yticklabels()] == ["3", "7"]
    assert codes.lines[0].get_ydata().tolist() == [1, 0, 0]
    without = curves.episode(["window", "room"], values, [["shut", "open"], []], np.array([1.0, -1.0]), None)
    assert len(without.axes) == 3
