"""Replaces a class's own criterion, for trainers that build their networks themselves."""

import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from compiled_loss.checks import kind_of, require
from compiled_loss.integrations.bridge import Compilation, announce_compilation
from compiled_loss.integrations.criterion import PLANNED, Criterion
from compiled_loss.integrations.heads import head_of, network_of
from compiled_loss.integrations.stacks import Stacked, in_force, installations

# Called with a network and the number of completed epochs.
Make = Callable[[Any, int], Criterion]
METHOD = "init_criterion"
STARTED = "on_train_start"


class Installation(Stacked):
    """Replaces a class's own criterion with ours, until `uninstall()` or the end of a `with` block.

    Made by `install`. It applies to every network of that class in the process, whatever the target was. Of several
    installations for one class, the latest that is not uninstalled is active, so `with` blocks can be nested.

    Args:
        target: the object that `train()` is called on, a network, or a class of networks.
        make: makes a criterion for a network.
        compilation: how the loss is compiled, for messages; None if it is not.

    Raises:
        ValueError: for anything else, or for a network whose head has no loss here.
    """

    def __init__(self, target: Any, make: Make, compilation: Compilation | None = None) -> None:
        network = None if isinstance(target, type) else _network_inside(target)
        kind: type = target if network is None else type(network)
        expected = "a class of networks with init_criterion, or what train() is called on, such as YOLO('yolo11n.yaml')"
        require(callable(getattr(kind, METHOD, None)), "target", expected, kind_of(target))
        if network is not None:
            head_of(network, "target")
        self._make = make
        self._made: list[tuple[weakref.ref[Any], Criterion, Any]] = []
        super().__init__(kind, compilation and compilation.name, lambda: {METHOD: _init_criterion(kind)})
        self._callbacks: list[Any] | None = None
        if network is not None:
            try:
                self._replace(network)
            except ValueError:
                self.uninstall()
                raise
            self._listen(target)

    def uninstall(self) -> None:
        """Restore the previous installation, or the class's own criterion; calling it again does nothing.

        Networks that were given ours get back what they had. If a later installation is active, it stays so.
        """
        super().uninstall()
        for reference, ours, own in self._made:
            network = reference()
            if network is not None and getattr(network, "criterion", None) is ours:
                network.criterion = own  # None: the network makes its own when it needs it
            for other in installations(self.kind):
                other._forget(ours, own)
        self._made.clear()
        if self._callbacks is not None and self._meet in self._callbacks:
            self._callbacks.remove(self._meet)

    def _forget(self, criterion: Criterion, own: Any) -> None:
        """Make sure that an uninstalled criterion is not restored, but the one that it had replaced."""
        self._made = [(network, ours, own if x is criterion else x) for network, ours, x in self._made]

    def _criterion(self, network: Any, updates: int, own: Any) -> Criterion:
        made = self._make(network, updates)
        self.criteria.append(made)
        self._made.append((weakref.ref(network), made, own))
        return made

    def _replace(self, network: Any) -> None:
        """Replace a criterion that the network already has, continuing from its state."""
        own = getattr(network, "criterion", None)
        if own is not None:
            network.criterion = self._criterion(network, int(getattr(own, "updates", 0)), own)

    def _listen(self, target: Any) -> None:
        add, callbacks = getattr(target, "add_callback", None), getattr(target, "callbacks", None)
        if callable(add) and isinstance(callbacks, Mapping):
            add(STARTED, self._meet)
            self._callbacks = callbacks.get(STARTED)

    def _meet(self, trainer: Any) -> None:
        """Make a starting trainer plan each batch's rows before moving them to the device."""
        if not self.installed:
            return
        teacher = getattr(getattr(trainer, "args", None), "distill_model", None)
        distilled = bool(teacher) or type(trainer.model).__name__ == "DistillationModel"
        why = "distillation has its own losses, which install does not replace; call uninstall() before such a run"
        got = f"{teacher or kind_of(trainer.model)}: {why}"
        require(not distilled, "distill_model", "none while our criterion is installed", got)
        network = network_of(trainer.model)
        if not isinstance(network, self.kind):
            return
        if not isinstance(getattr(network, "criterion", None), Criterion):
            network.criterion = network.init_criterion()
        criterion = network.criterion
        if criterion.compilation is not None:
            announce_compilation()  # above the progress bar
        trainer.preprocess_batch = _planning(trainer.preprocess_batch, criterion)
        validator = getattr(trainer, "validator", None)
        if validator is not None:
            validator.preprocess = _planning(validator.preprocess, criterion)


def _init_criterion(kind: type) -> Callable[[Any], Criterion]:
    def init_criterion(network: Any) -> Criterion:
        return in_force(kind)._criterion(network, 0, None)

    return init_criterion


def _planning(move: Callable[[dict[str, Any]], dict[str, Any]], criterion: Criterion) -> Callable[..., dict[str, Any]]:
    def planned(batch: dict[str, Any]) -> dict[str, Any]:
        host = dict(batch)
        moved = move(batch)
        on_host = all(host[key].device.type == "cpu" for key in criterion.task.rows)
        return {**moved, PLANNED: criterion.planned(host, moved["img"])} if on_host else moved

    return planned


def _network_inside(target: Any) -> Any:
    """The network inside an object that `train()` is called on, or inside a wrapper."""
    is_path = isinstance(target, str | os.PathLike)
    expected = "what train() is called on" + (f": pass YOLO({os.fspath(target)!r})" if is_path else "")
    require(not is_path, "target", expected, repr(target))
    inner = getattr(target, "model", None)
    if callable(getattr(target, "train", None)) and callable(getattr(inner, METHOD, None)):
        return inner
    expected = "a model made from a configuration or weights, not from an exported file"
    require(not isinstance(inner, str), "target", expected, inner)
    return network_of(target, "target")
