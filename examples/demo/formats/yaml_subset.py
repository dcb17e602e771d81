"""As much of YAML as a `data.yaml` has: keys with texts, lists and mappings, in blocks or in brackets.

Texts stay texts, numbers too, so that a class called 007 or no is called that. What goes beyond is refused by its
line, and what no one asks for is not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# Up to a comment, which begins behind a space, outside of quotes.
_CONTENT = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|(?<![\w.)])'(?:[^']|'')*'|(?<=\S)#|[^#])*""")
_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'\[\]{},#&*!|>%@`-].*?)\s*:(?:\s+(.*)|$)""")
_PLAIN = re.compile(r"""(?:[^,\[\]{}:]|:(?![\s,\[\]{}]|$))+""")
_BEYOND = ("&", "*", "!", "|", ">", "%", "@", "`")


class Line(NamedTuple):
    number: int
    indent: int
    text: str


def read(text: str, keys: Sequence[str]) -> dict[str, Any]:
    """The values of top-level keys that are there: texts, None, lists and dicts of these.

    Raises:
        ValueError: naming the line that cannot be read.
    """
    lines = _lines(text)
    if lines and lines[0].text.startswith("{"):
        whole = _Brackets(lines).read()
        return {key: whole[key] for key in keys if key in whole}
    found: dict[str, Any] = {}
    while lines:
        head, (key, value) = lines[0], _split(lines[0])
        count = _length(lines, value)
        if head.indent:
            raise ValueError(f"line {head.number}: expected a key at the beginning of the line, got {head.text!r:.60}")
        if key in keys:
            if key in found:
                raise ValueError(f"line {head.number}: {key!r} occurs twice")
            found[key] = _value(value, head, lines[1:count])
        lines = lines[count:]
    return found


def _lines(text: str) -> list[Line]:
    """Those with content, without comments."""
    lines = []
    for number, raw in enumerate(text.splitlines(), start=1):
        matched = _CONTENT.match(raw)
        content = (matched.group() if matched else raw).rstrip()
        if content.strip() and not re.fullmatch(r"---|\.\.\.", content):
            body = content.lstrip(" ")
            lines.append(Line(number, len(content) - len(body), body))
    return lines


def _split(line: Line) -> tuple[str, str]:
    """Key and what follows on its line."""
    matched = _KEY.fullmatch(line.text)
    if matched is None:
        raise ValueError(f"line {line.number}: expected 'key: value', got {line.text!r:.60}")
    return str(_scalar(matched[1], line.number)), (matched[2] or "").strip()


def _length(lines: Sequence[Line], value: str) -> int:
    """How many lines the entry at the first of them takes: what is further in, a list's items, an open bracket's."""
    indent, count = lines[0].indent, 1
    while count < len(lines):
        line = lines[count]
        item = not value and line.indent == indent and re.match(r"-(\s|$)", line.text) is not None
        closing = value[:1] in ("[", "{") and line.text[0] in "]}"
        if line.indent <= indent and not item and not closing:
            break
        count += 1
    return count


def _value(value: str, head: Line, rest: list[Line]) -> Any:
    """What follows a key or the dash of an item, on its own line and on those further in."""
    if value[:1] in ("[", "{"):
        return _Brackets([Line(head.number, 0, value), *rest]).read()
    if value and rest:
        raise ValueError(f"line {rest[0].number}: a text over several lines is not supported by this reader of YAML")
    if value or not rest:
        return _scalar(value, head.number)
    return _items(rest) if re.match(r"-(\s|$)", rest[0].text) else _mapping(rest)


def _items(lines: list[Line]) -> list[Any]:
    items, indent = [], lines[0].indent
    while lines:
        head = lines[0]
        if head.indent != indent or not re.match(r"-(\s|$)", head.text):
            raise ValueError(f"line {head.number}: expected an item '- ...', got {head.text!r:.60}")
        value = head.text[1:].strip()
        count = _length(lines, value or "-")
        if re.match(r"-\s", value) or (_KEY.fullmatch(value) and value[0] not in "[{'\""):
            raise ValueError(
                f"line {head.number}: an item with items of its own is not supported by this reader of YAML"
            )
        items.append(_value(value, head, lines[1:count]))
        lines = lines[count:]
    return items


def _mapping(lines: list[Line]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    indent = lines[0].indent
    while lines:
        head, (key, value) = lines[0], _split(lines[0])
        if head.indent != indent or key in values:
            wrong = f"{key!r} occurs twice" if key in values else "indented differently from the lines before"
            raise ValueError(f"line {head.number}: {wrong}")
        count = _length(lines, value)
        values[key] = _value(value, head, lines[1:count])
        lines = lines[count:]
    return values


def _scalar(text: str, number: int) -> str | None:
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            raise ValueError(f"line {number}: not a text in quotes, got {text!r:.60}") from None
    if text[:1] == "'":
        if not re.fullmatch(r"'(?:[^']|'')*'", text):
            raise ValueError(f"line {number}: not a text in quotes, got {text!r:.60}")
        return text[1:-1].replace("''", "'")
    if text.startswith(_BEYOND) or re.search(r":(\s|$)", text):
        raise ValueError(f"line {number}: {text!r:.60} is not supported by this reader of YAML")
    return None if text in ("", "~", "null", "Null", "NULL") else text


class _Brackets:
    """What stands in brackets, over any number of lines; JSON too."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.number, self.last = lines[0].number, lines[-1].number
        self.text, self.at = " ".join(line.text for line in lines), 0

    def read(self) -> Any:
        value = self._value()
        if self._next():
            raise self._error(f"nothing more behind the bracket that closes, got {self.text[self.at :]!r:.60}")
        return value

    def _value(self) -> Any:
        kind = self._next()
        if kind == "[":
            return self._several("]", [], lambda items, value: items.append(value))
        if kind == "{":
            values: dict[str, Any] = {}
            return self._several("}", values, None)
        return self._text()

    def _several(self, closing: str, values: Any, add: Any) -> Any:
        self.at += 1
        while self._next() != closing:
            if add is None:
                key = str(self._text())
                if self._next() != ":":
                    raise self._error(f"':' behind {key!r:.60}")
                self.at += 1
                if key in values:
                    raise ValueError(f"line {self.number}: {key!r:.60} occurs twice")
                values[key] = None if self._next() in (",", closing) else self._value()
            else:
                add(values, self._value())
            if self._next() == ",":
                self.at += 1
            elif self._next() != closing:
                raise self._error(f"',' or '{closing}', got {self.text[self.at :]!r:.60}")
        self.at += 1
        return values

    def _text(self) -> str | None:
        rest = self.text[self.at :]
        quoted = re.match(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^']|'')*'""", rest)
        matched = quoted or (_PLAIN.match(rest) if rest[:1] not in ("", '"', "'") else None)
        if matched is None:
            raise self._error(f"a text, got {rest!r:.60}")
        self.at += len(matched.group())
        return _scalar(matched.group().strip(), self.number)

    def _next(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _error(self, expected: str) -> ValueError:
        where = f"line {self.number}" if self.number == self.last else f"lines {self.number} to {self.last}"
        return ValueError(f"{where}: expected {expected}")
