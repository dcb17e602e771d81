"""The table in CONTRIBUTING.md of what is held to what, from the cases of the tests.

    python -m tests.coverage

prints it; `tests/test_readme.py` compares it with the page.
"""

from collections import Counter

from torch import nn

from compiled_loss import DenseLoss, EndToEndLoss
from tests.contract.cases import CASES as CONTRACT
from tests.golden.test_golden import CASES as GOLDEN
from tests.golden.test_golden import loss_of

HEADER = """\
| | head | one graph, no wait, exports | stored answers | of them with ties |
| --- | --- | ---: | ---: | ---: |"""


def kind(loss: nn.Module) -> tuple[str, str]:
    """A loss's name and head."""
    task = loss.one if isinstance(loss, EndToEndLoss) else loss
    assert isinstance(task, DenseLoss)
    name = f"`{type(task).__name__}`"
    return f"`EndToEndLoss` of {name}" if task is not loss else name, "R = 1" if task.reg_max == 1 else "R > 1"


def table() -> str:
    """Markdown."""
    contract: Counter[tuple[str, str]] = Counter()
    for name, case in CONTRACT.items():
        loss = getattr(case.function, "loss", None)
        contract[
            (name.split(" with")[0].split(" of sorted")[0].split(" that")[0], "") if loss is None else kind(loss)
        ] += 1
    answers = Counter(kind(loss_of(case)) for case in GOLDEN)
    ties = Counter(kind(loss_of(case)) for case in GOLDEN if case.ties)
    keys = [key for key in contract if not key[1]]
    keys += sorted((contract | answers).keys() - set(keys), key=lambda key: (len(key[0].split()), key))
    rows = [f"| {k[0]} | {k[1]} | {contract[k] or ''} | {answers[k] or ''} | {ties[k] or ''} |" for k in keys]
    return "\n".join([HEADER, *rows])


if __name__ == "__main__":
    print(table())
