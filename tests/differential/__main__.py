"""Draw, check and shrink by seed: `python -m tests.differential 17`, `... 100-199`, `... 17 --without fold,cse`."""

from __future__ import annotations

import argparse
import sys

from .check import check
from .generator import draw
from .shrinker import shrink


def main() -> int:
    """The number of seeds that fail; each is shown as small as it can be made."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("seeds", help="a seed, or a range of seeds such as 0-39")
    parser.add_argument("--without", default="", help="passes to switch off, separated by commas")
    parser.add_argument("--show", action="store_true", help="print the case also where it passes")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    without = [name for name in options.without.split(",") if name]
    failed = 0
    for seed in range(int(first), int(last or first) + 1):
        case = draw(seed)
        failure = check(case, without)
        print(f"seed {seed}: {failure or 'passes'}", flush=True)
        if failure is not None:
            failed += 1
            smallest = shrink(case, lambda c: check(c, without))
            print(f"\n{smallest}\n\n{check(smallest, without)}\n", flush=True)
        elif options.show:
            print(f"\n{case}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
