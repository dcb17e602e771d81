"""From samples to a batch: a `collate_fn` for a DataLoader.

Letters: B images, H and W their height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor
from torch.utils.data import default_collate

from compiled_loss.checks import check_shape, kind_of, require, true_or_false
from compiled_loss.data.padded import PaddedTargets
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import join_images
from compiled_loss.data.targets import Targets


@overload
def collate(
    samples: Sequence[tuple[Tensor, Targets]], plan: TargetPlan | None = None, *, padded: Literal[False] = False
) -> tuple[Tensor, Targets]: ...
@overload
def collate(
    samples: Sequence[tuple[Tensor, Targets]], plan: TargetPlan | None = None, *, padded: Literal[True]
) -> tuple[Tensor, PaddedTargets]: ...
@overload
def collate(
    samples: Sequence[tuple[Tensor, Targets]], plan: TargetPlan | None = None, *, padded: bool
) -> tuple[Tensor, Targets | PaddedTargets]: ...
def collate(
    samples: Sequence[tuple[Tensor, Targets]], plan: TargetPlan | None = None, *, padded: bool = False
) -> tuple[Tensor, Targets | PaddedTargets]:
    """Join samples into a batch: stack the images, number the rows by image, pad and plan.

    Use as `DataLoader(dataset, collate_fn=functools.partial(collate, plan=plan))`, with workers and pinned memory.

    Args:
        samples: for each image, (image `[3, H, W]`, its Targets with `batch_idx` 0 and without padding).
        plan: the plan of the run; its `image_size` is (H, W). None joins the rows without padding, which is enough for
            eager training; a compiled graph needs padding.
        padded: return `PaddedTargets`, for code that slices, scatters or joins the batch by image: accelerate if one
            process loads for all (`dispatch_batches`, its default for an iterable data set), or `DataParallel`. Flat
            rows fail there.

    Returns:
        Images `[B, 3, H, W]` and targets as from `plan.apply`; without a plan, the rows of all images in order.

    Raises:
        ValueError: naming the sample, for images of another size, padding or rows of several images in one sample,
            keypoints in only some of the samples, or if `Targets.validate` finds a fault.

    Example:
        >>> import torch
        >>> one = Targets(torch.zeros(2).long(), torch.tensor([5, 6]), torch.full((2, 4), 0.5))
        >>> images, t = collate([(torch.rand(3, 64, 64), one)] * 2, TargetPlan((64, 64), (8, 16, 32), rows=6))
        >>> images.shape, t.batch_idx
        (torch.Size([2, 3, 64, 64]), tensor([ 0,  0,  1,  1, -1, -1]))
        >>> collate([(torch.rand(3, 64, 64), one)] * 2)[1].batch_idx
        tensor([0, 0, 1, 1])
    """
    is_one = plan is None or isinstance(plan, TargetPlan)
    require(is_one, "plan", "a TargetPlan, such as criterion.plan(image_size), or None", kind_of(plan))
    pairs = isinstance(samples, Sequence) and all(isinstance(x, Sequence) and len(x) == 2 for x in samples)
    require(pairs, "samples", "a list of (image, Targets)", kind_of(samples) if not samples else samples[:1])
    images, targets = [image for image, _ in samples], [target for _, target in samples]
    joined = join_images(targets, "samples")
    for i, image in enumerate(images):
        check_shape(f"samples[{i}]", image, ["channels", *(plan.image_size if plan else ("H", "W"))])
        same = image.shape == images[0].shape and image.dtype == images[0].dtype
        expected = f"an image {list(images[0].shape)} {images[0].dtype} as in samples[0]"
        require(same, f"samples[{i}]", expected, f"{list(image.shape)} {image.dtype}")
    return default_collate(images), _planned(joined, len(samples), plan, padded=true_or_false("padded", padded))


def _planned(joined: Targets, images: int, plan: TargetPlan | None, *, padded: bool) -> Targets | PaddedTargets:
    if plan is not None:
        return plan.apply(joined, images, padded=padded)
    joined.validate(images)
    if padded:
        return PaddedTargets.from_rows(joined, images)
    return joined._replace(rows=joined.batch_idx.new_tensor(len(joined.batch_idx)))
