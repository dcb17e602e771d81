"""`python -m compiled_loss audit ...`."""

import sys

from compiled_loss.audit.command import main

if __name__ == "__main__":
    sys.exit(main())
