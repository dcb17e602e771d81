"""Several hundred batches through a model's own criterion and through ours, live.

    python -m tests.golden.parity [--batches 60] [--labels FILE.json ...] [--compile] [--heads detect pose ...]

from the repository's root, in an environment that has `ultralytics==8.4.190` besides torch. `--labels` adds rows of
COCO annotation files to the random batches, as many again for each file. Each head's own forward, in training and in
evaluation, makes two batches more, and heads that ours does not serve must be refused.

One line per head tells how many batches came out how (see `judge` in compare.py), how many positives differ, how many
of those the references do not explain, and the largest relative item and gradient errors: of the equal batches against
the oracle, of the others against the reference. Exits with 1 if a batch failed.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch

from compiled_loss.integrations.ultralytics import Criterion, compiled_criterion
from tests.golden.compare import Verdict, judge, ours
from tests.golden.draw import SIZES, draw_batches, forward_batches
from tests.golden.oracle import Head, Oracle, build_model, build_other, preds_and_batch
from tests.reference.batches import Batch, Raw
from tests.reference.end_to_end import Pair

HEADS = {
    "detect": Head("yolo11n.yaml", 80),
    "detect-v8": Head("yolov8n.yaml", 3),
    "detect-weighted": Head("yolo11n.yaml", 3, class_weights=(1.0, 2.5, 0.5)),
    "detect-l1": Head("yolo11n.yaml", 3, reg_max=1),
    "pose": Head("yolo11n-pose.yaml", 1, kpt_shape=(17, 3)),
    "pose-v8": Head("yolov8n-pose.yaml", 3, kpt_shape=(17, 3)),
    "pose-5x2": Head("yolo11n-pose.yaml", 2, kpt_shape=(5, 2)),
    "pose-5x3": Head("yolo11n-pose.yaml", 2, kpt_shape=(5, 3)),
    "pose-l1": Head("yolo11n-pose.yaml", 2, reg_max=1, kpt_shape=(5, 3)),
    "obb": Head("yolo11n-obb.yaml", 3),
    "obb-v8": Head("yolov8n-obb.yaml", 15),
    "obb-l1": Head("yolo11n-obb.yaml", 2, reg_max=1),
    "obb-26": Head("yolo26n-obb.yaml", 3, reg_max=1),
    "segment": Head("yolo11n-seg.yaml", 3),
    "segment-stacked": Head("yolo11n-seg.yaml", 3, stacked=True),
    "segment-finer": Head("yolov8n-seg.yaml", 2, mask_scale=2),
    "segment-26": Head("yolo26n-seg.yaml", 3, reg_max=1),
    "segment-26-stacked": Head("yolo26n-seg.yaml", 3, reg_max=1, stacked=True),
    "segment-26-finer": Head("yolo26n-seg.yaml", 2, reg_max=1, mask_scale=2),
    "detect-v10": Head("yolov10n.yaml", 3),
    "detect-26": Head("yolo26n.yaml", 3, reg_max=1),
    "pose-26": Head("yolo26n-pose.yaml", 1, reg_max=1, kpt_shape=(17, 3)),
    "pose-26-5x2": Head("yolo26n-pose.yaml", 2, reg_max=1, kpt_shape=(5, 2)),
    "pose-26-5x3": Head("yolo26n-pose.yaml", 2, reg_max=1, kpt_shape=(5, 3)),
    # Classes by embedding, as many as the configuration names.
    "world": Head("yolov8s-worldv2.yaml", 80),
    "yoloe": Head("yoloe-11s.yaml", 80),
    "yoloe-26": Head("yoloe-26n.yaml", 80, reg_max=1),
    "yoloe-segment": Head("yoloe-11s-seg.yaml", 80),
}
OTHERS = ("yolo11n-cls.yaml", "yolo26n-sem.yaml", "yolo26n-depth.yaml")


def same_interface(oracle: Oracle, criterion: Criterion, batch: Batch, raw: Raw | Pair) -> bool:
    """Whether both take evaluation's tuple for what it holds, and return the same names, types and shapes."""
    preds, rows = preds_and_batch(batch, raw)
    answers = [c(form, rows) for c in (oracle.criterion, criterion) for form in (preds, (torch.zeros(1), preds))]
    forms = [[(name, type(x), x.shape, x.dtype) for name, x in {"": v, **items}.items()] for v, items in answers]
    equal = all(torch.allclose(a[0], b[0], rtol=1e-6) for a, b in (answers[:2], answers[2:]))
    return equal and all(form == forms[0] for form in forms)


def accepted(config: str) -> bool:
    """Whether ours takes a model whose criterion it does not implement."""
    try:
        compiled_criterion(build_other(config))
    except ValueError:
        return False
    return True


def report(head: str, verdicts: list[Verdict]) -> int:
    """Print one line of the table; how many batches failed."""
    count = [sum(v.name == name for v in verdicts) for name in ("equal", "ties", "float32", "FAILED")]
    differing, unexplained = sum(v.differing for v in verdicts), sum(v.unexplained for v in verdicts)
    groups = [[v for v in verdicts if (v.name == "equal") is equal] for equal in (True, False)]
    worst = [max((v[i] for v in group), default=0.0) for group in groups for i in (1, 2)]
    numbers = f"{len(verdicts):8}{count[0]:7}{count[1]:6}{count[2]:9}{count[3]:8}{differing:8}{unexplained:12}"
    print(f"{head:16}{numbers}", *(f"{error:9.1e}" for error in worst), flush=True)
    return count[3]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60, help="random batches per head")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--labels", type=Path, nargs="*", default=[], help="COCO annotation files for real rows")
    parser.add_argument("--heads", nargs="*", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--reference", action="store_true", help="compare the float64 loops instead of ours")
    parser.add_argument("--compile", action="store_true", help="run ours compiled; one size, as each one compiles")
    options = parser.parse_args()
    files = [json.loads(path.read_text()) for path in options.labels]
    sizes = ((96, 128),) if options.compile else SIZES
    failed = 0
    print(f"{'head':16} batches  equal  ties  float32  FAILED  differ unexplained  errors: equal; others")
    for name in options.heads:
        model = build_model(HEADS[name])
        oracle = Oracle(model, HEADS[name])
        criterion = None if options.reference else compiled_criterion(model, compile=options.compile)
        drawn = draw_batches(options.first, options.batches, HEADS[name], files, sizes)
        verdicts = []
        for label, batch, raw in itertools.chain(forward_batches(model, HEADS[name]), drawn):
            mine = None if criterion is None else ours(criterion, batch, raw)
            verdict = judge(batch, raw, oracle, oracle(batch, raw), mine)
            if label.startswith("forward") and criterion is not None:
                same = same_interface(oracle, criterion, batch, raw)
                verdict = verdict if same else verdict._replace(name="FAILED")
            if verdict.name == "FAILED":
                print(f"  {label}: {verdict}")
            verdicts.append(verdict)
        failed += report(name, verdicts)
    for config in OTHERS:
        if accepted(config):
            failed += 1
            print(f"{config}: FAILED, its criterion was not refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
