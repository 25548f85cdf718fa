"""What the benchmark compares with runs the same no-op, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from bench import client, image, packages, runc
from bench.rivals import bubblewrap, framework, lambdaric
from bench.row import NotMeasured

needs_packages = pytest.mark.skipif(
    not (packages.ENVIRONMENT / "requirements.stamp").exists(), reason="no .venv-bench: scripts/setup --bench"
)


def test_the_no_op_says_what_it_returned() -> None:
    assert subprocess.run(image.command(), capture_output=True, text=True, check=True).stdout == "{}\n"


def test_runc_runs_it_as_often_as_wanted_or_says_why_not() -> None:
    try:
        with runc.bundle() as made:
            assert len(made.runs_us(2)) == 2
            name = made.folder.name
    except NotMeasured as reason:
        pytest.skip(str(reason))
    assert [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")] == []


def test_bubblewrap_runs_it_as_often_as_wanted_or_says_why_not() -> None:
    try:
        with bubblewrap.wrap() as made:
            assert len(made.runs_us(2)) == 2
    except NotMeasured as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(("module", "program"), [(runc.bundle, "runc"), (bubblewrap.wrap, "bwrap")])
def test_a_tool_that_is_not_here_is_a_reason_and_no_pass(
    monkeypatch: pytest.MonkeyPatch, module: object, program: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets as far as looking for it")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotMeasured, match=f"no {program} here"), module():  # type: ignore[operator]
        pass


@needs_packages
def test_a_web_server_around_the_function_answers_from_its_first_answer_on() -> None:
    with framework.server() as (port, cold_us), client.connected(port) as connection:
        assert connection.exchange(client.request("POST", "/", client.BODY)).strip() == b"{}"
        assert cold_us > 0


@needs_packages
def test_the_runtime_of_aws_is_timed_from_the_event_to_its_answer() -> None:
    cold_us, warm_us = lambdaric.times_us(5)
    assert cold_us > max(warm_us) > 0
    assert len(warm_us) == 5
