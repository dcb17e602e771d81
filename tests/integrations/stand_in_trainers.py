"""A trainer that builds its networks by itself, without the package that has such."""

import copy
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn

from tests.integrations.stand_ins import example, stand_in


class Own:
    """A criterion that tells whose it is."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self) -> None:
        self.updates += 1


def network_class(end_to_end: bool = False) -> type:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = stand_in(**({"one2one_cv2": 1} if end_to_end else {}))
            self.model, self.args = made.model, made.args
            self.args.epochs = 5
            self.criterion: Any = None

        def init_criterion(self) -> Any:
            return Own()

        def loss(self, batch: dict[str, Any], preds: Any) -> Any:
            if self.criterion is None:
                self.criterion = self.init_criterion()
            return self.criterion(preds, batch)

    return Network


class Wrapper:
    """What `train()` is called on: the trainer builds another network of the same class."""

    def __init__(self, kind: type) -> None:
        self.model = kind()
        self.callbacks: dict[str, list[Any]] = {"on_train_start": []}

    def add_callback(self, event: str, function: Any) -> None:
        self.callbacks[event].append(function)

    def train(self, epochs: int = 2, done: int = 0) -> SimpleNamespace:
        network = type(self.model)()
        average = copy.deepcopy(network)
        validator = SimpleNamespace(preprocess=lambda batch: dict(batch))
        trainer = SimpleNamespace(model=network, validator=validator, preprocess_batch=lambda batch: dict(batch))
        if done:
            network.criterion = network.init_criterion()
            network.criterion.updates = done - 1
            network.criterion.update()
        for callback in self.callbacks["on_train_start"]:
            callback(trainer)
        trainer.batches, trainer.items = [], []
        for epoch in range(done, epochs):
            preds, rows = example(epoch)
            batch = trainer.preprocess_batch({**rows, "img": torch.zeros(3, 3, 64, 96)})
            trainer.batches.append(batch)
            trainer.items.append(network.loss(batch, preds))
            network.criterion.update()
            with torch.no_grad():
                average.loss(validator.preprocess({**rows, "img": torch.zeros(3, 3, 64, 96)}), preds)
        trainer.average = average
        return trainer


class Plain(Wrapper):
    callbacks: ClassVar[Any] = None

    def __init__(self, kind: type) -> None:
        self.model = kind()


class DistillationModel(nn.Module):
    """What trainers make of two networks for `distill_model=`: it has no `model`, and losses of its own."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher_model, self.student_model = teacher, student

    def init_criterion(self) -> Any:
        return "its own"
