"""Makes sandboxes as a node does, and has the probe look around in them.

In a process of its own, which like a node first has the backends prepared and then gives root up: so
what `process` shows is what a function of a real node would see. Of two sandboxes the first leaves
traces, as the node itself does; the second looks for both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stoker import plugins
from stoker.errors import BackendUnavailable, NodeError, SandboxFailed
from stoker.linux import privileges
from stoker.sandboxes.contract import Backend, Launch, Sandbox, SandboxSpec, Show
from stoker.settings import Settings
from stoker.types import Limits
from stoker.walls import docker
from stoker.walls.inside.stoker_probe import reach
from stoker.walls.report import Column, Report

INSIDE = Path(__file__).parent / "inside"
PLACE = "/opt/stoker/walls"
LOOK_S = 60.0
MAX_ANSWER = 1024 * 1024
WITHOUT_ROOT = " without root"


def look(settings: Settings) -> Report:
    """Look from inside every sandbox that works here. Leaves nothing. HOLDS: one thread, no event loop."""
    home = Path(tempfile.mkdtemp(prefix="stoker-walls-"))
    try:
        ours = _in_a_child(msgspec.structs.replace(settings, home=home))
        return Report(settings.sandbox, (*ours, docker.look(INSIDE)))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _in_a_child(settings: Settings) -> list[Column]:
    """What the child saw; it has root no more when it looks."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            columns = _as_a_node(settings)
            with open(writing, "wb") as answer:
                answer.write(msgspec.json.encode(columns))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as answer:
        said = answer.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise BackendUnavailable("the look at the walls failed; see above")
    return msgspec.json.decode(said, type=list[Column])


def _as_a_node(settings: Settings) -> list[Column]:
    is_root = os.geteuid() == 0
    launches = _launches()
    columns: list[Column] = []
    prepared: list[tuple[Column, Backend]] = []
    for name in plugins.names("sandboxes"):
        room = plugins.load("sandboxes", name)
        if not hasattr(room, "PROMISES"):
            continue
        column = _column(name, room.PROMISES, is_root)
        backend: Backend = room.Backend(room.Settings.of(settings), launches)
        problems = "; ".join(map(str, backend.problems()))
        if problems:
            columns.append(msgspec.structs.replace(column, problem=problems))
        else:
            backend.prepare()
            prepared.append((column, backend))
    _become_the_node(settings, launches)
    for column, backend in prepared:
        try:
            words = asyncio.run(_visit(backend, launches))
        except NodeError as error:
            columns.append(msgspec.structs.replace(column, problem=str(error)))
        else:
            columns.append(msgspec.structs.replace(column, words=words))
    return columns


def _column(name: str, promises: Mapping[str, dict[str, str]], is_root: bool) -> Column:
    """With the promises for who starts the node; where that makes no difference, those there are."""
    title = name if is_root or name + WITHOUT_ROOT not in promises else name + WITHOUT_ROOT
    return Column(title, name, promises=promises[title])


def _launches() -> tuple[Launch, ...]:
    """The node's own Python with the probe as its program, forked from a zygote and executed."""
    runtime = plugins.load("runtimes", "python").Runtime()
    usual: Launch = runtime.launch(runtime.default())
    probe = f"{PLACE}/probe.py"
    forked = msgspec.structs.replace(
        usual,
        name="walls-forked",
        argv=(*usual.argv[:-1], probe),
        shows=(*usual.shows, Show(str(INSIDE), PLACE)),
        fork=probe,
    )
    return forked, msgspec.structs.replace(forked, name="walls-executed", fork=None)


def _become_the_node(settings: Settings, launches: tuple[Launch, ...]) -> None:
    if os.geteuid() != 0:
        return
    uid, gid = privileges.identity(settings.user, settings.node_uid)
    os.chown(settings.home, uid, gid)
    shown = [Path(show.source) for launch in launches for show in launch.shows]
    privileges.give_up(settings.user, settings.node_uid, [settings.home, *privileges.own_code(), *shown])


async def _visit(backend: Backend, launches: tuple[Launch, ...]) -> dict[str, str]:
    """Each probe's word, the same for both launches or told for each."""
    traces = reach.Traces(secrets.randbelow(2**30) + 1)
    try:
        async with asyncio.timeout(LOOK_S):
            await backend.open()
            node = {**reach.describe(), **traces.leave()}
            forked, executed = [await _look_from(backend, launch, node) for launch in launches]
    except TimeoutError:
        raise SandboxFailed(f"the probe did not answer within {LOOK_S:g} s") from None
    finally:
        traces.clear()
        await backend.close()
    return {
        name: word if executed.get(name) == word else f"{word} forked, {executed.get(name)} executed"
        for name, word in forked.items()
    }


async def _look_from(backend: Backend, launch: Launch, node: dict[str, Any]) -> dict[str, str]:
    made: list[Sandbox] = []
    key = secrets.randbelow(2**30) + 1
    try:
        for number in range(2):
            spec = SandboxSpec(id=f"{launch.name}-{number}", launch=launch, limits=Limits())
            made.append(await backend.create(spec))
        neighbour = await _ask(made[0], {"do": "leave", "key": key})
        given = sorted(launch.environment)
        return await _ask(made[1], {"do": "look", "strangers": [node, neighbour], "given": given})
    finally:
        for sandbox in made:
            await sandbox.destroy()
        reach.remove(key)  # without walls it would stay


async def _ask(sandbox: Sandbox, question: dict[str, Any]) -> dict[str, Any]:
    """One question and its answer. Raises `SandboxFailed` when the probe ended instead."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sandbox.channel, msgspec.json.encode(question) + b"\n")
    said = b""
    while not said.endswith(b"\n") and len(said) < MAX_ANSWER:
        part = await loop.sock_recv(sandbox.channel, 65536)
        if not part:
            ending = await sandbox.ended
            raise SandboxFailed(f"the probe ended, {ending}: {os.read(sandbox.stderr, 2000)!r}")
        said += part
    answer: dict[str, Any] = msgspec.json.decode(said)
    return answer
