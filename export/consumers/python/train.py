"""Train a small linear head on rendered pictures, with numpy and onnxruntime alone.

The loss and its gradients come from a file written by

    python -m compiled_loss export loss --gradients --image-size 64 96 --classes 3 --out loss.onnx

Letters: B images, N rows, A anchors, F features, R distance bins, C classes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

COLOURS = np.array([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.3, 0.3, 0.95], [0.9, 0.8, 0.2]])
SPLIT = 4  # a cell is seen as SPLIT x SPLIT mean colours
MOMENTUM = 0.9


class Facts(NamedTuple):
    """What the file says about itself, as far as this program needs it."""

    image_size: tuple[int, int]
    strides: tuple[int, ...]
    reg_max: int
    classes: int


def open_graph(path: str) -> tuple[onnxruntime.InferenceSession, Facts]:
    """The graph, and its facts.

    Raises:
        ValueError: for a file that cannot be read, or is not the gradient graph of detection at a fixed image size.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"no file {path}; write it with: python -m compiled_loss export loss --gradients --out {path} ..."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # those of onnxruntime have no base of their own
        raise ValueError(
            f"{path}: no file that onnxruntime can read: {''.join(str(error).splitlines()[:1])}"
        ) from error
    text = session.get_modelmeta().custom_metadata_map
    kind = tuple(json.loads(text.get(name, "null")) for name in ("interface_version", "graph", "task"))
    if kind != (1, "gradients", "detect"):
        raise ValueError(f"expected interface version 1, graph gradients, task detect, got {kind}")
    try:
        constants = json.loads(text["constants"])
        size, arguments = constants["setting"]["image_size"], constants["arguments"]
        if size is None or arguments["num_classes"] > len(COLOURS):
            raise ValueError(f"expected a fixed image size and at most {len(COLOURS)} classes")
        return session, Facts(tuple(size), tuple(arguments["strides"]), arguments["reg_max"], arguments["num_classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the constants of a loss, got {type(error).__name__}: {error}") from error


def render(rng: np.random.Generator, count: int, facts: Facts) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Pictures `[B, H, W, 3]` of one to three coloured rectangles, and their rows."""
    height, width = facts.image_size
    images = rng.uniform(0.4, 0.6, (count, height, width, 3))
    batch_idx, labels, boxes = [], [], []
    for image in range(count):
        for _ in range(rng.integers(1, 4)):
            w, h = rng.integers(12, width // 2), rng.integers(12, height // 2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            label = rng.integers(facts.classes)
            images[image, y : y + h, x : x + w] = COLOURS[label]
            batch_idx.append(image)
            labels.append(label)
            boxes.append([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height])
    rows = {"batch_idx": np.array(batch_idx), "cls": np.array(labels), "boxes": np.array(boxes, np.float32)}
    return images.astype(np.float32), {
        name: x.astype(np.float32 if x.dtype.kind == "f" else np.int64) for name, x in rows.items()
    }


def see(images: np.ndarray, facts: Facts) -> list[np.ndarray]:
    """Of each level `[B, cells, F]` features: the colours in and about every cell, and a one."""
    found = []
    for stride in facts.strides:
        block = stride // SPLIT
        batch, height, width, colours = images.shape
        small = images.reshape(batch, height // block, block, width // block, block, colours).mean((2, 4)) - 0.5
        rows, columns = height // stride, width // stride
        padded = np.pad(small, ((0, 0), (SPLIT, SPLIT), (SPLIT, SPLIT), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (3 * SPLIT, 3 * SPLIT), axis=(1, 2))
        patches = views[:, ::SPLIT, ::SPLIT].reshape(batch, rows * columns, -1)
        found.append(np.concatenate([patches, np.ones_like(patches[..., :1])], -1).astype(np.float32))
    return found


def first_weights(features: list[np.ndarray], facts: Facts) -> list[np.ndarray]:
    """Of each level `[F, 4R + C]` zeros, the bias of the class scores low."""
    channels = 4 * facts.reg_max + facts.classes
    weights = [np.zeros((x.shape[-1], channels), np.float32) for x in features]
    for x in weights:
        x[-1, 4 * facts.reg_max :] = -4.0
    return weights


def train(session: onnxruntime.InferenceSession, facts: Facts, steps: int, rate: float, seed: int = 0) -> list[float]:
    """The loss of every step."""
    images, rows = render(np.random.default_rng(seed), 8, facts)
    features = see(images, facts)
    weights = first_weights(features, facts)
    speed = [np.zeros_like(x) for x in weights]
    counts = np.cumsum([x.shape[1] for x in features])[:-1]
    losses = []
    for _ in range(steps):
        # [B, 4R + C, A]: the channels first, the levels one after the other.
        raw = np.concatenate([x @ w for x, w in zip(features, weights, strict=True)], 1).transpose(0, 2, 1)
        boxes, scores = np.split(raw, [4 * facts.reg_max], axis=1)
        inputs = {"pred_boxes": np.ascontiguousarray(boxes), "pred_scores": np.ascontiguousarray(scores), **rows}
        wanted = ["loss", "grad_pred_boxes", "grad_pred_scores"]
        loss, grad_boxes, grad_scores = map(np.asarray, session.run(wanted, inputs))
        losses.append(float(loss))
        gradient = np.concatenate([grad_boxes, grad_scores], 1).transpose(0, 2, 1)
        for x, w, v, g in zip(features, weights, speed, np.split(gradient, counts, axis=1), strict=True):
            v *= MOMENTUM
            v += np.einsum("baf,bac->fc", x, g)
            w -= rate * v
    return losses


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where the loss has halved, 1 where it has not, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(
        prog="python -m export.consumers.python.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("graph", nargs="?", default="loss.onnx", help="the gradient graph (loss.onnx)")
    parser.add_argument("--steps", type=int, default=60, help="steps of gradient descent (60)")
    parser.add_argument("--rate", type=float, default=0.001, help="learning rate (0.001)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures (0)")
    given = parser.parse_args(arguments)
    if given.steps < 2:
        parser.error(f"--steps: expected at least 2, got {given.steps}")
    if given.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {given.seed}")
    try:
        session, facts = open_graph(given.graph)
    except ValueError as error:
        parser.error(str(error))
    losses = train(session, facts, given.steps, given.rate, given.seed)
    for step in sorted({*range(0, given.steps, 10), given.steps - 1}):
        print(f"step {step:4}  loss {losses[step]:9.3f}")
    halved = losses[-1] < losses[0] / 2
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}: " + ("it has halved" if halved else "it has not halved"))
    print(f"torch imported: {'torch' in sys.modules}")
    return 0 if halved else 1


if __name__ == "__main__":
    sys.exit(main())
