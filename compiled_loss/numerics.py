"""Small numeric helpers that give the same results eager, compiled and exported."""

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.torch_private import is_exporting


def at_least_float32(x: Tensor) -> Tensor:
    """Half and bfloat16 become float32; float32 and float64 stay.

    Example:
        >>> at_least_float32(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def power(x: Tensor, exponent: float) -> Tensor:
    """`x ** exponent` for `0 <= x < 2^104`, from multiplications and square roots where the exponent allows.

    These round in the same way on every backend, `pow` does not. Equal inputs must give equal results, so that ties
    stay ties.

    Example:
        >>> power(torch.tensor([2.0]), 6.0)
        tensor([64.])
    """
    if exponent == 0.5:
        # Scaled by exact factors: ONNX Runtime 1.20 computes the root of a number below 2^-126 as 0.
        return (x * 2.0**24).sqrt() * 2.0**-12 if for_any_runtime() else x.sqrt()
    if exponent != int(exponent) or not 1 <= exponent <= 16:
        return x.pow(exponent)
    result, square, bits = None, x, int(exponent)
    while bits:
        if bits & 1:
            result = square if result is None else result * square
        bits >>= 1
        if bits:
            square = square * square
    assert result is not None
    return result


def root(x: Tensor) -> Tensor:
    """`sqrt(x)` for `x >= 0`, with a gradient of 0 at 0, where that of the square root is infinite.

    Example:
        >>> root(torch.tensor([0.0, 4.0]))
        tensor([0., 2.])
    """
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), x)


def add_epsilon(x: Tensor, epsilon: float) -> Tensor:
    """`x + epsilon`, in a form that survives ONNX Runtime.

    Its optimiser treats constants below 1e-8 as zero and drops the addition, so that 0/0 would give NaN there.

    Example:
        >>> add_epsilon(torch.tensor([0.0, 1.0]), 1e-9)
        tensor([1.0000e-09, 1.0000e+00])
    """
    return (x * (1 / epsilon) + 1) * epsilon


def log1p(x: Tensor) -> Tensor:
    """`ln(1 + x)`, exact for small x in every mode.

    `torch.log1p` is exported as the logarithm of a rounded sum, and `torch.atanh`, which could replace it, is compiled
    to one for a CPU. Here the rounding error of the sum is added back: `ln(u + lost) = ln u + lost / u`.

    Example:
        >>> log1p(torch.tensor([1e-9, 1.0]))
        tensor([1.0000e-09, 6.9315e-01])
    """
    rounded = 1 + x
    lost = torch.where(x.abs() < 1, x - (rounded - 1), 0.0).detach()
    return rounded.log() + lost / rounded


def one_minus_exp(x: Tensor) -> Tensor:
    """`1 - exp(-x)` for `x >= 0`, exact for small x in every mode; `torch.expm1` exports as a rounded difference.

    Example:
        >>> one_minus_exp(torch.tensor([1e-9, 1.0]))
        tensor([1.0000e-09, 6.3212e-01])
    """
    half = torch.tanh(x / 2)
    return 2 * half / (1 + half)


def stack_planes(*coordinates: Tensor) -> Tensor:
    """`torch.stack(coordinates, -1)` in a layout where each coordinate is contiguous.

    Loops over one coordinate then read and write whole vectors. Stacking also makes compiled code compute the parts
    once; otherwise every reader would compute them again.

    Example:
        >>> stack_planes(torch.tensor([1, 2, 3]), torch.tensor(0)).tolist()
        [[1, 0], [2, 0], [3, 0]]
    """
    return torch.stack(torch.broadcast_tensors(*coordinates)).movedim(0, -1)


def pick(x: Tensor, *index: Tensor) -> Tensor:
    """`x[index]`, with an index for every dimension; they broadcast against each other.

    If `x` is contiguous, the indices become one flat index, which eager torch reads many times faster than several.
    Then only the bounds of the whole tensor are checked: an index beyond its own dimension reads a neighbour. A caller
    that does not know its indices must move wrong ones beyond the end of the whole tensor.

    Example:
        >>> pick(torch.arange(6).view(2, 3), torch.tensor([[0], [1]]), torch.tensor([2, 0]))
        tensor([[2, 0],
                [5, 3]])
    """
    if not x.is_contiguous():
        return x[index]
    flat = index[0]
    for size, inner in zip(x.shape[1:], index[1:], strict=True):
        flat = flat * size + inner
    # From a vector, ONNX Runtime reads fastest with an index of any shape, eager torch with `index_select`.
    if is_exporting():
        return x.view(-1)[flat]
    return x.view(-1).index_select(0, flat.flatten()).view(flat.shape)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where the mask is True, else 0, in the value and in the gradient, even if `x` is NaN or infinite.

    The mask has the leading dimensions of `x`.

    Example:
        >>> masked(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))
        tensor([1., 0.])
    """
    return torch.where(mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim())), x, 0.0)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Unreduced `-t log s(x) - (1-t) log(1-s(x)) = softplus(x) - t x`, finite at every finite logit.

    `F.binary_cross_entropy_with_logits` exports as Log(Sigmoid), which loses precision from about -11 on.

    Example:
        >>> binary_cross_entropy(torch.tensor([-100.0]), torch.tensor([1.0]))
        tensor([100.])
    """
    return F.softplus(logits) - targets * logits


def softplus(x: Tensor) -> Tensor:
    """`ln(1 + e^x)` in float32; compiled code shares one exponential with `sigmoid` of the same numbers.

    With `e = e^-|x|`, `ln(1 + e) = 2 artanh(e / (2 + e))`. The argument is at most 1/3, so eight terms of the series
    are enough for float32. Compiled, this takes half the time of two exponentials and a logarithm. Code that computes
    one operation at a time is faster with `F.softplus`.

    Example:
        >>> softplus(torch.zeros(1))
        tensor([0.6931])
    """
    if not _is_generated():
        return F.softplus(x)
    e = decay(-x.abs())
    ratio = e / (2 + e)
    square = ratio * ratio
    series = torch.full_like(x, 2 / 15)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 2 / odd
    return x.clamp(min=0) + ratio * series


def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + e^-x)` in float32, see `softplus`.

    Example:
        >>> sigmoid(torch.zeros(1))
        tensor([0.5000])
    """
    if not _is_generated():
        return x.sigmoid()
    e = decay(-x.abs())
    one = 1 / (1 + e)
    return torch.where(x >= 0, one, e * one)


def decay(x: Tensor) -> Tensor:
    """`e^x` for `x <= 0`, to `7.3e-8 |x|` of its value; where that is large, its value is small.

    Compiled code uses base 2, which takes less time: the CPU code generator stores a result of `exp` that is read
    twice, and loads it again.

    Example:
        >>> decay(torch.tensor([0.0, -1.0, -torch.inf]))
        tensor([1.0000, 0.3679, 0.0000])
    """
    # log2 e as a literal: in a graph of open sizes torch treats a number of a module as one that may change.
    return (x * 1.4426950408889634).exp2() if _is_generated() else x.exp()


def _is_generated() -> bool:
    """Whether the code is being traced for a code generator, which computes as much as it can in one loop."""
    return torch.compiler.is_compiling() and not is_exporting()


def for_any_runtime() -> bool:
    """Whether the code is traced into a graph that must be right in every runtime; only this function decides that.

    Such a graph has no float64, which some runtimes compute in float32, and does not read the bits of a number, which
    ONNX cannot do.

    Example:
        >>> for_any_runtime()
        False
    """
    return is_exporting()


def has_float64(device: torch.device) -> bool:
    """Whether the code can compute in float64; Apple's devices cannot, nor can every runtime of an exported graph.

    Example:
        >>> has_float64(torch.device("cpu"))
        True
    """
    return device.type != "mps" and not for_any_runtime()


def exact(x: Tensor) -> Tensor:
    """`x` in float64 if the device has it, so that results rounded to float32 are the same on every backend.

    Example:
        >>> exact(torch.zeros(2)).dtype
        torch.float64
    """
    return x.double() if has_float64(x.device) else x


def total(x: Tensor) -> Tensor:
    """Sum of all entries, accumulated in float64 if the device has it; ONNX files add in steps.

    This improves the rounding and also keeps one graph: for float32 sums over a dynamic size, the CPU code generator
    chooses an algorithm by that size (up to 4096, or more) and guards on the choice.

    Example:
        >>> total(torch.ones(3))
        tensor(3.)
    """
    if x.device.type == "mps":
        return x.sum()
    if not for_any_runtime():
        return x.sum(dtype=torch.float64).to(x.dtype)
    # The gradient is that of the plain sum, without float64; the value becomes what `exporting/sums.py` writes.
    plain = x.sum()
    with torch.no_grad():
        return plain.copy_(x.sum(dtype=torch.float64))


def totals(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """`[groups]` sums over all entries of the rows of each group, accumulated as in `total`.

    Example:
        >>> totals(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([1, 0, 1]), 2)
        tensor([ 7., 14.])
    """
    wide = exact(x)
    wide = wide.flatten(1).sum(1) if x.dim() > 1 else wide
    return wide.new_zeros(groups).scatter_add(0, group, wide).to(x.dtype)
