"""The criterion for the models of the YOLOv8, YOLOv10, YOLO11 and YOLO26 families, in their own trainer or in a loop.

    from compiled_loss.integrations.ultralytics import install

    model = YOLO("yolo11n.yaml")
    install(model, compile=True)
    model.train(data="data.yaml")

Models and trainers are read only through their attributes; nothing is imported from the package that built them.
"""

from collections.abc import Callable
from typing import Any

from compiled_loss.checks import true_or_false
from compiled_loss.data.plan import TargetPlan
from compiled_loss.integrations.bridge import Compilation
from compiled_loss.integrations.criterion import Criterion
from compiled_loss.integrations.heads import device_of, network_of, read_task
from compiled_loss.integrations.installing import Installation

Backend = str | Callable[..., Any]


def compiled_criterion(
    model: Any,
    *,
    compile: bool = False,
    backend: Backend = "inductor",
    mode: str | None = None,
    dynamic: bool | None = None,
    distributed: bool = False,
    plan: TargetPlan | None = None,
    updates: int = 0,
    keep_zeros: bool = True,
    check_values: bool = True,
) -> Criterion:
    """The criterion for a model, with the same return values as the model's own.

    `(preds, batch) -> (terms * B, items)`. The terms are, in this order: for detection box, cls, dfl; for pose box,
    pose, kobj, cls, dfl and with a normalising flow rle; for oriented boxes box, cls, dfl, angle; for masks box, seg,
    cls, dfl, sem. With one distance bin, l1 replaces dfl. Both branches of an end-to-end head are trained.

    Classes, distance bins, strides and keypoints are read from the head (`nc`, `reg_max`, `stride`, `kpt_shape`), and
    its kind from `ne` (oriented boxes), `nm` (masks), `flow_model` (keypoints with a likelihood) and `one2one_cv2`
    (end-to-end). `model.args` holds the gains (`box`, `cls`, `dfl`, `pose`, `kobj`, `rle`, `angle`; by default 7.5,
    0.5, 1.5, 12, 1, 1 and 1), `overlap_mask` and `epochs`; `model.class_weights`, if present, holds the weight of each
    class, and `model.kpt_oks_sigmas` the spread of each keypoint.

    Args:
        model: a model whose `model.model[-1]` is its head, on the device where it will train; wrappers such as DDP,
            `torch.compile` or weight averaging are removed. If `train()` builds its own model, use `install`.
        compile: run the loss as one compiled graph, forward and backward, for any number of objects. The first step
            then takes a minute or more, announced once per process on standard error. Passes without gradients, such as
            validation, run eagerly. Rows on the host are checked and planned there (`TargetPlan`) before they go to the
            device. Rows already on a device, whose values are not read, are only padded, with room for every anchor in
            every row.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `torch.compile`. False gives graphs with static shapes, as CUDA graphs require: numbers of rows
            and pages are rounded up to powers of two, and each new size is compiled separately.
        distributed: average the normaliser over the ranks of the default process group; the model's own does not.
        plan: fixed numbers of rows and pages, giving every batch one shape; its image size, classes and region are
            replaced by the batch's. None plans each batch individually.
        updates: number of completed epochs when resuming; the criterion's attribute of the same name can be set too.
        keep_zeros: count the same positives as the model's own criterion: if an object has fewer than k anchors with
            alignment above 0, anchors of alignment 0 that `torch.topk` returns become positives of score 0. This shows
            for tiny objects in means over positives, the mask and keypoint terms. False leaves such anchors out.
        check_values: check the values of rows on the host, as the losses do. Rows that are planned are always checked,
            since the plan depends on them.

    Returns:
        A callable `criterion(preds, batch)`; see `Criterion.__call__`. Call its `update()` after each epoch.

    Raises:
        ValueError: if the model has no such head, a number is out of range, or compile options are given without
            `compile=True`.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> head = SimpleNamespace(nc=2, reg_max=16, stride=torch.tensor([8.0, 16.0, 32.0]))
        >>> criterion = compiled_criterion(SimpleNamespace(model=[head], args=SimpleNamespace(box=7.5)))
        >>> feats = [torch.zeros(1, 1, s, s) for s in (8, 4, 2)]
        >>> preds = {"boxes": torch.zeros(1, 64, 84), "scores": torch.zeros(1, 2, 84), "feats": feats}
        >>> batch = {"batch_idx": torch.zeros(1), "cls": torch.ones(1, 1), "bboxes": torch.full((1, 4), 0.5)}
        >>> vector, items = criterion(preds, batch)
        >>> vector.shape, list(items)
        (torch.Size([3]), ['box_loss', 'cls_loss', 'dfl_loss'])
    """
    compilation = Compilation(backend, mode, dynamic).checked(compile=compile)
    task = read_task(model, distributed=true_or_false("distributed", distributed), keep_zeros=keep_zeros)
    task.loss.check_values = true_or_false("check_values", check_values)
    return Criterion(task, device_of(network_of(model).model[-1]), compilation, plan, updates)


def install(
    target: Any,
    *,
    compile: bool = False,
    backend: Backend = "inductor",
    mode: str | None = None,
    dynamic: bool | None = None,
    distributed: bool = False,
    plan: TargetPlan | None = None,
    keep_zeros: bool = True,
    check_values: bool = True,
) -> Installation:
    """Train all networks of a class with our criterion instead of their own: one line before `train()`.

    Replaces the class's `init_criterion`, which the network that a trainer builds, its EMA and a resumed run all call,
    so that training and validation use ours and schedules continue. Checkpoints do not refer to this package.

    It applies to every network of that class in the process. If installed several times, the latest is active; after
    uninstalling it, the one before it is active again, and finally the class's own. A run with `distill_model` is
    refused when it starts, because distillation has losses of its own.

    Args:
        target: the object that `train()` is called on, such as `YOLO("yolo11n.yaml")`; or a network, wrapped or not; or
            a class of networks. With the first, the rows of each batch are also planned before the trainer moves them
            to a device, so the device is not waited for. An existing network's criterion is replaced at once.
        compile: as for `compiled_criterion`, like the arguments below.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `compiled_criterion`, but None without a mode means True: sizes change with the last, smaller
            batch of an epoch and in multi-scale training, and a graph with open sizes avoids a second compilation.
        distributed: average the normaliser over ranks.
        plan: fixed numbers of rows and pages for every batch.
        keep_zeros: count the anchors of alignment 0 that the model's own criterion counts.
        check_values: check the values of rows on the host.

    Returns:
        `Installation`: a context manager with `uninstall()`, and `criteria`, the criteria made so far.

    Raises:
        ValueError: if the target has no network with a criterion, if a given network's head has no loss here, or, when
            a network makes its criterion, as `compiled_criterion` does.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> class Network(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.model = [SimpleNamespace(nc=2, reg_max=16, stride=torch.tensor([8.0, 16.0]))]
        ...     def init_criterion(self):
        ...         return "its own"
        >>> with install(Network) as installation:
        ...     print(type(Network().init_criterion()).__name__, installation)
        Criterion Installation(Network, eager, 1 criterion made)
        >>> Network().init_criterion()
        'its own'
    """
    compilation = Compilation(backend, mode, dynamic).checked(compile=compile)
    dynamic = True if compile and (mode, dynamic) == (None, None) else dynamic
    options: dict[str, Any] = {"compile": compile, "backend": backend, "mode": mode, "dynamic": dynamic}
    options |= {"distributed": distributed, "plan": plan, "keep_zeros": keep_zeros, "check_values": check_values}
    return Installation(
        target, lambda model, updates: compiled_criterion(model, updates=updates, **options), compilation
    )
