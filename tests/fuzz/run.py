"""Feeds one target, guided by which code its inputs reach.

Usage: python tests/fuzz/run.py TARGET [options of libFuzzer]. An input that shows a defect is written to
the folder it is started in; put it into tests/fuzz/inputs/TARGET, where every test run tries it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["stoker.runtimes.wire", "stoker.sandboxes.lean", "stoker.egress", "dns"]
):
    from fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
