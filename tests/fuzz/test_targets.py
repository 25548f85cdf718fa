"""Every target bears arbitrary bytes: those that are kept, random ones, and guided ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
INPUTS = sorted((HERE / "inputs").glob("*/*"))
GUIDED_S = 15


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_that_is_kept_shows_no_defect(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_bears_random_bytes(target: str) -> None:
    given(st.binary(max_size=400))(TARGETS[target])()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_bears_bytes_that_are_guided_by_what_they_reach(target: str, folder: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: there is none for this processor or Python")
    done = subprocess.run(
        [
            sys.executable,
            HERE / "run.py",
            target,
            f"-max_total_time={GUIDED_S}",
            "-max_len=4096",
            "-rss_limit_mb=1024",
            folder,
            HERE / "inputs" / target,
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
