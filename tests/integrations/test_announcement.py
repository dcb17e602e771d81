"""A compilation takes its time in silence, so it is announced, once in a process."""

import logging

import pytest
import torch

from compiled_loss.integrations.bridge import announce_compilation
from compiled_loss.integrations.ultralytics import compiled_criterion, install
from tests.integrations.stand_in_trainers import Wrapper, network_class
from tests.integrations.stand_ins import example, stand_in

ANNOUNCED = "the first step compiles the loss, which may take a minute or more"


@pytest.fixture
def unannounced():
    """As in a process in which no loss was compiled yet."""
    announce_compilation.cache_clear()
    logger = logging.getLogger("compiled_loss")
    before = logger.level
    yield logger
    logger.setLevel(before)
    announce_compilation()


def test_a_compilation_is_announced_once(unannounced, capsys):
    compiled, eager = (compiled_criterion(stand_in(), **x) for x in ({"compile": True, "backend": "eager"}, {}))
    preds, rows = example()
    eager(preds, rows)
    with torch.no_grad():
        compiled(preds, rows)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        compiled(preds, rows)
    assert capsys.readouterr() == ("", f"compiled_loss: {ANNOUNCED}\n")


def test_a_trainer_announces_it_when_it_starts(unannounced, capsys):
    wrapper = Wrapper(network_class())
    with install(wrapper, compile=True):
        wrapper.train(epochs=0)
    assert capsys.readouterr().err == f"compiled_loss: {ANNOUNCED}\n"
    announce_compilation.cache_clear()
    with install(wrapper):
        wrapper.train(epochs=0)
    assert capsys.readouterr().err == ""


def test_the_announcement_goes_where_messages_are_listened_to(unannounced, capsys):
    told = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: told.append(f"{record.levelname} {record.getMessage()}")
    unannounced.addHandler(handler)
    try:
        unannounced.setLevel(logging.INFO)
        announce_compilation()
        announce_compilation.cache_clear()
        unannounced.setLevel(logging.WARNING)
        announce_compilation()
    finally:
        unannounced.removeHandler(handler)
    assert told == [f"INFO {ANNOUNCED}"]
    assert capsys.readouterr().err == ""
