"""What planning a batch costs the host: `TargetPlan.apply`, milliseconds.

python examples/benchmarks/planning.py [--rounds 41]
"""

from batches import BATCH, MIXED, SIZE, STRIDES, Case, add_fields, detection_cases, rows_of
from timing import in_turn, machine, parser_of, read_options, table

from compiled_loss import TargetPlan


def main() -> None:
    """Print the table."""
    options = read_options(parser_of(__doc__, rounds=41))
    plan = TargetPlan((SIZE, SIZE), STRIDES)
    masks = add_fields(rows_of(480, MIXED), "segment")
    cases = [*detection_cases(), Case("480 rows, mixed, with masks", masks)]
    ms = in_turn({case.name: lambda t=case.targets: plan.apply(t, BATCH) for case in cases}, options.rounds)
    print(table(["`TargetPlan.apply` on the host", "ms"], [[name, f"{x:.2f}"] for name, x in ms.items()]))
    print(f"\n{machine('torch')}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
