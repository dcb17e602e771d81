"""A head of your own, trained with the loss inside the compiled step: model, data, step, decoding, a picture.

    python examples/minimal.py [--steps 600] [--out runs/minimal.png]

Coloured rectangles on noise, found by three small levels of convolutions. Needs torch and pillow.
"""

import argparse
from pathlib import Path

try:
    import torch
    from PIL import Image, ImageDraw
    from torch import Tensor, nn

    from compiled_loss import DetectionLoss, Detections, Predictions, Targets
    from compiled_loss.overlaps import iou
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error.name} is not installed; from the project's folder: pip install '.[demo]'"
    ) from None

SIZE, STRIDES, CLASSES, BINS, BATCH = 128, (8, 16, 32), 3, 16, 8
COLOURS = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.3, 0.4, 0.9]])


def pictures(count: int) -> tuple[Tensor, Targets]:
    """`[count, 3, SIZE, SIZE]` of one to four rectangles each, and their rows: boxes are fractions of the image."""
    images, rows = torch.rand(count, 3, SIZE, SIZE) * 0.3 + 0.35, []
    for i in range(count):
        for _ in range(int(torch.randint(1, 5, ()))):
            label, (w, h) = int(torch.randint(CLASSES, ())), torch.randint(12, SIZE // 2, (2,)).tolist()
            x, y = (int(torch.randint(SIZE - side, ())) for side in (w, h))
            images[i, :, y : y + h, x : x + w] = COLOURS[label][:, None, None]
            rows.append([i, label, (x + w / 2) / SIZE, (y + h / 2) / SIZE, w / SIZE, h / SIZE])
    table = torch.tensor(rows)
    return images, Targets(table[:, 0].long(), table[:, 1].long(), table[:, 2:])


class Detector(nn.Module):
    """At every cell of each level `4 BINS` logits of distances and `CLASSES` logits of classes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def block(inside: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inside, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU())

        self.stem = nn.Sequential(block(3, 2), block(width, 2))
        self.levels = nn.ModuleList(nn.Sequential(block(width, 2), block(width, 1), block(width, 1)) for _ in STRIDES)
        heads = [nn.Conv2d(width, 4 * BINS + CLASSES, 1) for _ in STRIDES]
        for head in heads:
            assert head.bias is not None
            nn.init.constant_(head.bias[4 * BINS :], -4.0)  # at first nearly every anchor is background
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Predictions:
        x, maps = self.stem(images), []
        for level, head in zip(self.levels, self.heads, strict=True):
            x = level(x)
            maps.append(head(x))
        boxes, scores = torch.cat([m.flatten(2) for m in maps], 2).split([4 * BINS, CLASSES], 1)
        return Predictions(boxes, scores, tuple((m.shape[2], m.shape[3]) for m in maps))


def draw(image: Tensor, found: Detections, b: int) -> Image.Image:
    """One picture, with what is sure and overlaps no better box; with torchvision, `suppress` does that."""
    pixels = (image * 255).byte().permute(1, 2, 0).flatten().tolist()
    picture, kept = Image.frombytes("RGB", (SIZE, SIZE), bytes(pixels)), []
    for box, score, label in zip(found.boxes[b], found.scores[b], found.labels[b], strict=True):  # best first
        if score > 0.3 and all(iou(box, other) < 0.5 for other in kept):
            kept.append(box)
            ImageDraw.Draw(picture).rectangle(box.clamp(0, SIZE - 1).tolist(), outline="white", width=2)
            ImageDraw.Draw(picture).text((int(box[0]) + 3, int(box[1]) + 3), f"{int(label)} {score:.2f}", fill="white")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/minimal.png"))
    options = parser.parse_args()
    torch.manual_seed(0)
    model, criterion = Detector(), DetectionLoss(CLASSES, STRIDES, reg_max=BINS)
    plan = criterion.plan((SIZE, SIZE))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, options.steps)
    step = torch.compile(lambda images, targets: criterion(model(images), targets), fullgraph=True)

    print("the first step compiles, which takes about a minute", flush=True)
    for i in range(options.steps):
        images, rows = pictures(BATCH)
        out = step(images, plan.apply(rows, BATCH).mark_dynamic())
        (out.total / BATCH).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if i % 100 == 0 or i == options.steps - 1:
            print(f"step {i}:", {name: round(term.item() / BATCH, 3) for name, term in out.terms.items()}, flush=True)

    images, _ = pictures(4)
    with torch.no_grad():
        found = criterion.detect(model.eval()(images), k=50)
    canvas = Image.new("RGB", (4 * SIZE, SIZE))
    for b, image in enumerate(images):
        canvas.paste(draw(image, found, b), (b * SIZE, 0))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(options.out)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
