"""What the helper does when descriptors run out: it refuses, loses none, and works again afterwards."""

from __future__ import annotations

import os
import resource

import pytest

from sandboxes.lean.conftest import Make
from sandboxes.lean.guests import FORKED, helper_pid, run
from stoker.errors import SandboxFailed
from stoker.sandboxes.contract import SandboxSpec
from stoker.sandboxes.lean import Backend
from stoker.types import Limits


@pytest.fixture
def spares() -> int:
    return 0


@pytest.mark.parametrize("more", range(1, 26))
async def test_a_sandbox_that_lacks_a_descriptor_is_refused_and_none_is_lost(
    lean: Backend, make: Make, more: int
) -> None:
    await (await make()).destroy()  # what is kept between two sandboxes is there
    helper = helper_pid(lean)
    before = opened(helper)
    limits = resource.prlimit(helper, resource.RLIMIT_NOFILE)
    resource.prlimit(helper, resource.RLIMIT_NOFILE, (max(before) + 1 + more, limits[1]))
    for number in range(4):
        try:
            spec = SandboxSpec(id=f"scarce{number}", launch=FORKED, limits=Limits())
            await (await lean.create(spec)).destroy()
        except SandboxFailed as error:
            assert "Too many open files" in str(error)
    resource.prlimit(helper, resource.RLIMIT_NOFILE, limits)
    sandbox = await make()
    assert await run(sandbox, "answer = 1") == 1
    await sandbox.destroy()
    assert helper_pid(lean) == helper
    assert opened(helper) == before


def opened(pid: int) -> list[int]:
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
