"""The end of a run: average precision, what was compiled, times, pictures, and a page that joins them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from demo import evaluate, page, plots, timing
from demo.batches import stream
from demo.coco import AveragePrecision
from demo.curves import curves
from demo.detections import Detections
from demo.labels import image_tensor
from demo.session import Pictures, Run, one_branch
from demo.tasks import TASKS

SHOWN_PICTURES = 6


def measure(this: Run, pictures: Pictures) -> tuple[AveragePrecision, list[Detections]]:
    """Average precision of the averaged weights on labelled pictures, and what they find."""
    model, batch = this.averaged(), this.settings.batch_size
    return evaluate.evaluate(model, this.step.criterion, this.dataset.info, pictures, this.device, batch)


def report(this: Run, compiles: dict[str, int], console: Console) -> None:
    """Evaluate, time, draw, print and keep the results."""
    settings, device = this.settings, this.device
    say = partial(console.print, highlight=False, soft_wrap=True)
    precision, found = measure(this, this.held_out)
    results: dict[str, Any] = {"steps": this.steps, **precision._asdict(), "ap_by_step": this.progress.precision}
    # Kept at once: nothing that comes after may lose them.
    keep(this.out, results)
    metric = f"{TASKS[settings.task].metric} on {len(found)} held-out pictures"
    if math.isnan(precision.ap):
        say(f"{metric}: there is none, no object is labelled there")
    else:
        say(f"{metric}: [bold]{precision.ap:.3f}[/] (at 0.50: {precision.ap50:.3f}, at 0.75: {precision.ap75:.3f})")
    if len(precision.ap_by_class) > 1:
        say("by class: " + ", ".join(f"{escape(name)} {ap:.3f}" for name, ap in precision.ap_by_class.items()))
    overflow = results["overflow"] = this.progress.overflow
    if overflow:
        say(f"the plan was too small {overflow} times: rows lacked candidates, or positives mask pixels")
    # None where a resumed run had no step left.
    if compiles["graphs"]:
        results |= compiles
        say(
            f"graphs compiled: {compiles['graphs']}, graph breaks: {compiles['graph_breaks']}, "
            f"recompiles after warm-up: {compiles['recompiles']}"
        )
    if settings.compile and settings.timing_rounds > 0:
        with console.status("timing the step with the loss inside and outside the graph ..."):
            some = list(stream(this.batches, 0, 4, 0, device))
            inside, outside = timing.compare(this.step, some, settings.timing_rounds)
        results |= {"step_ms_loss_compiled": 1e3 * inside, "step_ms_loss_eager": 1e3 * outside}
        say(
            f"step with the loss compiled inside: {1e3 * inside:.0f} ms; with the loss eager: {1e3 * outside:.0f} ms "
            f"({outside / inside:.2f}x)"
        )
    keep(this.out, results)
    pictures = draw(this, found, precision.ap)
    about = f"{settings.task} on {this.dataset.info.name}: {this.steps} steps of {settings.batch_size} pictures"
    about += f" out of {len(this.dataset)}, measured on {len(found)} that were held out"
    metric = TASKS[settings.task].metric
    page.write(this.out / "index.html", this.out.name, about, metric, results, settings.kept(), pictures)
    say(f"pictures and results: {escape(str(this.out / 'index.html'))}")


def keep(out: Path, results: dict[str, Any]) -> None:
    # JSON has no NaN.
    known = {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in results.items()}
    unfinished = out / "results.partial"
    unfinished.write_text(json.dumps(known, indent=2) + "\n")
    os.replace(unfinished, out / "results.json")


def draw(this: Run, found: Sequence[Detections], final: float) -> list[tuple[str, str]]:
    """Write the pictures; file name and caption of each."""
    info, progress = this.dataset.info, this.progress
    captions = {
        "curves.png": "Average precision on held-out pictures, and the terms of the loss, as training went on.",
        "predictions.png": "Held-out pictures as they are labelled, and below what was found in them.",
        "assignment.png": "The anchors that the loss gives each object of a held-out picture, by level of the grid.",
    }
    curves_path, predictions_path, assignment_path = (this.out / name for name in captions)
    metric = TASKS[this.settings.task].metric
    curves(curves_path, progress.names, progress.losses, metric, progress.precision, final)
    filled = [i for i, (_, labels) in enumerate(this.held_out) if len(labels.boxes) > 0][:SHOWN_PICTURES]
    filled = filled or list(range(min(SHOWN_PICTURES, len(found))))
    plots.predictions(predictions_path, info, [this.held_out[i] for i in filled], [found[i] for i in filled])
    image, labels = max(this.held_out, key=lambda pair: (len(pair[1].boxes) <= 6, len(pair[1].boxes)))
    with torch.no_grad():
        (predictions,) = this.averaged().eval()(image_tensor(image)[None].to(this.device))
        targets = labels.targets(this.dataset.size).to(this.device)
        assigned = one_branch(this.step.criterion).assign(predictions, targets)
    plots.assignment(assignment_path, image, labels, assigned)
    return list(captions.items())
