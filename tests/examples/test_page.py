"""The page of a run: well formed, complete, and with nothing taken for markup."""

import math
from html.parser import HTMLParser

import pytest
from demo import page


class Reader(HTMLParser):
    """Links, text, and whether every element that was opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.links, self.words, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.mark.parametrize("ap", [0.4321, math.nan])
def test_a_page_joins_pictures_and_results(tmp_path, ap):
    results = {"ap": ap, "ap50": 0.8, "ap75": 0.3, "ap_by_class": {"<b>": 0.2, "$5 & more": 0.6}, "steps": 7}
    settings = {"task": "detect", "data": "a <folder>", "lr": 0.012, "steps": 0}
    captions = [("curves.png", "As it went."), ("predictions.png", "What was found.")]
    page.write(tmp_path / "index.html", "<run>", "detect on x", "AP", results, settings, captions)
    reader = Reader()
    reader.feed((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert set(reader.links) == {"curves.png", "predictions.png", "results.json", "checkpoint.pt"}
    words = reader.words
    assert ("0.432" in words) == (ap == ap)
    assert ("No AP: nothing to find is labelled." in words) == (ap != ap)
    assert words.index("$5 & more") < words.index("<b>")
    assert {"<run>", "a <folder>", "As it went.", "--data"} <= set(words)
    assert "--steps" not in words
