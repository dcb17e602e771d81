"""Box regression terms.

Letters: B images, A anchors, P positive slots, R distance bins.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.grid import Sides, decode_distances
from compiled_loss.numerics import at_least_float32, masked
from compiled_loss.types import Assignment


def distribution_focal(
    logits: Tensor,  # [P, 4, R]
    distances: Tensor,  # [P, 4] grid units
) -> Tensor:
    """Cross-entropy of a distance split linearly over its two neighbouring bins, mean over the four sides.

    `t` is clamped to `[0, R - 1.01]`; bin j has the weight `max(0, 1 - |t - j|)`.

    Args:
        logits: `[P, 4, R]` side-distance logits.
        distances: `[P, 4]` true distances, grid units.

    Returns:
        `[P]`.

    Source: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> round(distribution_focal(torch.zeros(1, 4, 4), torch.ones(1, 4)).item(), 4)
        1.3863
    """
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    target = distances.clamp(0.0, logits.shape[-1] - 1 - 0.01)
    weight = (1 - (target[..., None] - bins).abs()).clamp(min=0)
    # A bin of weight 0 may be impossible, and 0 times -inf is NaN.
    return -torch.where(weight > 0, weight * logits.log_softmax(-1), 0.0).sum(-1).mean(-1)


def read_sides(
    logits: Tensor,  # [B, 4*R, A]
    sides: Sides,  # [B, 4, A]
    assignment: Assignment,
    distances: Tensor,  # [P, 4] grid units
) -> tuple[Tensor, Tensor]:
    """The positives' distances, and their `distribution_focal` error, from what all anchors' logits were decoded to.

    Of its `4 R` logits a positive reads the two a side that its true distance lies between; the others only when the
    gradient is written.

    Args:
        logits: `[B, 4*R, A]` side-distance logits, R at least 2.
        sides: of all anchors, as from `decode_sides`, without a gradient.
        assignment: the positives.
        distances: `[P, 4]` true distances, grid units.

    Returns:
        `(distances [P, 4], error [P])`; 0 in empty slots. The gradient goes to the logits.

    Source: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> from compiled_loss.grid import decode_sides
        >>> one = Assignment(*torch.tensor([[0], [2], [0]]), torch.tensor([True]), torch.tensor([0.9]), torch.tensor(0))
        >>> logits = torch.zeros(1, 16, 3)
        >>> read_sides(logits, decode_sides(logits.unflatten(1, (4, 4)), 2), one, torch.ones(1, 4))
        (tensor([[1.5000, 1.5000, 1.5000, 1.5000]]), tensor([1.3863]))
    """
    image, anchor, _, valid = assignment[:4]
    # The tracer makes an instance of a function that needs no gradient, and torch warns of that. Export and forward
    # mode differentiate what is inside a function of one's own, here all anchors' decoding.
    if torch.is_grad_enabled() and logits.requires_grad and not torch.compiler.is_exporting():
        return _ReadSides.apply(logits, *sides, image, anchor, valid, distances)
    positives = masked(at_least_float32(logits[image, :, anchor]), valid).unflatten(-1, (4, -1))
    return masked(decode_distances(positives), valid), masked(distribution_focal(positives, distances), valid)


class _ReadSides(torch.autograd.Function):
    """Inside, slots are the last dimension: those of a row lie side by side in memory, and so do their anchors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor,
        decoded: Tensor,
        peaks: Tensor,
        masses: Tensor,
        image: Tensor,
        anchor: Tensor,
        valid: Tensor,
        distances: Tensor,
    ) -> tuple[Tensor, Tensor]:
        bins = logits.shape[1] // 4
        side = torch.arange(4, device=logits.device)[:, None]
        decoded, peak, mass = (x[image, side, anchor] for x in (decoded, peaks, masses))  # [4, P]
        target = _between_bins(distances, bins)
        low = target.floor()
        share, channel = target - low, side * bins + low.long()
        below, above = (logits[image, channel + i, anchor].to(mass.dtype) - peak for i in (0, 1))
        # A bin of weight 0 may be impossible, and 0 times -inf is NaN.
        error = mass.log() - (1 - share) * below - torch.where(share > 0, share * above, 0.0)
        return torch.where(valid, decoded, 0.0).T, torch.where(valid, error.mean(0), 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_distances, of_error), (logits, decoded, peaks, masses, image, anchor, valid, distances) = (
            gradients,
            ctx.saved_tensors,
        )
        bins = logits.shape[1] // 4
        # Empty slots write once more what the first positive does; without positives all write the last slot's zeros.
        first = torch.cat([valid, valid.new_ones(1)]).int().argmax().clamp(max=valid.shape[0] - 1)
        source = torch.where(valid, torch.arange(valid.shape[0], device=valid.device), first)
        image, anchor, valid, of_error = (x[source] for x in (image, anchor, valid, of_error))
        side = torch.arange(4, device=logits.device)[:, None]
        # A stack is computed once, where its parts would be anew for each of the bins.
        decoded, peak, mass = torch.stack([x[image, side, anchor] for x in (decoded, peaks, masses)])[:, :, None]
        image, anchor = torch.stack([image, anchor])
        bin = torch.arange(bins, device=logits.device)[:, None]
        weight = (1 - (_between_bins(distances[source], bins)[:, None] - bin).abs()).clamp(min=0)
        channel = side[:, None] * bins + bin
        share = (logits[image, channel, anchor].to(mass.dtype) - peak).exp() / mass  # [4, R, P]
        gradient = share * ((bin - decoded) * of_distances[source].T[:, None] + of_error / 4) - weight * of_error / 4
        gradient = torch.where(valid, gradient, 0.0).to(logits.dtype)
        return torch.zeros_like(logits).index_put((image, channel, anchor), gradient), *[None] * 7


def _between_bins(distances: Tensor, bins: int) -> Tensor:
    """`[4, P]` distances that lie between the first bin and the last."""
    return distances.T.clamp(0.0, bins - 1 - 0.01)


def scaled_l1(
    predicted: Tensor,  # [P, 4] grid units
    distances: Tensor,  # [P, 4] grid units
    strides: Tensor,  # [P] pixels
    image_size: tuple[int, int],
) -> Tensor:
    """`|predicted - true|` distance as a fraction of the image's width (left, right) or height, mean over sides.

    Args:
        predicted: `[P, 4]` left, top, right, bottom, grid units.
        distances: `[P, 4]` true distances; may be negative.
        strides: `[P]` pixels per grid unit.
        image_size: (height, width) in pixels.

    Returns:
        `[P]`.

    Example:
        >>> scaled_l1(torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([8.0]), (16, 16))
        tensor([0.5000])
    """
    height, width = image_size
    error = (predicted - distances).abs() * strides[:, None]
    horizontal, vertical = error[:, 0::2].sum(-1), error[:, 1::2].sum(-1)
    return (horizontal / width + vertical / height) / 4
