"""A whole run: data, model, compiled training, checkpoints, and the report at its end."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from compiled_loss import DenseLoss, EndToEndLoss, Scheduled, TargetPlan
from demo import checkpoint, evaluate, plots, timing
from demo.batches import Batches, plan_run, stream
from demo.console import Display
from demo.detections import Detections
from demo.engine import WARM_UP_STEPS, CompileLog, Interrupt, Progress, TrainingStep, learning_rate, train
from demo.labels import DataError, Dataset, Labels, image_tensor
from demo.model import STRIDES, Detector
from demo.optimizer import FlatAdamW
from demo.parts import SWITCH, options_of
from demo.settings import Settings
from demo.splits import training_and_held_out
from demo.tasks import TASKS, make_loss, make_model

RENDERED_TRAIN, RENDERED_HELD_OUT, RENDERED_STEPS = 2048, 200, 700
FOLDER_EPOCHS = 40
INTERRUPTED = 130

Pictures = list[tuple[np.ndarray, Labels]]


@dataclass
class Run:
    """What a run is made of."""

    settings: Settings
    dataset: Dataset
    held_out: Pictures
    plan: TargetPlan
    step: TrainingStep
    progress: Progress
    steps: int
    out: Path

    @property
    def batches(self) -> Batches:
        return Batches(self.dataset, self.settings.batch_size, self.plan, self.settings.seed)

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps * self.settings.batch_size / len(self.dataset))

    @property
    def device(self) -> torch.device:
        return self.step.learning_rate.device

    def schedule(self, step: int) -> float:
        """What changes in the course of a run: the branches' shares, a schedule's assigner, and the learning rate."""
        assigner = one_branch(self.step.criterion).assigner
        if isinstance(assigner, Scheduled):
            assigner.set_second(step >= SWITCH * self.steps)
        if isinstance(self.step.criterion, EndToEndLoss):
            self.step.criterion.set_progress(step * self.settings.batch_size // len(self.dataset), self.epochs)
        return learning_rate(step, self.steps, self.settings.lr)

    def save(self) -> Path:
        path = self.out / "checkpoint.pt"
        checkpoint.save(path, self.settings.kept(), self.step, self.progress)
        return path


def run(settings: Settings, console: Console) -> int:
    """Train and report; the exit status: 0, or 130 after Ctrl-C."""
    start = time.perf_counter()
    log = CompileLog()
    try:
        this = prepare(settings, console)
        complete = train_to_the_end(this, log, console)
        try:
            if complete:
                report(this, log.summary(), console)
        except KeyboardInterrupt:
            complete = False
    finally:
        log.close()
    if not complete:
        console.print(f"\nInterrupted after step {this.progress.steps} of {this.steps}; nothing is lost. Go on with")
        path = escape(str(this.out / "checkpoint.pt"))
        console.print(f"  python examples/train.py --resume {path}", soft_wrap=True)
        return INTERRUPTED
    console.print(f"[dim]{time.perf_counter() - start:.0f} s in all[/]")
    return 0


def prepare(settings: Settings, console: Console) -> Run:
    """Everything up to the first step."""
    torch.manual_seed(settings.seed)
    device = _device(settings.device)
    dataset, held_out = _data(settings)
    if settings.batch_size * (dataset.size // max(STRIDES)) ** 2 < 2:
        raise DataError("--batch-size 1: at --image-size 32 batch norm has one value to take the mean of; raise either")
    for note in (*dataset.notes, *held_out.notes):
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    pictures = [held_out.sample(i) for i in range(len(held_out))]
    steps = _steps(settings, len(dataset))
    epochs = math.ceil(steps * settings.batch_size / len(dataset))
    step = make_step(settings, dataset, device)
    plan = plan_run(dataset, settings.batch_size, one_branch(step.criterion), epochs)
    progress = Progress()
    if settings.resume:
        state = checkpoint.read(Path(settings.resume))
        try:
            progress = checkpoint.restore(state, step)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{settings.resume}: is not of this model and these classes ({reason})") from error
    end_to_end = "-end2end" if settings.head == "end2end" else ""
    out = _writable(Path(settings.out or f"runs/{settings.task}{end_to_end}-{dataset.info.name}"))
    parameters = sum(p.numel() for p in step.model.parameters())
    console.print(
        f"{settings.task} on {escape(dataset.info.name)}: {len(dataset)} training and {len(pictures)} held-out "
        f"pictures of {dataset.size}x{dataset.size}; a model of {parameters:,} parameters; {steps} steps of "
        f"{settings.batch_size} pictures on {device}, each with {plan.rows} target rows and {plan.pages} pages of "
        + "candidates"
        + (f", {plan.mask_tiles} tiles of mask pixels" if plan.mask_tiles else ""),
        highlight=False,
        soft_wrap=True,
    )
    return Run(settings, dataset, pictures, plan, step, progress, steps, out)


def make_step(settings: Settings, dataset: Dataset, device: torch.device) -> TrainingStep:
    """Model, loss and optimizer of a task."""
    end_to_end, info = settings.head == "end2end", dataset.info
    model = make_model(settings.task, info, end_to_end).to(device)
    names = settings.assigner, settings.box_term, settings.class_term
    parts = options_of(TASKS[settings.task].loss, *names, dataset.size, end_to_end)
    criterion = make_loss(settings.task, info, end_to_end, **parts)
    optimizer = FlatAdamW(model, ema_decay=settings.ema)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return TrainingStep(model, criterion.to(device), optimizer, compiled=settings.compile, half=half)


def one_branch(criterion: DenseLoss | EndToEndLoss) -> DenseLoss:
    """The loss of the branch whose output is used; both branches have the same candidates."""
    return criterion.one if isinstance(criterion, EndToEndLoss) else criterion


def train_to_the_end(this: Run, log: CompileLog, console: Console) -> bool:
    """Train what is left; False after Ctrl-C. Either way the last step's state is saved."""
    settings, progress = this.settings, this.progress
    first = progress.steps
    if settings.compile and not console.is_terminal:
        console.print("compiling the step, once ...")
    batches = stream(this.batches, first, this.steps, settings.workers, this.device)
    with Interrupt().listening() as interrupt, Display(console, first, this.steps) as display:

        def after_step(images: int) -> bool:
            display.step(images, progress.names, progress.losses)
            if progress.steps - first == min(WARM_UP_STEPS, this.steps - first):
                log.mark_warm()
            if progress.steps % settings.save_every == 0:
                this.save()
            return not interrupt

        try:
            train(this.step, batches, progress, this.schedule, after_step)
        except DataError as error:
            if progress.steps == first:
                raise
            raise DataError(f"{error}; the {progress.steps} steps so far are kept in {this.save()}") from error
        # While Ctrl-C is still listened for: it must not cost the last steps.
        this.save()
    return progress.steps == this.steps and not interrupt


def report(this: Run, compiles: dict[str, int], console: Console) -> None:
    """Evaluate, time, draw, print and keep the results."""
    settings, info, device = this.settings, this.dataset.info, this.device
    averaged = make_model(settings.task, info, settings.head == "end2end").to(device)
    averaged.load_state_dict(this.step.optimizer.averaged_state(this.step.model))
    say = partial(console.print, highlight=False, soft_wrap=True)
    criterion = this.step.criterion
    precision, found = evaluate.evaluate(averaged, criterion, info, this.held_out, device, settings.batch_size)
    results: dict[str, Any] = {"steps": this.steps, **precision._asdict()}
    # Kept at once: nothing that comes after may lose them.
    _keep(this.out, results)
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
    _keep(this.out, results)
    paths = _draw(this, averaged, found)
    say("pictures: " + escape(", ".join(str(path) for path in paths)))


def _keep(out: Path, results: dict[str, Any]) -> None:
    # JSON has no NaN.
    known = {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in results.items()}
    unfinished = out / "results.partial"
    unfinished.write_text(json.dumps(known, indent=2) + "\n")
    os.replace(unfinished, out / "results.json")


def _draw(this: Run, model: Detector, found: Sequence[Detections]) -> list[Path]:
    info, progress = this.dataset.info, this.progress
    paths = [this.out / f"{name}.png" for name in ("losses", "predictions", "assignment")]
    plots.losses(paths[0], progress.names, progress.losses)
    filled = [i for i, (_, labels) in enumerate(this.held_out) if len(labels.boxes) > 0][:6]
    filled = filled or list(range(min(6, len(found))))
    plots.predictions(paths[1], info, [this.held_out[i] for i in filled], [found[i] for i in filled])
    image, labels = max(this.held_out, key=lambda pair: (len(pair[1].boxes) <= 6, len(pair[1].boxes)))
    with torch.no_grad():
        (predictions,) = model(image_tensor(image)[None].to(this.device))
        assigned = one_branch(this.step.criterion).assign(
            predictions, labels.targets(this.dataset.size).to(this.device)
        )
    plots.assignment(paths[2], image, labels, assigned)
    return paths


def _data(settings: Settings) -> tuple[Dataset, Dataset]:
    """Training and held-out pictures."""
    size = settings.image_size or (320 if settings.data else 128)
    if settings.data:
        held_out = settings.val_fraction, settings.val_labels
        return training_and_held_out(settings.data, size, settings.task, settings.seed, *held_out)
    rendered = TASKS[settings.task].rendered
    return rendered(size, RENDERED_TRAIN, settings.seed, 0), rendered(size, RENDERED_HELD_OUT, settings.seed, 1)


def _writable(out: Path) -> Path:
    """The folder, made and tried: better now than after hours of training."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(f"{out}: cannot be written to ({error.strerror})") from error
    return out


def _steps(settings: Settings, pictures: int) -> int:
    epochs = settings.epochs or (FOLDER_EPOCHS if settings.data else 0)
    if settings.steps or not epochs:
        return settings.steps or RENDERED_STEPS
    return max(1, epochs * pictures // settings.batch_size)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no CUDA device here")
    return torch.device(name)
