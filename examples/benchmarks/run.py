"""Every benchmark, one after the other."""

import fill
import loss

if __name__ == "__main__":
    for benchmark in (loss, fill):
        print(f"\n{benchmark.__doc__.splitlines()[0]}\n")
        benchmark.main()
