"""Store small batches with the oracle's answers, for tests that run without it.

    python -m tests.golden.make_golden [detect pose ...]

from the repository's root, in an environment with `ultralytics==8.4.190` and torch 2.13. It writes `detect.npz` and
the others, or those named, into `compiled_loss/exporting/corpus`, where the conformance corpus is made of them. Every
number follows from the seeds below, targets and predictions are random, and no weights are involved; a normalising flow
is replaced by a formula. The predictions are rounded to half precision, so that they store small and exactly.

A case is stored only if the float64 reference, with the oracle's order of ties, has the same positives and agrees to
1e-5; so a stored number is a fact on which two implementations agree. `ties` says whether the reference needs that
order: without the flag every implementation of the definition must reproduce the case. Some cases without it (`sides`)
have anchors within one float32 step of a box side, which only the right order of float32 operations decides.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics  # pyright: ignore[reportMissingImports]

from tests.golden.cases import FOLDER, MAPS
from tests.golden.compare import TOLERANCE, errors, reference
from tests.golden.oracle import Head, Oracle, Outcome, build_model
from tests.reference.assigner import candidates, pixel_boxes
from tests.reference.batches import Batch, Raw, make_batch, make_predictions
from tests.reference.end_to_end import Pair, branches_of
from tests.reference.flow import LearntDensity
from tests.reference.losses import anchor_grid
from tests.reference.mask_batches import add_mask_predictions, add_masks

STRIDES = (8, 16, 32)
SMALL, WIDE, SQUARE = (64, 64), (64, 96), (96, 96)
DETECT = Head("yolo11n.yaml", 3)
POSE = Head("yolo11n-pose.yaml", 1, kpt_shape=(17, 3))
FEW = Head("yolo11n-pose.yaml", 2, kpt_shape=(5, 2))
FLAGGED = Head("yolov8n-pose.yaml", 2, kpt_shape=(5, 3))
ORIENTED = Head("yolo11n-obb.yaml", 3)
SEGMENT = Head("yolo11n-seg.yaml", 3)
LIKELY = Head("yolo26n-pose.yaml", 2, 1, (5, 3))
# name: head, layout, kind of predictions, rows per image, image size, first seed, whether ties may matter
CASES = {
    "detect": {
        "random": (DETECT, "mixed", "random", (4, 2), SMALL, 100, False),
        "truth": (DETECT, "spread", "truth", (3, 5), WIDE, 200, False),
        "mixed": (Head("yolov8n.yaml", 3), "mixed", "mixed", (2, 0, 7), SMALL, 300, False),
        "crowded": (DETECT, "crowded", "mixed", (25, 1), SMALL, 400, False),
        "tiny": (DETECT, "tiny", "mixed", (12, 3), WIDE, 500, False),
        "slender": (DETECT, "slender", "mixed", (5, 4), SQUARE, 600, False),
        "sides": (DETECT, "on_grid", "mixed", (6, 6), SQUARE, 700, False),
        "sides_again": (DETECT, "on_grid", "truth", (9,), SQUARE, 800, False),
        "empty": (DETECT, "mixed", "random", (0, 0), SMALL, 900, False),
        "weighted": (
            Head("yolo11n.yaml", 3, class_weights=(1.0, 2.5, 0.5)),
            "mixed",
            "mixed",
            (4, 3),
            SMALL,
            1000,
            False,
        ),
        "many_classes": (Head("yolo11n.yaml", 20), "mixed", "mixed", (6,), SMALL, 1100, False),
        "l1": (Head("yolo11n.yaml", 3, reg_max=1), "mixed", "mixed", (4, 0, 9), WIDE, 1200, False),
        "l1_empty": (Head("yolo11n.yaml", 3, reg_max=1), "mixed", "mixed", (0, 0), SMALL, 1300, False),
        "full": (DETECT, "mixed", "mixed", (300,), SMALL, 1400, False),
        "ties": (DETECT, "tiny", "random", (6, 6), SMALL, 1500, True),
    },
    "pose": {
        "random": (POSE, "mixed", "random", (4, 2), SMALL, 100, False),
        "truth": (POSE, "spread", "truth", (3, 4), WIDE, 200, False),
        "mixed": (Head("yolov8n-pose.yaml", 3, kpt_shape=(17, 3)), "mixed", "mixed", (2, 0, 5), SMALL, 300, False),
        "crowded": (POSE, "crowded", "mixed", (15,), SMALL, 400, False),
        "empty": (FLAGGED, "mixed", "random", (0, 0), SMALL, 500, False),
        "no_flags": (FEW, "mixed", "mixed", (4, 5), SMALL, 600, False),
        "five_points": (FLAGGED, "mixed", "mixed", (6, 3), WIDE, 700, False),
        "sides": (FLAGGED, "on_grid", "mixed", (8,), SQUARE, 800, False),
        "l1": (Head("yolo11n-pose.yaml", 2, reg_max=1, kpt_shape=(5, 3)), "mixed", "mixed", (5, 1), SMALL, 900, False),
        "ties": (FLAGGED, "tiny", "random", (8, 2), SMALL, 1000, True),
    },
    "oriented": {
        "random": (ORIENTED, "mixed", "random", (4, 2), SMALL, 100, False),
        "truth": (ORIENTED, "spread", "truth", (3, 4), WIDE, 200, False),
        "mixed": (Head("yolov8n-obb.yaml", 3), "mixed", "mixed", (2, 0, 6), SMALL, 300, False),
        "tiny": (ORIENTED, "tiny", "mixed", (9, 2), SMALL, 400, False),
        "slender": (ORIENTED, "slender", "mixed", (5,), WIDE, 500, False),
        "sides": (ORIENTED, "on_grid", "mixed", (6, 6), WIDE, 600, False),
        "empty": (ORIENTED, "mixed", "random", (0, 0), SMALL, 700, False),
        "l1": (ORIENTED._replace(reg_max=1), "mixed", "mixed", (5, 0, 4), SMALL, 800, False),
    },
    "segment": {
        "random": (SEGMENT, "mixed", "random", (4, 2), SMALL, 100, False),
        "truth": (SEGMENT, "spread", "truth", (3, 4), WIDE, 200, False),
        "stacked": (SEGMENT._replace(stacked=True), "mixed", "mixed", (2, 0, 5), SMALL, 300, False),
        "crowded": (Head("yolov8n-seg.yaml", 2), "crowded", "mixed", (9,), SMALL, 400, False),
        "sides": (SEGMENT, "on_grid", "mixed", (6,), SQUARE, 500, False),
        "finer": (SEGMENT._replace(mask_scale=2), "mixed", "mixed", (4, 1), SMALL, 600, False),
        "empty": (SEGMENT, "mixed", "random", (0, 0), SMALL, 700, False),
        "l1": (SEGMENT._replace(reg_max=1), "mixed", "mixed", (5, 2), SMALL, 800, False),
    },
    "end_to_end": {
        "bins": (Head("yolov10n.yaml", 2), "mixed", "mixed", (3, 0, 5), SMALL, 100, False),
        "detect": (Head("yolo26n.yaml", 3, reg_max=1), "mixed", "mixed", (4, 0, 6), SMALL, 200, False),
        "crowded": (Head("yolo26n.yaml", 3, reg_max=1), "crowded", "truth", (20,), WIDE, 300, False),
        "late": (Head("yolo26n.yaml", 2, reg_max=1), "mixed", "mixed", (5, 3), SMALL, 400, False),
        "empty": (Head("yolo26n.yaml", 2, reg_max=1), "mixed", "random", (0, 0), SMALL, 500, False),
        "oriented": (Head("yolo26n-obb.yaml", 3, reg_max=1), "mixed", "mixed", (4, 3), SMALL, 600, False),
        "masks": (Head("yolo26n-seg.yaml", 2, reg_max=1), "mixed", "mixed", (3, 0, 4), SMALL, 700, False),
        "masks_crowded": (Head("yolo26n-seg.yaml", 2, reg_max=1), "crowded", "truth", (8,), SMALL, 800, False),
        "masks_stacked": (
            Head("yolo26n-seg.yaml", 2, reg_max=1, stacked=True, mask_scale=2),
            "mixed",
            "mixed",
            (4, 1),
            SMALL,
            900,
            False,
        ),
    },
    "residual_pose": {
        "mixed": (Head("yolo26n-pose.yaml", 1, 1, (17, 3)), "mixed", "mixed", (2, 0, 3), SMALL, 100, False),
        "levels": (LIKELY, "spread", "truth", (3, 3), (128, 128), 200, False),
        "crowded": (LIKELY, "crowded", "mixed", (9,), SMALL, 300, False),
        "no_flags": (Head("yolo26n-pose.yaml", 2, 1, (5, 2)), "mixed", "mixed", (4, 2), SMALL, 400, False),
        "empty": (LIKELY, "mixed", "random", (0, 0), SMALL, 500, False),
    },
}
UPDATES = {"late": 40}  # epochs done before the batch
FEWER_VALUES = ("no_flags",)  # cases whose keypoints come without visibility flags


def draw(
    name: str, seed: int, head: Head, layout: str, kind: str, counts: tuple[int, ...], size: tuple[int, int]
) -> tuple[Batch, Raw | Pair]:
    """The batch of a seed and its predictions in half precision."""
    batch = make_batch(
        seed,
        layout=layout,
        counts=counts,
        size=size,
        num_classes=head.num_classes,
        num_keypoints=head.kpt_shape[0] if head.kpt_shape else 0,
        keypoint_values=2 if name in FEWER_VALUES else 3,
        oriented=head.oriented,
    )
    if head.masks:
        options = {"num_classes": head.num_classes, "scale": head.mask_scale, "stacked": head.stacked}
        batch = add_masks(seed, batch, stray=seed % 2 == 0, **options)
    if head.end_to_end:
        return batch, Pair(maps(seed, batch, head, kind), maps(seed + 1_000_000, batch, head, kind))
    return batch, maps(seed, batch, head, kind)


def maps(seed: int, batch: Batch, head: Head, kind: str) -> Raw:
    """What one branch says, in half precision."""
    keypoints, dims = head.kpt_shape or (0, 3)
    raw = make_predictions(
        seed,
        batch,
        kind=kind,
        num_classes=head.num_classes,
        reg_max=head.reg_max,
        num_keypoints=keypoints,
        keypoint_dims=dims,
        keypoint_sigmas=bool(keypoints) and head.version26,
    )
    if head.masks:
        raw = add_mask_predictions(seed, batch, raw, num_classes=head.num_classes, nm=4, semantic=head.version26)
    return raw._replace(**{name: x.half().float() for name in MAPS if (x := getattr(raw, name)) is not None})


def model_of(head: Head) -> Any:
    """The model; a flow is replaced by one that the tests can compute."""
    model = build_model(head)
    if hasattr(model.model[-1], "flow_model"):
        model.model[-1].flow_model = LearntDensity()
    return model


def on_a_side(batch: Batch, raw: Raw) -> bool:
    """Whether a box that is used as it is has other candidates than one computed over its centre and half sides."""
    points, stride = anchor_grid(raw.grid_sizes, STRIDES)
    points = points * stride[:, None]
    boxes = pixel_boxes(batch.boxes, *batch.size)
    plain = [((points > box[:2]) & (points < box[2:])).all(1) for box in boxes if (box[2:] - box[:2]).min() >= 16]
    exact = [candidates(points, box, 16) for box in boxes if (box[2:] - box[:2]).min() >= 16]
    return any((a != b).any() for a, b in zip(plain, exact, strict=True))


def search(name: str, oracle: Oracle, spec: tuple) -> tuple[int, Batch, Raw | Pair, Outcome]:
    """The first seed whose batch has what the case is about, and on which reference and oracle agree."""
    *shape, first, ties = spec
    for seed in range(first, first + 100):
        batch, raw = draw(name, seed, oracle.head, *shape)
        if name.startswith("sides") and isinstance(raw, Raw) and not oracle.head.oriented and not on_a_side(batch, raw):
            continue
        theirs = oracle(batch, raw)
        dense, lowest = (reference(batch, raw, oracle, oracle_ties=x) for x in (True, False))
        agree = max(errors(theirs, dense, batch.batch_size)) <= TOLERANCE
        agree &= {p[:3] for p in dense.positives} == theirs.positives
        if agree and ({p[:3] for p in lowest.positives} != theirs.positives) == ties:
            return seed, batch, raw, theirs
    raise SystemExit(f"{name}: no seed from {first} to {first + 99} fits")


def main() -> None:
    versions = f"ultralytics {ultralytics.__version__}, torch {torch.__version__}"
    note = f"{versions}, float32 on the CPU, written by make_golden.py"
    for family in sys.argv[1:] or CASES:
        arrays: dict[str, np.ndarray] = {"provenance": np.array(note)}
        for name, (head, *spec) in CASES[family].items():
            oracle = Oracle(model_of(head), head)
            for _ in range(UPDATES.get(name, 0)):
                oracle.criterion.update()
            seed, batch, raw, theirs = search(name, oracle, tuple(spec))
            arrays |= {f"{name}/{key}": value for key, value in pack(seed, oracle, batch, raw, theirs).items()}
            arrays[f"{name}/ties"] = np.array(spec[-1])
            print(f"{family}/{name}: seed {seed}, {len(theirs.positives)} positives", file=sys.stderr)
        np.savez_compressed(FOLDER / f"{family}.npz", **arrays)  # type: ignore[arg-type]
        print(f"{family}.npz: {Path(FOLDER / f'{family}.npz').stat().st_size / 1e3:.0f} kB", file=sys.stderr)


def pack(seed: int, oracle: Oracle, batch: Batch, raw: Raw | Pair, theirs: Outcome) -> dict[str, np.ndarray]:
    """The arrays of one case; `cases.py` reads them."""
    head, first = oracle.head, next(x for _, x in branches_of(raw))
    arrays = {
        "seed": np.array(seed),
        "size": np.array(batch.size),
        "batch_size": np.array(batch.batch_size),
        "reg_max": np.array(head.reg_max),
        "mask_overlap": np.array(head.masks and head.version26),
        "grid_sizes": np.array(first.grid_sizes),
        "batch_idx": batch.batch_idx.numpy(),
        "labels": batch.labels.numpy(),
        "target_boxes": batch.boxes.numpy(),
        "names": np.array(list(theirs.items)),
        "items": np.array([x.item() for x in theirs.items.values()], np.float32),
        "vector": theirs.vector.numpy(),
        "positives": np.array(sorted(theirs.positives), np.int64).reshape(-1, 3),
    }
    for prefix, x in branches_of(raw):
        given = {name: getattr(x, name) for name in MAPS}
        arrays |= {prefix + name: x.numpy().astype(np.float16) for name, x in given.items() if x is not None}
    if batch.keypoints is not None:
        arrays |= {"target_keypoints": batch.keypoints.numpy(), "kpt_shape": np.array(head.kpt_shape)}
    if batch.masks is not None and batch.class_map is not None:
        arrays |= {"masks": batch.masks.numpy(), "class_map": batch.class_map.numpy().astype(np.int16)}
    if head.class_weights:
        arrays["class_weights"] = np.array(head.class_weights, np.float32)
    if head.end_to_end:
        arrays["shares"] = np.array(oracle.shares)
    return arrays | {f"gradient_{name}": x.numpy() for name, x in theirs.gradients.items()}


if __name__ == "__main__":
    main()
