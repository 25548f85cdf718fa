"""Interpreters that sandboxes are forked from are started anew: what changes, and what nobody notices."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from sandboxes.lean.guests import EXECUTED, FORKED, SERVER, SERVER_INSIDE, children_of, hello, helper_pid, run
from sandboxes.lean.test_spares import wait_for_spares, was_spare
from stoker.sandboxes import contract
from stoker.sandboxes.contract import Launch, SandboxSpec, Show
from stoker.sandboxes.lean import Backend, Settings
from stoker.sandboxes.lean.order import bounded
from stoker.sandboxes.lean.packets import RENEW, pack
from stoker.sandboxes.lean.privileged.sandbox import Means, Sandbox
from stoker.sandboxes.lean.privileged.spares import FIRST_NUMBER, Spares
from stoker.sandboxes.lean.renewal import LATEST, PATIENCE_S, PAUSES_S, Renewal
from stoker.types import Limits

SECRET = "import json; answer = hash('a secret word'), id(json)"


class Renewing:
    """A backend that is told to renew, and what it says of it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.launch = FORKED
        self.aged: asyncio.Queue[int] = asyncio.Queue()
        self.over: list[int] = []
        backend.on_renewed, backend.on_lineage_over = self.aged.put_nowait, self.over.append
        self._made: list[contract.Sandbox] = []
        self._numbers = itertools.count(1)

    async def make(self, lineage: int = 0) -> contract.Sandbox:
        spec = SandboxSpec(
            id=f"guest{next(self._numbers)}", launch=self.launch, limits=Limits(), lineage=lineage
        )
        sandbox = await self.backend.create(spec)
        self._made.append(sandbox)
        await hello(sandbox)
        return sandbox

    def ask(self, lineage: int) -> None:
        self.backend._say(pack(RENEW, lineage))

    async def renew(self, lineage: int) -> None:
        self.ask(lineage)
        assert await self.aged.get() == lineage

    def processes(self) -> set[int]:
        """Of the helper: zygotes and first processes."""
        return set(children_of(helper_pid(self.backend)))

    async def end(self) -> None:
        for sandbox in self._made:
            await sandbox.destroy()


@pytest.fixture
async def renewing(lean: Backend) -> AsyncIterator[Renewing]:
    one = Renewing(lean)
    yield one
    await one.end()


async def test_after_a_renewal_there_is_another_secret_and_who_has_the_old_one_lives_on(
    renewing: Renewing,
) -> None:
    old = await renewing.make()
    secret = await run(old, SECRET)
    assert await run(await renewing.make(), SECRET) == secret
    await renewing.renew(old.lineage)
    new = await until_renewed(renewing, old.lineage)
    theirs = zip(await run(new, SECRET), secret, strict=True)
    assert all(one != other for one, other in theirs), "hash and address"
    assert await run(old, SECRET) == secret


async def test_sandboxes_of_the_old_lineage_are_to_be_had_until_it_is_released(renewing: Renewing) -> None:
    old = await renewing.make()
    secret = await run(old, SECRET)
    await renewing.renew(old.lineage)
    again = await renewing.make(old.lineage)
    assert (again.lineage, await run(again, SECRET)) == (old.lineage, secret)
    new = await until_renewed(renewing, old.lineage)
    renewing.backend.release_lineage(old.lineage)
    after = await renewing.make(old.lineage)
    assert (after.lineage, await run(after, SECRET)) == (new.lineage, await run(new, SECRET))
    assert await run(again, SECRET) == secret


async def until_renewed(renewing: Renewing, lineage: int) -> contract.Sandbox:
    """The first sandbox of another one: before it those are taken that were waiting."""
    while (new := await renewing.make()).lineage == lineage:
        pass
    return new


async def test_the_one_before_the_last_is_over(renewing: Renewing) -> None:
    first = await renewing.make()
    await renewing.renew(first.lineage)
    second = await until_renewed(renewing, first.lineage)
    assert renewing.over == []
    await renewing.renew(second.lineage)
    assert renewing.over == [first.lineage]
    third = await until_renewed(renewing, second.lineage)
    assert (await renewing.make(first.lineage)).lineage == third.lineage
    assert (await renewing.make(second.lineage)).lineage == second.lineage


async def test_spares_of_the_old_lineage_are_replaced(renewing: Renewing) -> None:
    old = await renewing.make()
    before = set(await wait_for_spares(renewing.backend))
    await renewing.renew(old.lineage)
    while before & set(await wait_for_spares(renewing.backend)):
        pass
    new = await renewing.make()
    assert was_spare(new)
    assert new.lineage != old.lineage


def test_only_spares_of_the_launch_that_was_renewed_are_outdated() -> None:
    spares, order = Spares(at_once=1), bounded(0, 0, "spare", Limits())
    spares.want(0, 1, 1, order)
    spares.renewed(0, 50)
    spares.want(0, 1, 2, order._replace(launch=1))
    spare = Sandbox(FIRST_NUMBER + 1, order._replace(launch=1), [], cast(Means, None))
    spare.lineage = 10
    spares.begun(0, spare)
    spares.made(spare, 0.1)
    assert spares.outdated() is None
    spares.renewed(1, 51)
    assert spares.outdated() is spare
    assert spares.outdated() is None


async def test_whoever_asks_for_a_lineage_gets_a_spare_only_of_that_one(renewing: Renewing) -> None:
    old = await renewing.make()
    await wait_for_spares(renewing.backend)
    await renewing.renew(old.lineage)
    new = await until_renewed(renewing, old.lineage)
    for _ in range(6):
        await wait_for_spares(renewing.backend)
        for lineage in (old.lineage, new.lineage):
            assert (await renewing.make(lineage)).lineage == lineage


@pytest.mark.parametrize("spares", [0])
async def test_nothing_is_left_of_what_was_renewed(renewing: Renewing) -> None:
    async def held() -> tuple[int, int]:
        await renewing.end()
        return len(renewing.processes()), descriptors(renewing)

    lineage = (await renewing.make()).lineage
    before = await held()
    assert before[0] == 1, "the zygote"
    for _ in range(4):
        await renewing.renew(lineage)
        new = await renewing.make()
        assert (await renewing.make(lineage)).lineage == lineage != new.lineage
        renewing.backend.release_lineage(lineage)
        while await held() != before:
            await asyncio.to_thread(threading.Event().wait, 0.005)
        lineage = new.lineage


def descriptors(renewing: Renewing) -> int:
    """How many sockets and processes the helper holds; of one that is another user's nobody can tell."""
    folder, found = f"/proc/{helper_pid(renewing.backend)}/fd", 0
    try:
        for name in os.listdir(folder):
            found += os.readlink(f"{folder}/{name}").startswith(("socket:", "anon_inode:[pidfd]", "pidfd:"))
    except PermissionError:
        return 0
    return found


async def test_of_an_interpreter_that_is_executed_there_is_no_lineage(renewing: Renewing) -> None:
    renewing.launch = EXECUTED
    assert (await renewing.make()).lineage == 0


async def test_orders_during_renewals_are_all_carried_out(renewing: Renewing) -> None:
    """Some want the newest, some the one before, some one that has been released."""
    known = [(await renewing.make()).lineage]
    dice = random.Random(4)

    async def ask_on() -> None:
        for _ in range(12):
            sandbox = await renewing.make(dice.choice([0, 0, *known]))
            assert await run(sandbox, "answer = 1") == 1
            await sandbox.destroy()

    async def renew_on() -> None:
        for _ in range(4):
            await renewing.renew(known[-1])
            if dice.random() < 0.5:
                renewing.backend.release_lineage(known[-1])
            known.append((await until_renewed(renewing, known[-1])).lineage)

    await asyncio.gather(renew_on(), *(ask_on() for _ in range(4)))
    assert len(set(known)) == 5


# A successor that does not come up


@pytest.fixture
async def fragile(
    node_id: str, unopened: Backend, nothing_left: None, tmp_path: Path
) -> AsyncIterator[tuple[Renewing, Callable[[str], object]]]:
    """One whose server is in a file that can be changed; what is written there goes before it."""
    server = tmp_path / "server.py"
    server.write_text(SERVER.read_text())
    tmp_path.chmod(0o755)
    shows = tuple(
        Show(str(server), SERVER_INSIDE) if show.target == SERVER_INSIDE else show for show in FORKED.shows
    )
    launch: Launch = msgspec.structs.replace(FORKED, shows=shows)
    backend = Backend(Settings(node_id=node_id, spares=0), (launch,))
    await backend.open()
    renewing = Renewing(backend)
    renewing.launch = launch
    try:
        yield renewing, lambda text: server.write_text(f"{text}\n{SERVER.read_text()}")
    finally:
        await renewing.end()
        await backend.close()


async def test_where_a_successor_does_not_come_up_the_old_one_goes_on(
    fragile: tuple[Renewing, Callable[[str], object]], caplog: pytest.LogCaptureFixture
) -> None:
    renewing, write = fragile
    old = await renewing.make()
    for trouble in ("import there_is_no_such_module", "import os; os.abort()"):
        write(trouble)
        caplog.clear()
        renewing.ask(old.lineage)
        while "cannot be renewed" not in caplog.text:
            assert (await renewing.make()).lineage == old.lineage
    assert "tried again in 40 s" in caplog.text
    caplog.set_level(logging.INFO)
    write("")
    await renewing.renew(old.lineage)
    new = await until_renewed(renewing, old.lineage)
    assert await run(new, SECRET) != await run(old, SECRET)


async def test_nobody_waits_for_a_successor_and_one_that_never_comes_up_is_given_up(
    fragile: tuple[Renewing, Callable[[str], object]], caplog: pytest.LogCaptureFixture
) -> None:
    renewing, write = fragile
    old = await renewing.make()
    write("import signal; signal.pause()")
    renewing.ask(old.lineage)
    for _ in range(10):
        assert (await renewing.make()).lineage == old.lineage
    renewing.ask(old.lineage)
    while "it was not up in time" not in caplog.text:
        assert (await renewing.make()).lineage == old.lineage
    write("")
    renewing.ask(old.lineage)
    assert await renewing.aged.get() == old.lineage


async def test_a_successor_that_is_killed_is_as_if_it_had_not_been_asked_for(
    fragile: tuple[Renewing, Callable[[str], object]], caplog: pytest.LogCaptureFixture
) -> None:
    renewing, write = fragile
    old = await renewing.make()
    known = renewing.processes()
    write("import signal; signal.pause()")
    renewing.ask(old.lineage)
    while not (successor := renewing.processes() - known):
        await asyncio.to_thread(threading.Event().wait, 0.005)
    os.kill(successor.pop(), signal.SIGKILL)
    while "cannot be renewed" not in caplog.text:
        await asyncio.to_thread(threading.Event().wait, 0.005)
    assert (await renewing.make()).lineage == old.lineage
    write("")
    await renewing.renew(old.lineage)


# When


def test_an_interpreter_is_renewed_at_an_age_that_begins_with_its_first_sandbox() -> None:
    renewal = Renewal(100)
    assert renewal.due(1000, is_busy=False) == []
    renewal.made(0, 1, 1000)
    renewal.made(0, 1, 1050)
    assert renewal.due(1099, is_busy=False) == []
    assert renewal.due(1100, is_busy=False) == [1]
    assert renewal.due(1101, is_busy=False) == [], "it has been asked for"
    renewal.renewed(0, 2)
    renewal.made(0, 1, 1150)
    assert renewal.due(5000, is_busy=False) == [], "what nobody has a sandbox of, nobody knows the secret of"
    renewal.made(0, 2, 5000)
    assert renewal.due(5100, is_busy=False) == [2]


def test_while_somebody_waits_for_a_sandbox_it_is_put_off_and_not_for_ever() -> None:
    renewal = Renewal(100)
    renewal.made(0, 1, 0)
    assert renewal.due(100 * LATEST - 1, is_busy=True) == []
    assert renewal.due(100 * LATEST, is_busy=True) == [1]


def test_what_does_not_come_up_is_tried_again_after_longer_and_longer_pauses() -> None:
    renewal, now = Renewal(100), 100.0
    renewal.made(0, 1, 0)
    for pause_s in (*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]):
        assert renewal.due(now, is_busy=False) == [1]
        assert renewal.failed(0, now) == pause_s
        assert renewal.due(now + pause_s - 0.1, is_busy=False) == []
        now += pause_s
    assert renewal.due(now, is_busy=False) == [1]
    assert renewal.due(now + PATIENCE_S, is_busy=False) == [1], "it has not answered at all"


def test_without_an_age_nothing_is_renewed() -> None:
    renewal = Renewal(None)
    renewal.made(0, 1, 0)
    assert renewal.due(1e9, is_busy=False) == []


def test_with_the_helper_all_lineages_are_lost() -> None:
    renewal = Renewal(100)
    renewal.made(0, 1, 0)
    renewal.made(3, 2, 0)
    assert renewal.lost() == [1, 2]
    assert renewal.due(1000, is_busy=False) == []
    renewal.failed(0, 1000)
