"""`python -m bench.fuzz_atheris TARGET [-max_total_time=60 …]`: the same targets, guided by coverage.

Needs the package `atheris`, which `make fuzz` installs where it can; options are those of libFuzzer.
"""

from __future__ import annotations

import sys


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["streamguard"]):
        from tests.matrix.targets import TARGETS
    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in TARGETS else "wire"
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
