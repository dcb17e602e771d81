"""Every test starts from the same seed and leaves no compiled code behind."""

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    # Of torch's own modules, on their first import by the code generator.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _same_seed_and_no_compiled_code():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
