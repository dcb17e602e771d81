"""The part of YAML that data files have, beside PyYAML where that is installed."""

import random
from typing import Any

import pytest
from demo.formats.yaml_subset import read

KEYS = ("a", "b", "names")


SOUND: list[tuple[str, dict[str, Any]]] = [
    ("a: x\nb: 'it''s'  # why\n", {"a": "x", "b": "it's"}),
    ("---\na: C:/data/x y\n...\n", {"a": "C:/data/x y"}),
    ('a: "tab\\t\\u00e9 # no comment"\n', {"a": "tab\té # no comment"}),
    ("a:\nb: null\nnames: ~\n", {"a": None, "b": None, "names": None}),
    ("a: x#y\nb: x #y\n# all of it\n", {"a": "x#y", "b": "x"}),
    ("names: [a, 'b, c', \"d]\", e f]\n", {"names": ["a", "b, c", "d]", "e f"]}),
    ("names: ['a', # first\n  'b',\n]\nb: 1\n", {"names": ["a", "b"], "b": "1"}),
    ("names: {0: a, '1': b, 2: [c, {d: e}]}\n", {"names": {"0": "a", "1": "b", "2": ["c", {"d": "e"}]}}),
    ("names:\n  0: a\n  1: b: c\n".replace("b: c", "'b: c'"), {"names": {"0": "a", "1": "b: c"}}),
    ("names:\n  0:\n    - a\n    - b\n  1: [c]\n", {"names": {"0": ["a", "b"], "1": ["c"]}}),
    ("names:\n  0:\n  - a\n  -\n", {"names": {"0": ["a", None]}}),
    ("download: |\n  import os\n  a: [\nroboflow:\n  a: 1\na: 2\n", {"a": "2"}),
    ('{"a": [1, 2.5, true],"b":{"c":"d"},\n "other": {}}', {"a": ["1", "2.5", "true"], "b": {"c": "d"}}),
    ("names: []\na: {}\n", {"names": [], "a": {}}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "values"), SOUND)
def test_values_are_read_as_texts(text, values):
    assert read(text, KEYS) == values


@pytest.mark.parametrize(("text", "values"), SOUND)
def test_values_are_what_pyyaml_reads(text, values):
    yaml = pytest.importorskip("yaml")
    whole = yaml.load(text, Loader=yaml.BaseLoader) or {}
    assert blank({key: value for key, value in whole.items() if key in KEYS}) == blank(values)


def blank(value: Any) -> Any:
    """PyYAML's base loader keeps what stands for nothing as a text."""
    if isinstance(value, dict):
        return {key: blank(one) for key, one in value.items()}
    if isinstance(value, list):
        return [blank(one) for one in value]
    return None if value in ("", "null", "~") else value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n b: 2\n", "line 2: a text over several lines"),
        ("a: [1, 2\nb: 3\n", r"line 1: expected ',' or '\]'"),
        ("a: x: y\n", "line 1: 'x: y' is not supported by this reader of YAML"),
        ("a: &x 1\n", "line 1: '&x 1' is not supported by this reader of YAML"),
        ("a: |\n  text\n", "line 2: a text over several lines"),
        ("a: 'x\n", "line 1: not a text in quotes"),
        ('a: "x\n', "line 1: not a text in quotes"),
        ("a: 1\na: 2\n", "line 2: 'a' occurs twice"),
        ("names:\n  0: a\n  0: b\n", "line 3: '0' occurs twice"),
        ("names:\n  0: a\n   1: b\n", "line 3: a text over several lines"),
        ("names:\n  - a\n  b: c\n", "line 3: expected an item"),
        ("names:\n  - b: c\n", "line 2: an item with items of its own"),
        ("names:\n  - - c\n", "line 2: an item with items of its own"),
        ("nothing\n", "line 1: expected 'key: value', got 'nothing'"),
        ("names: [a] b\n", "line 1: expected nothing more"),
        ("names: {a b}\n", "line 1: expected ':'"),
        ("  a: 1\nb: 2\n", "line 1: expected a key at the beginning"),
    ],
)
def test_what_goes_beyond_is_refused_by_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        read(text, KEYS)


def test_random_files_are_read_as_by_pyyaml():
    yaml = pytest.importorskip("yaml")
    rng = random.Random(0)
    words = [
        "a",
        "b c",
        "it's",
        "#1",
        "x#y",
        "no",
        "007",
        "1.5",
        "",
        "- d",
        "e: f",
        "[g]",
        '"h"',
        "é",
        "null",
        "k,l",
        "m:n",
    ]

    def value(depth):
        kind = rng.choice(("text", "text", "list", "dict")) if depth else "text"
        if kind == "list":
            return [value(0) for _ in range(rng.randrange(4))]
        if kind == "dict":
            return {rng.choice(("0", "1", "name", "x y")): value(depth - 1) for _ in range(rng.randrange(4))}
        return rng.choice(words)

    for _ in range(2000):
        document = {key: value(2) for key in rng.sample([*KEYS, "other", "download"], 3)}
        style = rng.choice((None, True, False))
        text = yaml.dump(document, default_flow_style=style, width=1000, allow_unicode=True, sort_keys=False)
        whole = yaml.load(text, Loader=yaml.BaseLoader)
        assert blank(read(text, KEYS)) == blank({key: one for key, one in whole.items() if key in KEYS}), text
