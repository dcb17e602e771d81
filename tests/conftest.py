"""Every test starts from the same seed and leaves no compiled code behind."""

import datetime
import random
import time

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="begin no test later than so many minutes after the first")
    parser.addoption("--order", type=int, help="seed of the order in which these run; the day's number by default")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.minutes is not None and config.option.order is None:
        config.option.order = datetime.date.today().toordinal()  # workers are given it
    # Of torch's own modules, on their first import by the code generator.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if config.option.order is None else f"order: {config.option.order}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers (`--dist loadgroup`) one gets all of a file, but tests that are `apart`.

    Where time is limited, each day begins with others, so that all are run in the end.
    """
    if config.option.order is not None:
        random.Random(config.option.order).shuffle(items)
    for item in items:  # before xdist reads the marks
        if item.get_closest_marker("apart") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


@pytest.fixture(autouse=True)
def _same_seed_and_no_compiled_code():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def _begin() -> float:
    return time.monotonic()


@pytest.fixture(autouse=True)
def _within_the_time(request: pytest.FixtureRequest, _begin: float) -> None:
    minutes = request.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - _begin > 60 * minutes:
        pytest.skip(f"more than {minutes:g} minutes have passed")
