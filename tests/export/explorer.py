"""What the tests do on the explorer's page, and what they read from it."""

import torch

from compiled_loss import DetectionLoss, Predictions, Targets

# Of the panel with this number, the red of every cell's upper left corner.
CORNERS = """number => {
    const canvas = document.querySelectorAll("#levels canvas")[number];
    const place = (i) => Math.max(0, Math.round(i * canvas.width / 20) - 1);
    const read = (i) => canvas.getContext("2d").getImageData(place(i % 20), place(Math.floor(i / 20)), 2, 2).data;
    return Array.from({ length: 400 }, (_, i) => Math.min(...read(i).filter((_, j) => j % 4 === 0)));
}"""
# What the graphs were given last, by name.
PLAIN = "Object.fromEntries(Object.entries(explorer.inputs()).map(([name, x]) => [name, Array.from(x, Number)]))"


def choose(page, task):
    page.locator(f"[name=task][value={task}]").check()


def objects(page):
    page.evaluate("explorer.settled()")
    return page.evaluate("explorer.objects()")


def drag(page, start, end):
    """From one point of the picture to another, in its own 320 pixels."""
    page.mouse.move(*on_screen(page, start))
    page.mouse.down()
    page.mouse.move(*on_screen(page, end), steps=4)
    page.mouse.up()


def click(page, point):
    """The picture, at a point in its own 320 pixels."""
    page.mouse.click(*on_screen(page, point))


def on_screen(page, point):
    frame = page.locator("#objects").bounding_box()
    return [frame[axis] + value / 320 * frame["width"] for axis, value in zip("xy", point, strict=True)]


def predicted(page):
    """Boxes that the graph was given last."""
    return page.evaluate("explorer.settled().then(() => Array.from(explorer.inputs().pred_boxes))")


def owners(page, **arguments):
    """The object of every anchor, -1 on background, as the loss itself assigns what the graphs were given last."""
    given = page.evaluate(PLAIN)
    boxes, scores = (torch.tensor(given[name]).view(1, -1, 2100) for name in ("pred_boxes", "pred_scores"))
    image, labels = (torch.tensor(given[name], dtype=torch.long) for name in ("batch_idx", "cls"))
    targets = Targets(image, labels, torch.tensor(given["boxes"]).view(-1, 4))
    loss = DetectionLoss(3, reg_max=1, **arguments)
    return loss.assign_dense(Predictions(boxes, scores, ((40, 40), (20, 20), (10, 10))), targets).row[0].tolist()
