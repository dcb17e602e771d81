"""Lightning: the loss inside the compiled `training_step`, in an unchanged Trainer.

python examples/trainers/lightning_run.py [--data FOLDER] [--device cuda]
"""

from __future__ import annotations

import sys

import torch
from claims import Record, claim
from common import EPOCH, Pictures, eager_losses, loader_of, make_optimizer, make_step, read_options
from torch import Tensor

from compiled_loss import Targets

OPTIONS = read_options(__doc__)
try:
    import lightning  # type: ignore[import-not-found]
except ModuleNotFoundError:
    sys.exit("lightning is not installed: pip install -r examples/trainers/lightning.txt")


class Module(lightning.LightningModule):
    """A batch is `(images, Targets)`, as `collate` makes it; Lightning moves both, since `Targets` is a tuple."""

    def __init__(self, pictures: Pictures, backend: str, record: Record) -> None:
        super().__init__()
        self.step, self.record = make_step(pictures), record
        # The part without hooks and logs: `torch.compile(module)` would hold Lightning's own calls as well.
        self.step.compile(fullgraph=True, backend=backend)

    def training_step(self, batch: tuple[Tensor, Targets]) -> Tensor:
        images, targets = batch
        loss = self.step(images, targets)
        # Without batch_size= Lightning guesses B from the first tensor that it meets, and warns that others differ, as
        # rows are not images. An epoch's log weighs by B, so log the mean of an image: `total` carries B already.
        self.log("loss", loss, batch_size=images.shape[0], on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs: dict[str, Tensor], *_: object) -> None:
        self.record.step(outputs["loss"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self)


def main() -> None:
    pictures, record = Pictures(OPTIONS), Record()
    module = Module(pictures, OPTIONS.backend, record)
    # With strategy="ddp" make the loss with distributed=True (see ddp.py). accumulate_grad_batches=n divides by n; each
    # batch keeps the normaliser of its own.
    trainer = lightning.Trainer(
        accelerator="gpu" if OPTIONS.device == "cuda" else OPTIONS.device,
        devices=1,
        max_steps=OPTIONS.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader_of(pictures, OPTIONS))

    print(f"lightning {lightning.__version__}, torch {torch.__version__}, on {module.device}")
    logged, last = float(trainer.callback_metrics["loss_epoch"]), sum(record.losses[-EPOCH:]) / EPOCH
    claim(f"the epoch's log {logged:.5f} is the mean of its batches", abs(logged - last) < 1e-5 * last)
    record.prove(module.step.criterion, eager_losses(pictures, OPTIONS))


if __name__ == "__main__":
    main()
