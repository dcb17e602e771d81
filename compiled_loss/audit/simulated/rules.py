"""What a real device would wait for or refuse, operator by operator."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_aten = torch.ops.aten

# Operators whose output size depends on values, and what they are called in a program.
_DYNAMIC_SIZES = {
    _aten.nonzero: "nonzero",
    _aten.masked_select: "masked_select",
    _aten._unique2: "unique",
    _aten.unique_dim: "unique",
    _aten.unique_consecutive: "unique_consecutive",
    _aten.unique_dim_consecutive: "unique_consecutive",
    _aten.bincount: "bincount",
    _aten.combinations: "combinations",
}
_INDEXING = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index)
_MATERIALISE = {_aten.equal, _aten.allclose, _aten.is_nonzero, _aten._local_scalar_dense, _aten.item}
# Operators that check values, or fetch sizes and counts, before they return.
_WAITS = {
    _aten._linalg_check_errors: "the check for errors of a linear-algebra operator",
    _aten._linalg_eigh: "eigh",
    _aten._linalg_svd: "svd",
    _aten.linalg_eig: "eig",
    _aten.linalg_lstsq: "lstsq",
    _aten.linalg_matrix_exp: "matrix_exp",
    _aten.histc: "histc",
    _aten.segment_reduce: "segment_reduce",
    _aten._to_sparse: "to_sparse",
}
# Operators that take a single number from the host, as most of those do that torch itself calls pointwise.
_TAKES_NUMBERS = {
    *(_aten.fill, _aten.fill_, _aten.floor_divide, _aten.floor_divide_, _aten.rsub),
    _aten.binary_cross_entropy_with_logits,
}
# Pointwise ones whose tensors have to be on one device, as a GPU has told of each.
_ONE_DEVICE = {
    *(_aten.clamp, _aten.clamp_, _aten.clamp_min, _aten.clamp_min_, _aten.clamp_max, _aten.clamp_max_),
    *(_aten.clip, _aten.clip_, _aten.gcd, _aten.lcm, _aten.logaddexp, _aten.logaddexp2, _aten.nextafter),
    *(_aten.nextafter_, _aten.igamma, _aten.igamma_, _aten.igammac, _aten.igammac_, _aten.addcdiv, _aten.addcdiv_),
    *(_aten.gelu_backward, _aten.logit_backward, _aten.native_dropout_backward, _aten.sigmoid_backward),
    *(_aten.silu_backward, _aten.tanh_backward, _aten.threshold_backward),
}
# Those in which one argument alone may be a number from the host.
_ONE_NUMBER = {
    **dict.fromkeys((_aten.masked_fill, _aten.masked_fill_, _aten.index_fill, _aten.index_fill_), "value"),
    **dict.fromkeys((_aten.lerp, _aten.lerp_), "weight"),
    **dict.fromkeys((_aten.addcmul, _aten.addcmul_), "tensor2"),
    **dict.fromkeys((_aten.logical_and, _aten.logical_or, _aten.logical_xor), "other"),
    **dict.fromkeys((_aten.logical_and_, _aten.logical_or_, _aten.logical_xor_), "other"),
}

Fault = tuple[str, str]  # (kind, what happened)


def faults_of(func: Any, args: Any, kwargs: Any, on_host: list[Tensor], *, moves: bool) -> Iterator[Fault]:
    """What is wrong with an operator's call that has tensors on the device; `moves` if its result is on the host."""
    host = {id(x) for x in on_host}
    yield from _waits(func, args, kwargs, host, moves)
    yield from _mixtures(func, args, kwargs, on_host, host)


def _waits(func: Any, args: Any, kwargs: Any, host: set[int], moves: bool) -> Iterator[Fault]:
    packet = func.overloadpacket
    if packet in _INDEXING:
        if any(map(is_mask, args[1])) and not _fills(args, host):
            written = "written" if "put" in packet.__name__ else "read"
            yield "dynamic-size", f"entries are {written} through a boolean mask"
    elif packet in _DYNAMIC_SIZES:
        yield "dynamic-size", f"the size of {_DYNAMIC_SIZES[packet]}'s result depends on values"
    elif packet is _aten.repeat_interleave and kwargs.get("output_size") is None and len(args) < 3:
        yield "dynamic-size", "the size of repeat_interleave's result depends on values"
    elif packet in _MATERIALISE:
        yield "sync", "a value is read by the host"
    elif packet in _WAITS:
        yield "sync", f"{_WAITS[packet]} waits for values"
    elif packet is _aten.normal and _is_on_device(_given(func, args, kwargs).get("std"), host):
        yield "sync", "normal checks its standard deviations"
    elif packet is _aten._to_copy and moves and not kwargs.get("non_blocking"):
        yield "sync", "a tensor is copied to the host"


def _mixtures(func: Any, args: Any, kwargs: Any, on_host: list[Tensor], host: set[int]) -> Iterator[Fault]:
    packet = func.overloadpacket
    if packet is _aten.copy_:
        if on_host and not _given(func, args, kwargs).get("non_blocking"):
            yield "sync", "a tensor is copied between the host and the device"
    elif packet in _INDEXING:
        if id(args[0]) in host:
            yield "device", "a tensor on the host is indexed with tensors of the device"
        elif any(x.dim() for x in on_host):
            yield "sync", "an index on the host is copied to the device"
        elif on_host and not _fills(args, host):
            yield "sync", "a number on the host is copied to the device"
    elif packet is _aten.where and on_host and not any(x.dim() for x in on_host):
        yield "sync", "where copies a number on the host to the device"
    elif any(id(x) in host for x in _written(func, args, kwargs)):
        yield "device", f"a tensor on the host is written with values of the device in {packet.__name__}"
    elif any(x.dim() for x in on_host) or (on_host and not _takes_numbers(func, args, kwargs, host)):
        yield "device", f"a tensor on the host meets tensors of the device in {packet.__name__}"


def _is_on_device(x: Any, host: set[int]) -> bool:
    return isinstance(x, Tensor) and id(x) not in host


def is_mask(x: Any) -> bool:
    """Whether an index is a mask."""
    return isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)


def _fills(args: Any, host: set[int]) -> bool:
    """Whether one number of the host is written through one mask, which needs no count of entries."""
    indices = [x for x in args[1] if x is not None]
    return len(indices) == 1 and is_mask(indices[0]) and len(args) > 2 and id(args[2]) in host and args[2].numel() == 1


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that a call writes to: in place, or as `out=`."""
    given = _given(func, args, kwargs)
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (x for x in pytree.tree_leaves(given.get(argument.name)) if isinstance(x, Tensor))


def _given(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """What a call gives for each argument, by name."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


def _takes_numbers(func: Any, args: Any, kwargs: Any, host: set[int]) -> bool:
    """Whether the numbers of the host among its arguments may stand there."""
    packet = func.overloadpacket
    if packet in _ONE_NUMBER:
        return {name for name, x in _given(func, args, kwargs).items() if id(x) in host} == {_ONE_NUMBER[packet]}
    # Operators over lists take them where those over tensors do; what an extension takes is its own affair.
    lists = func.__name__.startswith(("_foreach_", "_fused_"))
    pointwise = torch.Tag.pointwise in func.tags and packet not in _ONE_DEVICE
    return pointwise or packet in _TAKES_NUMBERS or lists or func.namespace != "aten"
