"""What a batch costs on the host besides the loss, in milliseconds: `TargetPlan.apply`, and an eager call's checks.

python examples/benchmarks/planning.py [--rounds 41]
"""

from batches import BATCH, CLASSES, MIXED, SIZE, STRIDES, Case, add_fields, detection_cases, rows_of
from timing import in_turn, machine, parser_of, read_options, table

from compiled_loss import TargetPlan
from compiled_loss.data.values import check_row_values


def main() -> None:
    """Print the table."""
    options = read_options(parser_of(__doc__, rounds=41))
    plan = TargetPlan((SIZE, SIZE), STRIDES)
    fields = {"pose": "keypoints", "segment": "masks"}
    more = [Case(f"480 rows, mixed, with {x}", add_fields(rows_of(480, MIXED), task)) for task, x in fields.items()]
    plans, checks, rows = "`TargetPlan.apply`", "value checks", []
    for name, targets, _ in [*detection_cases(), *more]:
        calls = {
            plans: lambda t=targets: plan.apply(t, BATCH),
            checks: lambda t=targets: check_row_values(t, BATCH, CLASSES),
        }
        ms = in_turn(calls, options.rounds)
        rows.append([name, *(f"{ms[x]:.2f}" for x in (plans, checks))])
    print(table(["on the host, ms", plans, checks], rows))
    print(f"\n{machine('torch')}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
