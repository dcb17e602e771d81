"""The host side of a loss: its plan and, in eager calls, checks of its inputs.

Letters: B images, N rows, C classes.
"""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from compiled_loss.assign.regions import Region
from compiled_loss.checks import require
from compiled_loss.data.needs import needed_pages
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.targets import Targets
from compiled_loss.data.values import check_row_values, on_host
from compiled_loss.losses.decoding import Decoder
from compiled_loss.losses.scene import Scene
from compiled_loss.pages import PAGE
from compiled_loss.types import Predictions


class Planner(Decoder):
    """The half of a loss that knows what the host has to plan and check."""

    check_values: bool
    _said = False  # whether a warning of a small plan was given; only read in eager calls

    @property
    def region(self) -> Region:
        """Where candidates lie; `plan` counts pages from it."""
        raise NotImplementedError

    def plan(
        self,
        image_size: tuple[int, int],
        dataset: Iterable[Targets] | None = None,
        *,
        batch_size: int | None = None,
        margin: float = 0.0,
        power_of_two: bool = False,
    ) -> TargetPlan:
        """A plan for the batches that this loss reads, with its strides, classes and candidate region.

        Args:
            image_size: (height, width) in pixels of the images that the head sees.
            dataset: the Targets of each image, to give all batches one shape; None plans each batch individually.
            batch_size: images in a batch; with a `dataset`.
            margin: extra room for augmentation, as in `TargetPlan.from_dataset`; with a `dataset`.
            power_of_two: round rows, pages and tiles up to powers of two.

        Returns:
            `TargetPlan`, whose `apply` prepares the rows of a batch.

        Raises:
            ValueError: if the finest stride does not divide the image size, if a data set comes without a batch size,
                or a batch size or margin without a data set.

        Example:
            >>> from compiled_loss import DetectionLoss, SimOTA
            >>> plan = DetectionLoss(80, assigner=SimOTA()).plan(image_size=(640, 640))
            >>> plan.strides, plan.num_classes, plan.region
            ((8, 16, 32), 80, NearCentre(radius=1.5, or_inside=False))
        """
        if dataset is None:
            wanted = "a dataset with it"
            require(batch_size is None, "batch_size", wanted, batch_size)
            require(margin == 0, "margin", wanted, margin)
            return TargetPlan(
                image_size,
                self.strides,
                power_of_two=power_of_two,
                num_classes=self.num_classes,
                region=self.region,
            )
        require(batch_size is not None, "batch_size", "the number of images in a batch, to go with the dataset", None)
        assert batch_size is not None
        return TargetPlan.from_dataset(
            dataset,
            batch_size=batch_size,
            image_size=image_size,
            strides=self.strides,
            margin=margin,
            power_of_two=power_of_two,
            num_classes=self.num_classes,
            region=self.region,
        )

    def look_at_rows(self, predictions: Predictions, targets: Targets) -> None:
        """Check the values of rows on the host in eager calls, unless `check_values` is off.

        Raises:
            ValueError: if `Targets.validate` finds a fault.
        """
        # In this order, so that a graph does not depend on the attribute.
        if not torch.compiler.is_compiling() and self.check_values:
            check_row_values(targets, predictions.scores.shape[0], self.num_classes)

    def look_at_room(self, scene: Scene, tiles: Tensor | int) -> None:
        """Warn once if the host planned too little; in eager calls with rows on the host, if `check_values` is on.

        Args:
            scene: the batch, with the candidates for which there was room.
            tiles: how often a row's positives did not fit into the capacity of an extra term, such as mask tiles.
        """
        if torch.compiler.is_compiling() or not self.check_values or self._said:
            return
        fits = scene.candidates.layout.fits
        if on_host(lambda: int((~fits).sum() + scene.cut + scene.dropped + tiles) == 0, fits):
            return
        self._said = True
        of_pages = _short_of_pages(scene, self.strides, self.region)
        found = [*of_pages, *_short_of_slots(scene), *_short_of_tiles(scene, tiles)]
        height, width = scene.image_size
        warnings.warn(
            f"{type(self).__name__}: {'; '.join(found)}. What does not fit is left out of the loss and counted "
            f"in LossOutput.overflow. Make a plan for this loss and these images: criterion.plan(({height}, {width})). "
            "This warning appears once for each loss; check_values=False turns it off.",
            stacklevel=2,
        )


def _short_of_pages(scene: Scene, strides: tuple[int, ...], region: Region) -> list[str]:
    objects, crowds = int((~scene.candidates.layout.fits).sum()), int(scene.cut)
    if objects + crowds == 0:
        return []
    (height, width), targets = scene.image_size, scene.targets
    pages = scene.candidates.layout.group.shape[0]
    needed = int(needed_pages(targets, scene.image_size, strides, region=region).sum())
    whose = f"{objects} objects" + (f" and {crowds} ignore rows" if crowds else "")
    return [
        f"{whose} lose candidate anchors, because the targets were planned with {pages} pages of {PAGE} "
        f"anchors and need up to {needed} at {height}x{width} pixels with {region}"
    ]


def _short_of_slots(scene: Scene) -> list[str]:
    return [f"{int(scene.dropped)} objects of PaddedTargets have no slot"] if int(scene.dropped) else []


def _short_of_tiles(scene: Scene, tiles: Tensor | int) -> list[str]:
    if int(tiles) == 0:
        return []
    if scene.targets.mask_tiles is None:
        return [f"an extra term reports an overflow of {int(tiles)}"]
    return [f"mask_tiles had no room for the mask pixels of an object's positives, {int(tiles)} times"]
