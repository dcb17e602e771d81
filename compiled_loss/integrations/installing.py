"""A criterion put in the place of a class's own, in a trainer that builds its networks by itself."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from compiled_loss.checks import kind_of, require
from compiled_loss.integrations.criterion import PLANNED, Criterion
from compiled_loss.integrations.heads import network_of

# Called with a network, and how many epochs are over.
Make = Callable[[Any, int], Criterion]
METHOD = "init_criterion"
STARTED = "on_train_start"


class Installation:
    """Our criterion in the place of a class's own, until `uninstall()` or the end of a `with` block.

    Made by `install`. Installing for a class once more replaces what was installed before.

    Args:
        target: what `train()` is called on, a network, or the class of networks.
        make: a criterion for a network.

    Raises:
        ValueError: for anything else.
    """

    def __init__(self, target: Any, make: Make) -> None:
        network, self.criteria = None, list[Criterion]()
        if not isinstance(target, type):
            network = _network_inside(target)
        self.kind: type = target if network is None else type(network)
        expected = "a class of networks with init_criterion, or what train() is called on, such as YOLO('yolo11n.yaml')"
        require(callable(getattr(self.kind, METHOD, None)), "target", expected, kind_of(target))
        self._make = make
        self._made: list[tuple[weakref.ref[Any], Criterion, Any]] = []
        earlier = _installed_for(self.kind)
        if earlier is not None:
            earlier.uninstall()
        self._own = vars(self.kind).get(METHOD)
        self._put()
        self._callbacks: list[Any] | None = None
        if network is not None:
            self._replace(network)
            self._listen(target)

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *error: object) -> None:
        self.uninstall()

    @property
    def installed(self) -> bool:
        """Whether networks of the class get our criterion from this installation."""
        return _installed_for(self.kind) is self

    def uninstall(self) -> None:
        """Give the class its own criterion back, and the networks that got ours theirs; a second time does nothing."""
        if self.installed:
            if self._own is None:
                delattr(self.kind, METHOD)
            else:
                setattr(self.kind, METHOD, self._own)
        for reference, ours, own in self._made:
            network = reference()
            if network is not None and getattr(network, "criterion", None) is ours:
                network.criterion = own  # None: the network makes its own when it needs it
        self._made.clear()
        if self._callbacks is not None and self._meet in self._callbacks:
            self._callbacks.remove(self._meet)

    def _put(self) -> None:
        def init_criterion(network: Any) -> Criterion:
            return self._criterion(network, 0, None)

        init_criterion.installation = self  # type: ignore[attr-defined]
        setattr(self.kind, METHOD, init_criterion)

    def _criterion(self, network: Any, updates: int, own: Any) -> Criterion:
        made = self._make(network, updates)
        self.criteria.append(made)
        self._made.append((weakref.ref(network), made, own))
        return made

    def _replace(self, network: Any) -> None:
        """A criterion that the network has already goes on as ours."""
        own = getattr(network, "criterion", None)
        if own is not None:
            network.criterion = self._criterion(network, int(getattr(own, "updates", 0)), own)

    def _listen(self, target: Any) -> None:
        add, callbacks = getattr(target, "add_callback", None), getattr(target, "callbacks", None)
        if callable(add) and isinstance(callbacks, Mapping):
            add(STARTED, self._meet)
            self._callbacks = callbacks.get(STARTED)

    def _meet(self, trainer: Any) -> None:
        """Let a trainer that starts plan each batch's rows before it moves them."""
        network = network_of(trainer.model)
        if not isinstance(network, self.kind) or not self.installed:
            return
        if not isinstance(getattr(network, "criterion", None), Criterion):
            network.criterion = network.init_criterion()
        criterion = network.criterion
        trainer.preprocess_batch = _planning(trainer.preprocess_batch, criterion)
        validator = getattr(trainer, "validator", None)
        if validator is not None:
            validator.preprocess = _planning(validator.preprocess, criterion)


def _installed_for(kind: type) -> Installation | None:
    return getattr(vars(kind).get(METHOD), "installation", None)


def _planning(move: Callable[[dict[str, Any]], dict[str, Any]], criterion: Criterion) -> Callable[..., dict[str, Any]]:
    def planned(batch: dict[str, Any]) -> dict[str, Any]:
        host = dict(batch)
        moved = move(batch)
        on_host = all(host[key].device.type == "cpu" for key in criterion.task.rows)
        return {**moved, PLANNED: criterion.planned(host, moved["img"])} if on_host else moved

    return planned


def _network_inside(target: Any) -> Any:
    """The network of what `train()` is called on, or what is wrapped around a network."""
    inner = getattr(target, "model", None)
    if callable(getattr(target, "train", None)) and callable(getattr(inner, METHOD, None)):
        return inner
    require(
        not isinstance(inner, str), "target", "a model of a configuration or of weights, not of an exported file", inner
    )
    return network_of(target)
