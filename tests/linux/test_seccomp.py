"""Policies become programs that say what the policy says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from stoker.linux.seccomp import WORD, Argument, Policy, compile_policy, is_available
from stoker.linux.syscalls import PR_SET_NO_NEW_PRIVS, Filter, prctl

needs_library = pytest.mark.skipif(not is_available(), reason="libseccomp.so.2 is missing")
BASE = frozenset(
    "write exit_group exit read close munmap brk futex rt_sigaction getuid getppid getpid".split()
)


def policy(**changes: object) -> Policy:
    plain = Policy(allowed=BASE, allowed_if={}, refused=frozenset(), refused_if={})
    return plain._replace(**changes)  # type: ignore[arg-type]


def outcome(programs: tuple[bytes, ...], call: str) -> int:
    """The errno of an expression in a process that has loaded the programs; 0 when it succeeds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        number = 0
        try:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            for program in programs:
                Filter(program).load()
            try:
                eval(call)
            except OSError as error:
                number = error.errno or -1
            os.write(writing, str(number).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 10)
    os.close(reading)
    os.waitpid(pid, 0)
    return int(said)


@needs_library
def test_what_a_policy_does_not_name_is_unknown_and_what_it_refuses_is_refused() -> None:
    # `prctl` and `seccomp` themselves: the second program is loaded under the first.
    programs = compile_policy(
        policy(allowed=BASE | {"prctl", "seccomp"}, refused=frozenset({"getpgrp", "chdir"}))
    )
    assert outcome(programs, "os.getppid()") == 0
    assert outcome(programs, "os.chdir('/')") == errno.EPERM
    assert outcome(programs, "os.mkdir('/tmp')") == errno.ENOSYS


@needs_library
def test_conditions_look_at_arguments_through_their_mask() -> None:
    changes = {
        "allowed": BASE | {"prctl", "seccomp", "getsid"},
        "allowed_if": {"getpgid": (Argument(0, WORD, 0), Argument(0, WORD, 1))},
        "refused_if": {"getsid": (Argument(0, WORD, 1), Argument(0, 0, 9))},
    }
    programs = compile_policy(policy(**changes))
    assert outcome(programs, "os.getpgid(0)") == 0
    assert outcome(programs, "os.getpgid(1)") == 0
    assert outcome(programs, "os.getpgid(2)") == errno.ENOSYS
    assert outcome(programs, "os.getsid(0)") == 0
    assert outcome(programs, "os.getsid(1)") == errno.EPERM
    assert outcome(programs, "os.getsid(10)") == errno.EPERM


@needs_library
def test_names_that_no_kernel_knows_are_no_error() -> None:
    assert len(compile_policy(policy(allowed=BASE | {"no_such_call"}))) == 2


def test_without_the_library_nothing_is_available() -> None:
    program = """
import sys
sys.modules["pyseccomp"] = None
from stoker.linux.seccomp import is_available
print(is_available())
"""
    path = os.pathsep.join(place for place in sys.path if place)
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    assert run.stdout == b"False\n"


@needs_library
def test_what_is_there_until_the_last_program_is_forbidden_by_that_one_alone() -> None:
    first, last = compile_policy(
        policy(allowed=BASE | {"prctl", "seccomp"}, refused=frozenset({"chdir"})),
        until_last=frozenset({"chdir", "getpgid", "getppid"}),
    )
    for programs, forbidden in (((first,), (0, 0, 0)), ((first, last), (errno.EPERM, errno.ENOSYS, 0))):
        calls = ("os.chdir('/')", "os.getpgid(0)", "os.getppid()")
        assert tuple(outcome(programs, call) for call in calls) == forbidden
