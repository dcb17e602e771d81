"""Every benchmark, one after the other."""

import assignment
import fill
import loss
import tasks

if __name__ == "__main__":
    print("\nDetection loss\n")
    loss.main()
    print("\nOther tasks\n")
    tasks.main()
    print("\nFill\n")
    fill.main()
    print("\nAssignment, exported\n")
    assignment.main()
