"""The README's table of runtimes is the one of the stored results, which hold what `verify` writes."""

import json

import pytest

from export import table

REPORT = {
    "runtime": "openvino",
    "version": "2026.4.1-22982-abc",
    "task": "detect",
    "graph": "loss",
    "end_to_end": False,
    "setting": {"image_size": [64, 96], "slots": None, "pages": None, "mask_tiles": None, "for_onnx_runtime": False},
    "versions": {"torch": "2.13.0"},
    "verdicts": [
        {"batch": "plain B=1 N=0", "rows": 0, "verdict": "ended", "reason": "SIGSEGV"},
        {"batch": "plain B=1 N=2", "rows": 2, "verdict": "right", "reason": ""},
        {"batch": "plain B=2 N=2", "rows": 2, "verdict": "wrong", "reason": ""},
        {"batch": "half of the anchors NaN B=2 N=7", "rows": 7, "verdict": "right", "reason": ""},
    ],
}


def test_the_readmes_table_is_that_of_the_stored_results():
    text = table.PAGE.read_text()
    assert table.page(text, json.loads(table.RESULTS.read_text())) == text


def test_a_report_becomes_a_row_and_its_reason_a_note():
    made = table.table([table.condensed(REPORT)])
    assert "| OpenVINO 2026.4.1 | detect |  | 1 of 2 (1 wrong) |  |  | 0 of 1 (1 ended) | 1 of 1 | usual |" in made
    assert "- OpenVINO 2026.4.1 (detect loss): `ended: SIGSEGV`" in made


def test_forms_of_a_graph_are_added_up():
    setting = {**REPORT["setting"], "pages": 9, "slots": 4, "image_size": [640, 640]}
    large = {**REPORT, "setting": setting, "end_to_end": True}
    made = table.table([table.condensed(x) for x in (REPORT, large, {**large, "setting": REPORT["setting"]})])
    row = "2 of 4 (2 wrong) |  |  | 0 of 2 (2 ended) | 2 of 2 | usual, 640x640 planned slots |"
    assert f"| OpenVINO 2026.4.1 | detect, end to end |  | {row}" in made
    assert "(detect loss; detect, end to end loss, 640x640 planned slots; detect, end to end loss): `ended" in made


def test_a_folder_of_reports_is_taken_in_and_a_later_one_replaces_an_earlier(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "runtimes.json")
    monkeypatch.setattr(table, "PAGE", tmp_path / "README.md")
    table.PAGE.write_text(f"before\n{table.BEGIN}old\n{table.END}after\n")
    (tmp_path / "new").mkdir()
    for verdict in ("wrong", "right"):
        last = {**REPORT["verdicts"][2], "verdict": verdict}  # type: ignore[dict-item]
        report = {**REPORT, "verdicts": [*REPORT["verdicts"][:2], last]}
        (tmp_path / "new" / "report.json").write_text(json.dumps(report))
        assert table.main([str(tmp_path / "new")]) == 0
    (stored,) = json.loads(table.RESULTS.read_text())
    assert stored["counts"]["usual"] == {"right": 2}
    text = table.PAGE.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert table.page(text, [stored]) == text


def test_what_cannot_be_taken_ends_with_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        table.main([str(tmp_path)])
    assert end.value.code == 2
    assert "folder: expected one with *.json, got" in capsys.readouterr().err
