"""The audit of a model's own criterion beside the audit of ours, one row of a table for each task.

    python -m tests.golden.audited [--heads detect pose obb segment] [--report]

from the repository's root, in an environment that has `ultralytics==8.4.190` besides torch. Five batches of eight
images with 50, 20, 3, 1 and 0 rows. The lines of the installed package count as the function's own. `--report` prints
the whole report of the model's criterion.
"""

import argparse
from collections.abc import Callable
from typing import Any

from torch import Tensor

from compiled_loss import Targets, pad_rows
from compiled_loss.audit import AuditReport, audit
from compiled_loss.integrations.ultralytics import compiled_criterion
from tests.golden.draw import predictions_for
from tests.golden.oracle import build_model, preds_and_batch
from tests.golden.parity import HEADS
from tests.reference.batches import make_batch

SIZE, IMAGES, ROWS = (320, 320), 8, (50, 20, 3, 1, 0)
OPTIONS: dict[str, Any] = {"backend": "aot_eager", "skip": ["numbers"]}


def row(name: str, report: AuditReport) -> str:
    """One line of the Markdown table."""
    breaks = [x for x in report.findings if x.kind == "graph-break"]
    lines = [len({x.place for x in report.findings if x.kind in kinds}) for kinds in (("sync",), ("dynamic-size",))]
    first = next(x.note for x in report.stages if x.name == "breaks").partition(" breaks in the first")[0]
    numbers = (first or "0", len({x.place for x in breaks}), *lines, len(report.graphs))
    return f"| {name} | {' | '.join(map(str, numbers))} |"


def batches_of(head_name: str) -> list[tuple[Any, Any]]:
    """The criterion's arguments for every number of rows, sorted by image."""
    head = HEADS[head_name]
    made = []
    for seed, rows in enumerate(ROWS):
        counts = tuple(rows // IMAGES + (i < rows % IMAGES) for i in range(IMAGES))
        keypoints = head.kpt_shape[0] if head.kpt_shape else 0
        batch = make_batch(
            seed,
            layout="mixed",
            counts=counts,
            size=SIZE,
            num_classes=head.num_classes,
            num_keypoints=keypoints,
            oriented=head.oriented,
        )
        made.append(preds_and_batch(*predictions_for(seed, batch, head)))
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="*", default=["detect", "pose", "obb", "segment"], choices=list(HEADS))
    parser.add_argument("--report", action="store_true", help="print the whole report too")
    options = parser.parse_args()
    print("| loss | graph breaks in one call | lines that break | lines that wait | lines of unknown size | graphs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.heads:
        model, batches = build_model(HEADS[name]), batches_of(name)
        criterion = model.init_criterion()
        theirs: Callable[..., Tensor] = lambda preds, rows, criterion=criterion: criterion(preds, rows)[0]  # noqa: E731
        report = audit(theirs, batches, packages=["ultralytics"], **OPTIONS)
        print(row(f"{name}, the model's own", report), flush=True)
        if options.report:
            print(report)
        ours = compiled_criterion(model)
        cases: list[tuple[Any, Targets]] = []
        for preds, rows in batches:
            targets = ours.targets(rows)
            cases.append((ours.predictions(preds)[0], pad_rows(targets).mark_dynamic()))
        print(row(f"{name}, ours", audit(ours.loss, cases, warmup=1, **OPTIONS)), flush=True)


if __name__ == "__main__":
    main()
