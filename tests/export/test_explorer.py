"""The page in a browser: the graph that it runs agrees with eager torch, and mouse and keys reach everything."""

import pytest
import torch

from compiled_loss import SimOTA
from compiled_loss.overlaps import iou
from export.consumers.web import build
from tests.export.explorer import CORNERS, choose, click, drag, objects, owners, predicted

TASKS = ("detect", "pose", "obb")
ABOVE_THE_FOLD = (
    "[name=task]",
    ".choices span",
    ".bar button",
    "[name=shown]",
    ".head input",
    ".head button",
    "canvas",
)


def numbers(values):
    return pytest.approx(values, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_page_shows_the_assignment_of_python(task, view, positives):
    page = view()
    choose(page, task)
    first = positives(page)
    assert len(first) >= 10
    page.locator("[name=mode][value=untrained]").check()
    assert positives(page) != first
    page.locator("[name=mode][value=trained]").check()
    assert positives(page) == first
    page.locator("#seed").click()
    assert positives(page) != first


@pytest.mark.slow
def test_two_assigners_stand_side_by_side_and_frames_mark_where_they_differ(view, answers, positives):
    page = view()
    first = positives(page)
    page.locator("[name=assigner][value=both]").check()
    for end in ((60, 230), (120, 180)):
        drag(page, (60, 230), end)
        found = answers(page)
        assert list(found) == ["detect-TaskAligned.onnx", "detect-SimOTA.onnx"]
        expected = [owners(page), owners(page, assigner=SimOTA(), overlap=iou)]
        for held, rows in zip(found.values(), expected, strict=True):
            assert {(anchor, row) for anchor, row, _ in held} == {(a, row) for a, row in enumerate(rows) if row >= 0}
        differ = {anchor for anchor, (one, other) in enumerate(zip(*expected, strict=True)) if one != other}
        assert set(page.evaluate("explorer.differing()")) == differ
        assert page.locator("#differ").inner_text() == str(len(differ))
        # A frame darkens the four corners of its cell, on the panels of both.
        framed = {anchor - 1600 for anchor in differ if 1600 <= anchor < 2000}
        around = {(i // 20 + y) * 20 + i % 20 + x for i in framed for y in (0, 1) for x in (0, 1) if i % 20 + x < 20}
        assert framed
        for number in (1, 4):
            reds = page.evaluate(CORNERS, number)
            assert {i for i, red in enumerate(reds) if red < 170} == around & set(range(400))
    page.locator("[name=assigner][value=SimOTA]").check()
    assert positives(page) == found["detect-SimOTA.onnx"]
    page.locator("#reset").click()
    page.locator("[name=assigner][value=TaskAligned]").check()
    assert positives(page) == first


@pytest.mark.slow
def test_undo_brings_back_a_deleted_object_with_its_labels(view, positives):
    page = view()
    start, undo = objects(page), page.locator("#undo")
    assert undo.is_disabled()
    click(page, (60, 230))  # which changes nothing, and is nothing to undo
    assert undo.is_disabled()
    page.keyboard.press("c")
    before, first = objects(page), positives(page)
    page.keyboard.press("Delete")
    assert len(objects(page)) == len(start) - 1
    page.keyboard.press("Control+z")
    assert objects(page) == before
    assert positives(page) == first
    assert page.evaluate("document.activeElement.dataset.id") == "2"
    undo.click()
    assert objects(page) == start
    assert undo.is_disabled()
    for _ in start:
        page.keyboard.press("Delete")
    assert objects(page) == []
    page.keyboard.press("Control+z")
    assert len(objects(page)) == 1
    page.locator("#reset").click()
    page.keyboard.press("Control+z")
    page.locator("#add").click()
    assert len({one["id"] for one in objects(page)}) == 2

    choose(page, "pose")
    objects(page)
    assert undo.is_disabled()
    page.locator(".object").nth(1).focus()
    for key in ("k", "v", "Delete"):
        page.keyboard.press(key)
        before = before if key == "Delete" else objects(page)
    assert before[1]["joints"][0][2] == 0
    page.keyboard.press("Control+z")
    assert objects(page) == before


@pytest.mark.slow
def test_controls_and_all_levels_are_above_the_fold(view):
    page = view(width=1280, height=800)
    for task, assigner in [*((task, "TaskAligned") for task in TASKS), ("detect", "both")]:
        choose(page, task)
        if task == "detect":
            page.locator(f"[name=assigner][value={assigner}]").check()
        page.evaluate("explorer.settled()")
        boxes = [one.bounding_box() for part in ABOVE_THE_FOLD for one in page.locator(part).all() if one.is_visible()]
        assert len(boxes) >= 23
        assert all(box["y"] >= 0 and box["y"] + box["height"] <= 800 for box in boxes), (task, assigner, boxes)
        assert page.locator("#levels canvas").count() == (6 if assigner == "both" else 3)


@pytest.mark.slow
def test_the_page_runs_the_portable_form(truth):
    assert len(truth) == 4
    for metadata, _ in truth.values():
        assert metadata.constants["setting"]["for_onnx_runtime"] is False
        assert "GatherElements" not in metadata.needs["operators"]
        assert "float64" not in metadata.needs["dtypes"]


@pytest.mark.slow
def test_a_box_that_is_dragged_takes_other_anchors(view, positives):
    page = view()
    before, first = objects(page), positives(page)
    drag(page, (60, 230), (90, 180))
    after = objects(page)
    assert [after[1]["x"] - before[1]["x"], after[1]["y"] - before[1]["y"]] == pytest.approx([30, -50], abs=0.5)
    assert after[0] == before[0]
    assert positives(page) != first
    corner = (after[1]["x"] + after[1]["w"] / 2, after[1]["y"] + after[1]["h"] / 2)
    drag(page, corner, (corner[0] - 50, corner[1] - 40))
    assert [objects(page)[1][side] for side in "wh"] == pytest.approx([62, 56], abs=0.5)
    positives(page)


@pytest.mark.slow
def test_predictions_that_are_kept_do_not_follow_a_box(view, positives):
    page = view()
    page.locator("#hold").check()
    before = predicted(page)
    drag(page, (60, 230), (70, 225))
    assert predicted(page) == before
    best = max(weight for _, row, weight in positives(page) if row == 1)
    page.locator("#hold").uncheck()
    assert max(weight for _, row, weight in positives(page) if row == 1) > best


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_boxes_are_drawn_and_deleted_down_to_none(task, view, positives):
    page = view()
    choose(page, task)
    count = len(objects(page))
    drag(page, (300, 312), (306, 318)) if task == "detect" else drag(page, (300, 10), (316, 44))
    assert len(objects(page)) == count + 1
    positives(page)
    for left in range(count, -1, -1):
        page.keyboard.press("Delete")
        assert len(objects(page)) == left
    assert positives(page) == set()
    assert page.locator("#empty").is_visible()
    page.locator("#add").click()
    assert {row for _, row, _ in positives(page)} == {0}


@pytest.mark.slow
def test_keys_do_what_the_mouse_does(view, positives):
    page = view()
    page.locator("[name=task]:checked").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.id") == "2"
    before = objects(page)[1]
    for key in ("ArrowRight", "Shift+ArrowDown", "d", "w", "c"):
        page.keyboard.press(key)
    after = objects(page)[1]
    expected = {"x": before["x"] + 3, "y": before["y"] + 9, "w": before["w"] + 2, "h": before["h"] - 2, "cls": 2}
    assert {name: after[name] for name in expected} == numbers(expected)
    positives(page)
    page.keyboard.press("n")
    assert len(objects(page)) == 7
    assert page.evaluate("document.activeElement.dataset.id") == "7"
    page.wait_for_selector("#summary:has-text('Object 7, disc: ')", state="attached")
    page.locator("#levels canvas").first.focus()
    page.keyboard.press("ArrowRight")
    assert "target score" in page.locator("#readout").inner_text()
    page.locator("#body select").first.focus()
    page.keyboard.press("ArrowDown")
    assert objects(page)[0]["cls"] == 1
    assert page.evaluate("document.activeElement.tagName") == "SELECT"


@pytest.mark.slow
def test_oriented_boxes_turn(view, positives):
    page = view()
    choose(page, "obb")
    first = positives(page)
    before = objects(page)[1]
    page.locator(".object").nth(1).focus()
    page.keyboard.press("]")
    turned = objects(page)[1]
    assert turned["angle"] == pytest.approx(before["angle"] + torch.pi / 60)
    assert positives(page) != first
    knob = page.locator(".grip[data-kind=turn]")
    at = [float(knob.get_attribute(name) or "") for name in ("cx", "cy")]
    drag(page, at, (turned["x"] + 60, turned["y"]))
    assert objects(page)[1]["angle"] == pytest.approx(torch.pi / 2, abs=0.02)
    positives(page)


@pytest.mark.slow
def test_keypoints_are_moved_and_hidden(view, positives):
    page = view()
    choose(page, "pose")
    page.locator("#hold").check()
    first = positives(page)
    page.locator(".object").nth(1).focus()
    x, y, _ = objects(page)[1]["joints"][6]
    drag(page, (x, y), (x + 30, y - 20))
    assert objects(page)[1]["joints"][6] == pytest.approx([x + 30, y - 20, 1], abs=0.5)
    second = positives(page)
    assert second != first
    page.keyboard.press("v")
    assert objects(page)[1]["joints"][6][2] == 0
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    assert positives(page) != second


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_narrow_page_does_not_scroll_sideways(task, view):
    page = view(width=375)
    choose(page, task)
    if task == "detect":
        page.locator("[name=assigner][value=both]").check()
        page.evaluate("explorer.settled()")
    page.locator("summary").click()
    page.locator(".object").nth(1).focus()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.slow
def test_light_and_dark_follow_the_system(view):
    page = view(color_scheme="light")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 246, 244)", "rgb(22, 24, 27)"]


@pytest.mark.slow
def test_a_picture_of_ones_own_begins_without_objects(view, tmp_path):
    image = pytest.importorskip("PIL.Image")
    page = view()
    path = tmp_path / "own.png"
    image.new("RGB", (40, 20), "red").save(path)
    page.locator("#file").set_input_files(path)
    page.wait_for_selector("#empty")
    assert objects(page) == []


@pytest.mark.slow
def test_what_goes_wrong_is_told_in_words(new_page, address, tmp_path):
    page = new_page()
    page.route("**/obb-*.onnx", lambda route: route.abort())
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    path = tmp_path / "letter.png"
    path.write_text("no picture")
    page.locator("#file").set_input_files(path)
    page.wait_for_selector("#failure:has-text('letter.png is not a picture')")
    choose(page, "obb")
    page.wait_for_selector("#failure:has-text('The graph could not be run.')")
    choose(page, "pose")
    page.wait_for_selector("#failure", state="hidden")


def test_without_the_runtime_the_build_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "RUNTIME", tmp_path)
    with pytest.raises(SystemExit) as end:
        build.main(["--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "run: npm ci --prefix export/consumers/web" in capsys.readouterr().err
