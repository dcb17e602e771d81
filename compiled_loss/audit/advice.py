"""What to do instead, for each thing that an audit finds."""

import re

# The first match wins. Patterns are searched in the finding's message and in torch's own message.
_GRAPH_BREAKS = (
    (
        r"\.item\(\)|scalar_outputs",
        "keep the value in a tensor: use it in tensor arithmetic, or return it and read it outside",
    ),
    (
        r"data-dependent branch",
        "compute both sides and choose with torch.where (torch.cond is one graph too, but waits for its condition)",
    ),
    (
        r"dynamic shape operator|nonzero|masked_select",
        "keep the shape: torch.where with a neutral value, or a weight of zero",
    ),
    (r"operator .?sorted", "sort with torch.sort"),
    (
        r"builtin operator .?print|\bprint\(",
        "print outside the compiled function, or guard it with torch.compiler.is_compiling()",
    ),
    (r"logger|logging\.", "log outside the compiled function"),
    (r"numpy", "write it with torch operations"),
    (r"backward\(\)", "return the loss and call .backward() outside the compiled function"),
    (r"graph_break\(\)", "remove the call"),
    (r"context manager", "enter the context outside the compiled function"),
    (r"disable", "leave out what is marked torch.compiler.disable, or call it outside"),
    (r"torch.*\bgenerator", "draw from torch's default generator, or draw outside and pass the numbers"),
    (r"generator|yield", "build a list instead of yielding"),
    (
        r"raise|exception|assert",
        "check before the compiled function, or use torch._check for what the compiler may assume",
    ),
)
_RECOMPILES = (
    (
        r"separate graphs for 0 and 1",
        "no line is at fault: pad the rows on the host so that there are never 0 or 1, or warm up with that size",
    ),
    (
        r"to make a size dynamic",
        "no line is at fault: let the warm-up batches have two sizes of at least 2, or mark the dimension dynamic",
    ),
    (
        r"uses the size as the number",
        "keep the size out of loops, lists and Python numbers, or pad on the host to few sizes",
    ),
    (r"no earlier batch had reached", "remove the graph break before it, or let a warm-up batch take this path"),
    (
        r"size mismatch|\.size\(\)|\.shape",
        "pad to few sizes, and mark the varying dimension with mark_dynamic before the first call",
    ),
    (r"grad_mode|grad mode", "run every batch in the same grad mode, or warm up each"),
    (r"autocast", "run every batch in the same autocast state, or warm up each"),
    (r"dtype", "convert to one dtype before the call"),
    (r"requires_grad", "give every batch the same requires_grad"),
    (r"stride", "call .contiguous() before the compiled function"),
    (r"len\(|___dict_|keys", "give every batch the same structure: same keys, same lengths"),
    (r"[<>=]", "pass the changing number as a tensor"),
)
_PLAIN = {
    "dynamic-size": (
        (r"mask.*written|written", "torch.where(mask, value, x) writes the same without knowing how many"),
        (r"mask", "torch.where(mask, x, 0), or sort the entries into a static capacity; weigh the rest with 0"),
        (r"repeat_interleave", "give output_size, or gather with an index of static size"),
        (r"unique", "sort, compare neighbours, and keep a static number of slots"),
        (r"bincount", "give a static size: zeros(n).scatter_add(0, index, ones)"),
        (r"", "keep a static capacity and a mask instead of a size that depends on values"),
    ),
    "sync": (
        (r"index on the host", "make the index on the device, once, as a buffer"),
        (r"(masked|index)_fill_? reads", "choose with torch.where, which takes a value of the device"),
        (r"(lin|log)space_? reads", "start + (end - start) * torch.linspace(0, 1, steps, device=start.device)"),
        (r"before it has arrived", "read it in a later step, or wait for it where waiting costs nothing"),
        (r"check_errors", "leave check_errors out, and look at the returned info later"),
        (r"torch\.cond", "compute both sides and choose with torch.where"),
        (r"set to a number", "fill a slice, x[i:i + 1] = number, or choose with torch.where"),
        (r"number on the host", "give a Python number, or make it once, on the device, as a buffer"),
        (
            r"host's memory|copies values|between",
            "make it once, outside, or register it as a buffer; or use torch.full, torch.arange on the device",
        ),
        (r"", "keep the value in a tensor; read it after the step, or every n-th step, outside the function"),
    ),
    "device": ((r"", "create it with device=x.device, or register it as a buffer of the module"),),
    "cudagraph": (
        (r"index_put|mask", "torch.where(mask, value, x) in place of writing through a mask"),
        (r"", "use an operator with a static size and without a read by the host"),
    ),
    "mismatch": (
        (r"not finite", "look for 0/0, log(0) or sqrt(0) that the compiled code evaluates in another order"),
        (
            r"",
            "look for uninitialised memory, an unpromised order of equal values (topk, sort), or a low-precision sum",
        ),
    ),
    "export": (
        (r"is not a tensor", "pass it as a tensor, or export once for each value"),
        (
            r"data-dependent|guard|constraint|specializ",
            "no Python branch or max() on a size; export with example sizes of at least 2",
        ),
        (
            r"numbers",
            "clamp in tensors instead of max(size, 1), and pad before max or argmax over rows that may be none",
        ),
        (r"", "write this with operators that torch.export and ONNX know"),
    ),
}


def advise(kind: str, message: str, detail: str) -> str:
    """What to do about a finding, chosen by its message, otherwise by torch's own message."""
    if kind == "graph-break":
        table, otherwise = _GRAPH_BREAKS, "move it outside the compiled function, or write it with torch operations"
    elif kind == "recompile":
        table, otherwise = _RECOMPILES, "make the guarded value the same for every batch, or a tensor"
    else:
        table, otherwise = _PLAIN[kind], ""
    found = (text for words in (message, detail) for pattern, text in table if re.search(pattern, words, re.IGNORECASE))
    return next(found, otherwise)
