"""A whole run: data, model, compiled training, checkpoints, and the report at its end."""

from __future__ import annotations

import math
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from demo import checkpoint
from demo.batches import plan_run, stream
from demo.console import Display
from demo.engine import WARM_UP_STEPS, CompileLog, Interrupt, Progress, train
from demo.labels import DataError, Dataset
from demo.model import STRIDES
from demo.report import measure, report
from demo.session import Run, make_step, one_branch
from demo.settings import Settings
from demo.splits import training_and_held_out
from demo.tasks import TASKS

RENDERED_TRAIN, RENDERED_HELD_OUT, RENDERED_STEPS = 2048, 200, 600
FOLDER_EPOCHS = 40
INTERRUPTED = 130
# Of the held-out pictures, in the course of a run; all of them at its end.
MEASURED_PICTURES = 64


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
    dataset, held_out = _data(settings, console)
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


def train_to_the_end(this: Run, log: CompileLog, console: Console) -> bool:
    """Train what is left; False after Ctrl-C. Either way the last step's state is saved."""
    settings, progress = this.settings, this.progress
    first, metric = progress.steps, TASKS[settings.task].metric
    if settings.compile and first < this.steps:
        images, targets = next(stream(this.batches, first, first + 1, 0, this.device))
        out = this.step.trial(images, targets)
        parts = {"total": out.total, **out.terms}
        told = "  ".join(f"{name} {value.item() / len(images):.2f}" for name, value in parts.items())
        console.print(f"before step {first + 1}, eagerly:  {told}  per image", highlight=False, soft_wrap=True)
    batches = stream(this.batches, first, this.steps, settings.workers, this.device)
    display = Display(console, first, this.steps, settings.compile)
    with Interrupt().listening() as interrupt, display:

        def after_step(images: int) -> bool:
            display.step(images, progress.names, progress.losses)
            if progress.steps - first == min(WARM_UP_STEPS, this.steps - first):
                log.mark_warm()
            if this.is_measured(progress.steps) and not interrupt:
                some = this.held_out[:: math.ceil(len(this.held_out) / MEASURED_PICTURES)]
                precision = measure(this, some)[0].ap
                if not math.isnan(precision):  # that there is nothing to find is said at the end
                    progress.precision.append((progress.steps, precision))
                    display.say(f"{metric} {precision:.3f} on {len(some)} held-out pictures")
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


def _data(settings: Settings, console: Console) -> tuple[Dataset, Dataset]:
    """Training and held-out pictures."""
    size = settings.image_size or (320 if settings.data else 128)
    if not settings.data:
        rendered = TASKS[settings.task].rendered
        return rendered(size, RENDERED_TRAIN, settings.seed, 0), rendered(size, RENDERED_HELD_OUT, settings.seed, 1)
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(f"reading {escape(settings.data)}, every label and the size of every picture ...")
    held_out = settings.val_fraction, settings.val_labels
    train, val = training_and_held_out(settings.data, size, settings.task, settings.seed, *held_out)
    say(f"read {escape(train.document.origin)}")
    return train, val


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
