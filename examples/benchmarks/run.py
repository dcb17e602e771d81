"""Every benchmark, one after the other, each in a process of its own; options are passed on to all.

python examples/benchmarks/run.py [--device cuda] [--rounds 9] [--labels FILE.json ...] [--out PICTURE.png]
"""

import subprocess
import sys
from pathlib import Path

PROGRAMS = {
    "Detection loss": ["loss.py"],
    "Detection loss, memory kept by the allocator": ["loss.py", "--keep-memory"],
    "Assigners": ["assigners.py"],
    "Other tasks": ["tasks.py"],
    "Other tasks, memory kept by the allocator": ["tasks.py", "--keep-memory"],
    "Peak memory": ["memory.py"],
    "Busy machine": ["busy.py"],
    "Planning": ["planning.py"],
    "Compile time": ["compiling.py"],
    "Growth": ["growth.py"],
    "Fill": ["fill.py"],
    "Assignment, exported": ["assignment.py"],
}

if __name__ == "__main__":
    failed = []
    for title, (program, *options) in PROGRAMS.items():
        print(f"\n{title}\n", flush=True)
        command = [sys.executable, str(Path(__file__).with_name(program)), *options, *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode:
            failed.append(title)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
