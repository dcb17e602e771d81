"""The page of a report: whole by itself, escaped, readable, in the terminal's order."""

import re
from html.parser import HTMLParser

import pytest

from compiled_loss.audit import AuditReport, Finding, Graph, Place, Stage
from compiled_loss.audit.page import render

VOID = {"meta", "br", "link", "img", "input", "hr"}
SOURCE = [f"line_{i} = {i}" for i in range(1, 31)]


class Page(HTMLParser):
    """Tags with their attributes, the text of each, and whether all were closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data


@pytest.fixture
def place(tmp_path):
    """Line 15 of a file of 30 lines."""
    file = tmp_path / "mine.py"
    file.write_text("\n".join(SOURCE) + "\n")
    return Place(str(file), 15, "step", "line_15 = 15")


def report(*findings: Finding, **more) -> AuditReport:
    stages = more.pop("stages", (Stage("eager", "clean", "", 0.25), Stage("breaks", "findings", "", 1.5)))
    graphs = more.pop("graphs", ())
    return AuditReport("step", "2.13.0", "cpu", 3, findings, stages, graphs, **more)


def test_the_page_is_whole_by_itself(place):
    found = Finding("sync", "a value is read", "keep it", place, (place,), detail="see https://example.org/x")
    text = render(report(found))
    page = Page(text)
    assert not page.open
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")]
    assert links == ["#finding-0"]
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_a_language_a_title_and_headings_in_order(place):
    page = Page(render(report(Finding("sync", "m", "a", place))))
    assert ("html", {"lang": "en"}) in page.tags
    assert page.texts["title"] == ["Failed: audit of step"]
    assert page.texts["h1"] == ["step"]
    assert page.texts["h2"] == ["Stages", "Findings"]
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")] == ["h1", "h2", "h2", "h3"]


def test_a_finding_shows_five_lines_before_and_after_with_its_own_marked(place):
    page = Page(render(report(Finding("sync", "m", "a", place))))
    assert page.texts["mark"] == ["15line_15 = 15"]
    assert page.texts["pre"] == ["".join(f"{i}{SOURCE[i - 1]}" for i in range(10, 21))]
    assert page.texts["i"] == [str(i) for i in range(10, 21)]


@pytest.mark.parametrize(("line", "first", "last"), [(1, 1, 6), (30, 25, 30)])
def test_at_the_ends_of_a_file_there_are_fewer_lines(place, line, first, last):
    page = Page(render(report(Finding("sync", "m", "a", Place(place.file, line, "step", SOURCE[line - 1])))))
    assert page.texts["i"] == [str(i) for i in range(first, last + 1)]


@pytest.mark.parametrize("file", ["changed", "<stdin>"])
def test_without_the_file_as_it_was_only_the_known_line_is_shown(place, file):
    known = Place(place.file if file == "changed" else file, 15, "step", "another = 1")
    page = Page(render(report(Finding("sync", "m", "a", known))))
    assert page.texts["i"] == ["15"]
    assert page.texts["mark"] == ["15another = 1"]


def test_findings_come_in_the_terminals_order_with_the_allowed_ones_last(place):
    kinds = ("export", "sync", "graph-break")
    findings = [Finding(x, "m", "a", place) for x in kinds]
    allowed = Finding("graph-break", "m", "a", place, allowed="once per epoch")
    page = Page(render(report(allowed, *findings)))
    order = [re.split(r"[/\\]", x)[0] for x in page.texts["h3"]]
    assert order == ["graph-break", "sync", "export", "graph-break"]
    assert "Allowedonce per epoch" in page.texts["article"][-1]
    assert page.texts["li"] == ["1 graph-break", "1 sync", "1 export", "1 allowed"]


def test_a_finding_tells_all_that_is_known_of_it(place):
    outer = Place(place.file, 3, "train", SOURCE[2])
    found = Finding(
        "sync", "`item` reads", "keep it", place, (outer, place), "backward", (0, 2), detail="torch says so"
    )
    page = Page(render(report(found)))
    (text,) = page.texts["article"]
    for part in ("sync in the backward", f"{place.file}:15", "item reads", "keep it", "0, 2", "sync@step:15"):
        assert part in text
    assert page.texts["summary"] == [
        "Reached through 1 line, outermost first",
        f"{place.file}:3 in train",
        "In torch's own words",
    ]
    assert page.texts["mark"] == ["15line_15 = 15", "3line_3 = 3"]
    assert page.texts["pre"][-1] == "torch says so"
    assert all("open" not in attributes for tag, attributes in page.tags if tag == "details")


def test_a_finding_without_a_line_says_so():
    page = Page(render(report(Finding("mismatch", "off by 0.1", "look", None, batches=(1,)))))
    assert page.texts["h3"] == ["mismatchno single line"]
    assert "pre" not in page.texts


def test_everything_is_escaped_and_control_characters_are_left_out(tmp_path):
    evil = '<script>alert("1")</script>&'
    file = tmp_path / "evil.py"
    file.write_text(f"x = '{evil}'\n", encoding="utf-8")
    there = Place(str(file), 1, evil, f"x = '{evil}'")
    found = Finding("sync", evil, evil, there, (Place(evil, 2, evil, evil), there), detail=f"\x1b[31m{evil}\x00\udc80")
    both = (found, Finding("export", evil, evil, allowed=evil))
    stage = Stage("export", "incomplete", evil)
    broken = AuditReport(evil, evil, evil, 1, both, (stage,), (Graph(evil, evil, 1, 0.0, 0),), {evil: float("inf")})
    text = render(broken)
    page = Page(text)
    assert "script" not in page.texts
    assert page.texts["h1"] == [evil]
    assert page.texts["pre"][-1] == evil
    assert not set(text) & {"\x1b", "\x00", "\udc80"}
    text.encode()


@pytest.mark.parametrize(
    ("findings", "outcome", "verdict"),
    [((), "clean", "Passed"), ((), "incomplete", "Incomplete"), ((Finding("sync", "m", "a"),), "clean", "Failed")],
)
def test_the_verdict_is_the_reports(findings, outcome, verdict):
    page = Page(render(report(*findings, stages=(Stage("gpu", outcome, "why"),))))
    assert page.texts["strong"] == [verdict]
    assert ("gpu had to stop" in page.texts["header"][0]) == (outcome == "incomplete")
    assert "why" in page.texts["table"][0]


def test_graphs_and_errors_have_tables_of_their_own():
    graphs = (Graph("forward", "backward", 102, 7.25, 1),)
    page = Page(render(report(graphs=graphs, largest_errors={"compiled: output 0": 1.5e-7})))
    assert page.texts["h2"] == ["Stages", "Compiled graphs", "Largest errors"]
    assert [x for x in ("102", "7.2", "backward") if x in page.texts["table"][1]] == ["102", "7.2", "backward"]
    assert "1.5e-07" in page.texts["table"][2]


def test_what_scrolls_is_reached_by_keyboard_and_has_a_name(place):
    page = Page(render(report(Finding("sync", "m", "a", place, detail="torch"))))
    boxes = [x for tag, x in page.tags if tag == "pre" or x.get("class") == "box"]
    assert len(boxes) == 3
    assert all(x["tabindex"] == "0" and x["role"] == "region" and x["aria-label"] for x in boxes)


def luminance(colour: str) -> float:
    parts = [int(x, 16) / 255 for x in (re.findall("..", colour) if len(colour) == 6 else [c * 2 for c in colour])]
    red, green, blue = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_aa_asks_for(scheme):
    style = render(report())
    colours = dict(re.findall(r"--([\w-]+):#(\w+)", style.split("@media (prefers-color-scheme:dark)")[scheme]))
    pairs = [(text, ground) for text in ("ink", "soft", "link") for ground in ("page", "card", "sunk")]
    pairs += [(x, f"{x}-wash") for x in ("red", "green", "amber")] + [("ink", "red-wash"), ("ink", "line")]
    for text, ground in pairs:
        dark, light = sorted(luminance(colours[x]) for x in (text, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


@pytest.mark.parametrize(
    ("stages", "word", "reason"),
    [
        ((Stage("breaks", "clean"), Stage("recompiles", "skipped", "no batch")), "Passed", "recompiles not judged"),
        ((Stage("eager", "clean"), Stage("gpu", "skipped")), "Nothing judged", "No stage had anything to look at"),
    ],
)
def test_what_was_not_judged_stands_in_the_verdict(stages, word, reason):
    text = render(report(stages=stages))
    assert f"<strong>{word}</strong><ul><li>{reason}</li></ul>" in text
