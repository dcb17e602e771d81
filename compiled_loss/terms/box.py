"""Box regression terms.

Letters: B images, A anchors, P positive slots, R distance bins.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.grid import Sides, decode_distances, decode_sides
from compiled_loss.numerics import at_least_float32, decay, masked, pick
from compiled_loss.torch_private import is_exporting
from compiled_loss.types import Assignment


def distribution_focal(
    logits: Tensor,  # [P, 4, R]
    distances: Tensor,  # [P, 4] grid units
) -> Tensor:
    """Cross-entropy of a distance split linearly between its two neighbouring bins, averaged over the four sides.

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
    # A bin of weight 0 may have probability 0, and 0 times -inf is NaN.
    return -torch.where(weight > 0, weight * logits.log_softmax(-1), 0.0).sum(-1).mean(-1)


def read_sides(
    logits: Tensor,  # [B, 4*R, A]
    sides: Sides,  # [B, 4, A]
    assignment: Assignment,
    distances: Tensor,  # [P, 4] grid units
) -> tuple[Tensor, Tensor]:
    """The positives' distances and their `distribution_focal` error, using the decoded sides of all anchors.

    Of its `4 R` logits, a positive reads only the two per side that its true distance lies between; the others are read
    only when the gradient is written.

    Args:
        logits: `[B, 4*R, A]` side-distance logits, R at least 2.
        sides: decoded sides of all anchors, as from `decode_sides`, without gradients.
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
    # If no gradient is needed, the tracer instantiates the function, of which torch warns; forward mode does not need
    # it. An export differentiates what is inside the function, here the decoding of all anchors.
    plain = distances.requires_grad or is_exporting()
    if torch.is_grad_enabled() and logits.requires_grad and not plain:
        return _ReadSides.apply(logits, *sides, image, anchor, valid, distances)
    positives = masked(at_least_float32(logits[image, :, anchor]), valid).unflatten(-1, (4, -1))
    return masked(decode_distances(positives), valid), masked(distribution_focal(positives, distances), valid)


class _ReadSides(torch.autograd.Function):
    """Has slots as the last dimension inside: those of a row are adjacent in memory, and so are their anchors."""

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
        decoded, peak, mass = [pick(x, image, side, anchor) for x in (decoded, peaks, masses)]  # [4, P]
        target = _between_bins(distances, bins)
        low = target.floor()
        share, channel = target - low, side * bins + low.long()
        below, above = [pick(logits, image, channel + i, anchor).to(mass.dtype) - peak for i in (0, 1)]
        # A bin of weight 0 may have probability 0, and 0 times -inf is NaN.
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
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # A second derivative also goes through the decoding.
            decoded, peaks, masses = decode_sides(at_least_float32(logits).unflatten(1, (4, bins)), 2)
        side = torch.arange(4, device=logits.device)[:, None]
        bin = torch.arange(bins, device=logits.device)[:, None]
        decoded, peak, mass = [pick(x, image, side, anchor) for x in (decoded, peaks, masses)]  # [4, P]
        # The gradient of bin j is `softmax_j (slope j + base) - weight_j share`.
        share = (of_error / 4).expand_as(decoded)
        slope, target = of_distances.T / mass, _between_bins(distances, bins)
        base = share / mass - decoded * slope
        if torch.compiler.is_compiling():
            # Every anchor's logits are read and written once more, in order: a compiled loop over all of them takes no
            # longer than some thousand positives at scattered places, and its time does not grow with their number.
            place = torch.where(valid, (image * 4 + side) * logits.shape[2] + anchor, peaks.numel())
            slope, base, share, target = [
                peaks.new_full((peaks.numel() + 1,), -1.0)
                .index_copy(0, place.flatten(), x.flatten())[:-1]
                .view(peaks.shape)[:, :, None]
                for x in (slope, base, share, target)
            ]
            shifted = logits.unflatten(1, (4, bins)).to(peaks.dtype) - peaks[:, :, None]
            gradient = torch.where(target >= 0, _of_bins(shifted, slope, base, share, target, bin), 0.0)
            return gradient.to(logits.dtype).reshape(logits.shape), *[None] * 7
        channel = side[:, None] * bins + bin  # [4, R, 1]
        peak, slope, base, share, target = [x[:, None] for x in (peak, slope, base, share, target)]  # [4, 1, P]
        shifted = pick(logits, image, channel, anchor).to(mass.dtype) - peak
        gradient = torch.where(valid, _of_bins(shifted, slope, base, share, target, bin), 0.0).to(logits.dtype)
        return _write(logits, image, channel, anchor, valid, gradient), *[None] * 7


def _of_bins(shifted: Tensor, slope: Tensor, base: Tensor, share: Tensor, target: Tensor, bin: Tensor) -> Tensor:
    """The gradient of bins' logits, from the logits minus their peak."""
    return decay(shifted) * (slope * bin + base) - (1 - (target - bin).abs()).clamp(min=0) * share


def _write(like: Tensor, image: Tensor, channel: Tensor, anchor: Tensor, valid: Tensor, values: Tensor) -> Tensor:
    """`[B, C, A]` zeros with values at their places; values of empty slots must be 0."""
    if not like.is_contiguous():
        return torch.zeros_like(like).index_put((image, channel, anchor), values, accumulate=True)
    place = torch.where(valid, (image * like.shape[1] + channel) * like.shape[2] + anchor, like.numel())
    return values.new_zeros(like.numel() + 1).scatter(0, place.flatten(), values.reshape(-1))[:-1].view(like.shape)


def _between_bins(distances: Tensor, bins: int) -> Tensor:
    """`[4, P]` distances, clamped to lie between the first and the last bin."""
    return distances.T.clamp(0.0, bins - 1 - 0.01)


def scaled_l1(
    predicted: Tensor,  # [P, 4] grid units
    distances: Tensor,  # [P, 4] grid units
    strides: Tensor,  # [P] pixels
    image_size: tuple[int, int],
) -> Tensor:
    """`|predicted - true|` distance as a fraction of the image's width (left, right) or height, averaged over sides.

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
