"""Every benchmark, one after the other."""

import fill
import loss

if __name__ == "__main__":
    print("\nDetection loss\n")
    loss.main()
    print("\nFill\n")
    fill.main()
