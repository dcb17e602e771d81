"""luxonis-train: our loss named in its YAML, compared with a run of its own loss on the same batches.

    python examples/trainers/luxonis_run.py [--data FOLDER]

An EfficientRep with a RepPANNeck and a PrecisionBBoxHead; pictures come through a loader registered here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from claims import Record, claim
from common import Pictures, read_options
from torch import Tensor

OPTIONS = read_options(__doc__, steps=8, size=64, batch_size=2)
try:
    from yolo import operators  # isort: skip  # noqa: F401  (torchvision's, where its build does not fit torch's)
    import lightning.pytorch as pl  # type: ignore[import-not-found]
    import luxonis_train  # type: ignore[import-not-found]

    from compiled_loss.integrations import luxonis  # which registers CompiledDetectionLoss
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: python examples/trainers/run.py luxonis")

PICTURES = Pictures(OPTIONS)
CONFIG = """
rich_logging: false
model:
  nodes:
    - {{name: EfficientRep, variant: n, params: {{download_weights: false}}}}
    - {{name: RepPANNeck, variant: n, inputs: [EfficientRep]}}
    - name: PrecisionBBoxHead
      inputs: [RepPANNeck]
      losses:
        - {loss}
loader: {{name: PicturesLoader}}
tracker: {{save_directory: {folder}}}
trainer:
  preprocessing: {{train_image_size: [{size}, {size}], normalize: {{active: false}}}}
  accelerator: cpu
  seed: 0
  batch_size: {batch_size}
  epochs: {epochs}
  validation_interval: {epochs}
  n_workers: 0
  pin_memory: false
  smart_cfg_auto_populate: false
  optimizer: {{name: SGD, params: {{lr: 0.02, momentum: 0.9}}}}
"""
OWN, OURS = (
    "{name: PrecisionDFLDetectionLoss}",
    "{name: CompiledDetectionLoss, params: {compile: true, backend: BACKEND}}",
)


class PicturesLoader(luxonis_train.BaseLoaderTorch):
    """Rows (class, x, y, width, height), x and y of the top left corner, as fractions."""

    @property
    def input_shapes(self) -> dict[str, torch.Size]:
        return {self.image_source: torch.Size([3, OPTIONS.size, OPTIONS.size])}

    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, rows = PICTURES[index]
        corner, size = rows.boxes[:, :2] - rows.boxes[:, 2:] / 2, rows.boxes[:, 2:]
        found = torch.cat([rows.labels[:, None].float(), corner, size], 1)
        return image, {"/boundingbox": found[apart(corner, size)]}

    def get_classes(self) -> dict[str, dict[str, int]]:
        return {"": {name: i for i, name in enumerate(PICTURES.source.info.classes)}}


def apart(corner: Tensor, size: Tensor) -> list[int]:
    """Rows that share no anchor with one before them.

    Of an anchor that two rows select, the paper (arXiv 2108.07755) and this package ask which of these two overlaps it
    more; the trainer asks all rows of the image, and may give it to one that does not hold it.
    """
    grown, kept = 16 / OPTIONS.size, []
    for i in range(len(corner)):
        gaps = [torch.maximum(corner[i] - corner[j] - size[j], corner[j] - corner[i] - size[i]) for j in kept]
        kept += [i] if all(gap.max() > grown for gap in gaps) else []
    return kept


def train(loss: str) -> tuple[Record, torch.nn.Module]:
    with tempfile.TemporaryDirectory() as folder:
        path, epochs = Path(folder, "config.yaml"), -(-OPTIONS.steps * OPTIONS.batch_size // len(PICTURES))
        numbers = {"size": OPTIONS.size, "batch_size": OPTIONS.batch_size, "epochs": epochs}
        path.write_text(CONFIG.format(loss=loss, folder=folder, **numbers))
        model, record = luxonis_train.LuxonisModel(str(path)), Record()
        watch = pl.callbacks.LambdaCallback(on_train_batch_end=lambda *seen: record.step(seen[2]["loss"].item()))
        model.pl_trainer.callbacks.append(watch)
        model.train()
    return record, model.lightning_module


def main() -> None:
    own, _ = train(OWN)
    own.compiles.close()
    ours, module = train(OURS.replace("BACKEND", OPTIONS.backend))
    print(f"luxonis-train {luxonis_train.__version__}, torch {torch.__version__}")
    # The trainer keeps losses beside its modules, not among them.
    losses = [loss for x in module.modules() for loss in vars(x).get("losses", {}).values()]
    claim("one loss trained, registered by this package", [type(x) for x in losses] == [luxonis.register()])
    # Rounding grows from step to step, in a network this deep with batch norms faster than elsewhere.
    ours.prove(losses[0].criterion.loss, own.losses, third=1e-2)


if __name__ == "__main__":
    main()
