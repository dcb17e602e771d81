"""The criterion for the models of the YOLOv8, YOLOv10, YOLO11 and YOLO26 families, in their own trainer or in a loop.

    from compiled_loss.integrations.ultralytics import install

    model = YOLO("yolo11n.yaml")
    install(model, compile=True)
    model.train(data="data.yaml")

Models and trainers are read by their attributes alone; nothing is imported from the package that built them.
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
    """The criterion of a model, which returns what the model's own returns.

    `(preds, batch) -> (terms * B, items)`. The terms are, in this order: of detection box, cls, dfl; of pose box,
    pose, kobj, cls, dfl and with a normalising flow rle; of oriented boxes box, cls, dfl, angle; of masks box, seg,
    cls, dfl, sem. With one distance bin l1 stands for dfl. An end-to-end head is trained in both its branches.

    The head tells classes, distance bins, strides and keypoints (`nc`, `reg_max`, `stride`, `kpt_shape`), and its kind
    by `ne` (oriented boxes), `nm` (masks), `flow_model` (keypoints with a likelihood) and `one2one_cv2` (end-to-end).
    `model.args` tells the gains (`box`, `cls`, `dfl`, `pose`, `kobj`, `rle`, `angle`; 7.5, 0.5, 1.5, 12, 1, 1 and 1
    where they are missing), `overlap_mask` and `epochs`; `model.class_weights`, where there is one, tells the weight of
    each class, and `model.kpt_oks_sigmas` the spread of each keypoint.

    Args:
        model: a model whose `model.model[-1]` is its head, on the device where it will train; what DDP, `torch.compile`
            or an average of weights wrap around it is taken off. A `train()` that builds a model of its own: `install`.
        compile: run the loss as one compiled graph, forward and backward, for every number of objects. The first step
            takes a minute or more then, of which a line on standard error tells, once in a process. A pass without
            gradients, such as a validation, runs eagerly. Where the rows are on the host they are checked and planned
            there (`TargetPlan`), before they go to the device; on a device, which must not be asked, they are only
            padded, and there is room for every anchor in every row.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `torch.compile`. False gives graphs for static shapes, as CUDA graphs want them: numbers of rows
            and pages are rounded up to powers of two, each of which compiles anew.
        distributed: average the normaliser over the ranks of the default process group, which the model's own does not.
        plan: numbers of rows and pages that every batch is given, for one shape; its image size, classes and region
            are replaced by the batch's. None plans each batch for itself.
        updates: epochs that are over, where a run is resumed; a criterion's attribute of that name can be set too.
        keep_zeros: count what the model's own criterion counts: where an object has fewer than k anchors of alignment
            above 0, anchors of alignment 0 that `torch.topk` happens to list are positives of score 0 there. Means over
            positives, the terms of masks and keypoints, show it for tiny objects. False leaves such anchors out.
        check_values: look at the values of rows on the host, as the losses do. Rows that are planned are always looked
            at: a plan rests on them.

    Returns:
        A callable `criterion(preds, batch)`; see `Criterion.__call__`. Call its `update()` after each epoch.

    Raises:
        ValueError: for a model without such a head, numbers out of range, or options of a compilation without
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
    """Train networks of a class with our criterion instead of their own: one line before `train()`.

    Replaces `init_criterion` of the class, which the network that a trainer builds, its EMA and a resumed run all
    call, so that training and validation use ours, and a schedule goes on. Checkpoints do not name this package.

    It holds for every network of that class in the process. Installed more than once the latest counts; when that is
    uninstalled, the one before it does again, and after the last one the class's own. A run with `distill_model`
    is refused when it starts: distillation has losses of its own.

    Args:
        target: what `train()` is called on, such as `YOLO("yolo11n.yaml")`; or a network, wrapped or not; or the class
            of networks. With the first, the rows of each batch are also planned before the trainer moves them to a
            device, which then need not be asked. A network's own criterion is replaced at once.
        compile: as for `compiled_criterion`, like all that follows.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `compiled_criterion`, but None without a mode is True: with the last, smaller batch of an epoch
            and with multi-scale training sizes change, and a graph that is open from the start saves a second one.
        distributed: average the normaliser over ranks.
        plan: numbers that every batch is given.
        keep_zeros: count the anchors of alignment 0 that the model's own criterion counts.
        check_values: look at the values of rows on the host.

    Returns:
        `Installation`: a context manager with `uninstall()`, and `criteria`, those that were made.

    Raises:
        ValueError: for what has no network with a criterion, for a head that no loss of ours is for where the network
            is handed over, and else what `compiled_criterion` finds when the network makes its criterion.

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
