"""What a real device would wait for, or refuse, for each operator."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_aten = torch.ops.aten

# Operators whose output size depends on values, with their names in user code.
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
    **({_aten.cholesky: "cholesky"} if hasattr(_aten, "cholesky") else {}),  # removed in torch 2.14
    _aten.cholesky_inverse: "cholesky_inverse",
    _aten.linalg_pinv: "pinv",
    _aten._ctc_loss: "ctc_loss",
}
# Arguments whose value the host needs: it reads a device tensor that is passed for them.
_READ_ARGUMENTS = {
    **dict.fromkeys((_aten.masked_fill, _aten.masked_fill_, _aten.index_fill, _aten.index_fill_), ("value",)),
    **dict.fromkeys((_aten.linspace, _aten.logspace), ("start", "end")),
    _aten.normal: ("std",),  # the host checks its sign
}
# Operators that make a tensor on the device they are given, wherever their arguments are.
FACTORIES = (_aten.linspace, _aten.logspace)
_SHAPES_ALONE = {
    *(_aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.rand_like, _aten.randn_like),
    *(_aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty_strided),
}
# Operators that accept a host tensor of one number. Most operators that torch tags as pointwise do too.
_TAKES_NUMBERS = {
    *(_aten.fill, _aten.fill_, _aten.floor_divide, _aten.floor_divide_, _aten.rsub),
    *(_aten.binary_cross_entropy_with_logits, *FACTORIES),
}
# Pointwise operators that need all tensors on one device; each was tried on a GPU.
_ONE_DEVICE = {
    *(_aten.clamp, _aten.clamp_, _aten.clamp_min, _aten.clamp_min_, _aten.clamp_max, _aten.clamp_max_),
    *(_aten.clip, _aten.clip_, _aten.gcd, _aten.lcm, _aten.logaddexp, _aten.logaddexp2, _aten.nextafter),
    *(_aten.nextafter_, _aten.igamma, _aten.igamma_, _aten.igammac, _aten.igammac_, _aten.addcdiv, _aten.addcdiv_),
    *(_aten.gelu_backward, _aten.logit_backward, _aten.native_dropout_backward, _aten.sigmoid_backward),
    *(_aten.silu_backward, _aten.tanh_backward, _aten.threshold_backward),
}
# Operators in which only this argument may be a number on the host.
_ONE_NUMBER = {
    **dict.fromkeys((_aten.masked_fill, _aten.masked_fill_, _aten.index_fill, _aten.index_fill_), "value"),
    **dict.fromkeys((_aten.lerp, _aten.lerp_), "weight"),
    **dict.fromkeys((_aten.addcmul, _aten.addcmul_), "tensor2"),
    **dict.fromkeys((_aten.logical_and, _aten.logical_or, _aten.logical_xor), "other"),
    **dict.fromkeys((_aten.logical_and_, _aten.logical_or_, _aten.logical_xor_), "other"),
}

Fault = tuple[str, str]  # (kind, what happened)


def faults_of(func: Any, args: Any, kwargs: Any, on_host: list[Tensor], *, moves: bool) -> Iterator[Fault]:
    """What is wrong with a call of an operator on device tensors; `moves` says that its result is on the host."""
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
    elif packet is _aten.isin and _sorts(_given(func, args, kwargs)):
        yield "sync", "isin looks for unique values and waits for their number"
    elif packet is _aten._to_copy and moves and not kwargs.get("non_blocking"):
        yield "sync", "a tensor is copied to the host"
    given = _given(func, args, kwargs)
    read = [name for name in _READ_ARGUMENTS.get(packet, ()) if _is_on_device(given.get(name), host)]
    if read:
        yield "sync", f"{packet.__name__} reads its {' and its '.join(read)} on the host"
    if given.get("check_errors") is True:
        yield "sync", "errors are looked for on the host (check_errors=True)"


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


def arrives_later(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call is a copy that may continue after the call has returned."""
    return func.overloadpacket in (_aten._to_copy, _aten.copy_) and bool(_given(func, args, kwargs).get("non_blocking"))


def reads_memory(func: Any) -> bool:
    """Whether an operator reads the values of its tensors: not if it makes views, or needs only their shapes."""
    if func.overloadpacket in _SHAPES_ALONE:
        return False
    return not any(x.alias_info is not None and not x.alias_info.is_write for x in func._schema.arguments)


def _sorts(given: dict[str, Any]) -> bool:
    """Whether `isin` sorts, as it does if there are many elements to look for."""
    elements, wanted = given.get("elements"), given.get("test_elements")
    if not isinstance(elements, Tensor) or not isinstance(wanted, Tensor) or given.get("assume_unique"):
        return False
    return wanted.numel() >= 10 * elements.numel() ** 0.145


def _is_on_device(x: Any, host: set[int]) -> bool:
    return isinstance(x, Tensor) and id(x) not in host


def is_mask(x: Any) -> bool:
    """Whether an index is a mask."""
    return isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)


def _fills(args: Any, host: set[int]) -> bool:
    """Whether one host number is written through one mask, which needs no count of the entries."""
    indices = [x for x in args[1] if x is not None]
    return len(indices) == 1 and is_mask(indices[0]) and len(args) > 2 and id(args[2]) in host and args[2].numel() == 1


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that a call writes to: in place, or as `out=`."""
    given = _given(func, args, kwargs)
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (x for x in pytree.tree_leaves(given.get(argument.name)) if isinstance(x, Tensor))


def _given(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


def _takes_numbers(func: Any, args: Any, kwargs: Any, host: set[int]) -> bool:
    """Whether an operator accepts the host numbers among its arguments."""
    packet = func.overloadpacket
    if packet in _ONE_NUMBER:
        return {name for name, x in _given(func, args, kwargs).items() if id(x) in host} == {_ONE_NUMBER[packet]}
    # Operators over lists accept them like those over tensors; of an extension's operators nothing is known.
    lists = func.__name__.startswith(("_foreach_", "_fused_"))
    pointwise = torch.Tag.pointwise in func.tags and packet not in _ONE_DEVICE
    return pointwise or packet in _TAKES_NUMBERS or lists or func.namespace != "aten"
