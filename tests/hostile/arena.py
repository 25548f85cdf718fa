"""One node for many attacks, and what must hold around each of them.

While an attack runs, a neighbour's warm function is called again and again and the node is asked for
its health; afterwards the next call on the same function succeeds, the same node still serves, and
within two seconds there is as much of it on the machine as there was before.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import statistics
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import leaks
from journeys.running import AT_WORK, Answer, RunningNode, running
from stoker.settings import Settings

FUNCTIONS = Path(__file__).parent / "functions"
CLEAN_S = 2.0
PAUSE_S = 0.02
# A neighbour shares two processors with the attack, and with whatever else the machine does meanwhile: a
# stall is many times a calm call, noise is not.
SLOWER, SLOWER_FOR_A_MOMENT = 10, 30
BUSY_SHARE = 0.7  # of the time of an attack that takes long, the node itself may be at work at most
LONG_S = 0.8
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROCESSES_EACH = 2  # a spare's first and its second
LEAST_S = 0.01  # a call that takes less is not measured against itself
# Small enough that what has no end is met soon.
SETTINGS = {"STOKER_LOG_LEVEL": "warning", "STOKER_MAX_MEMBERS": "2000", "STOKER_BUILD_TIMEOUT_S": "12"}
RUNTIMES = {"python": "main.handler", "nodejs": "index.handler"}


def package(files: Mapping[str, tuple[bytes, bool]]) -> bytes:
    """A zip of names, contents, and whether each is a program."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, is_program) in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o100755 if is_program else 0o100644) << 16
            archive.writestr(member, content)
    return target.getvalue()


def sources(language: str) -> dict[str, tuple[bytes, bool]]:
    return {
        path.name: (path.read_bytes(), False) for path in (FUNCTIONS / language).iterdir() if path.is_file()
    }


def compiled(folder: Path) -> Path:
    """The C program, static so that it runs in any root."""
    program = folder / "program"
    source = FUNCTIONS / "c" / "program.c"
    subprocess.run(["gcc", "-static", "-O1", "-pthread", "-w", "-o", program, source], check=True)
    return program


def crowding() -> float:
    """How many more than its processors the machine has to do; patience is for a machine of our own."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Pulse:
    """Asks one thing of a node again and again, and keeps how long each answer took."""

    def __init__(self, port: int, method: str, target: str, body: bytes = b"") -> None:
        self._asked = method, target, body
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._taken: list[float] = []
        self._wrong: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._line.close()

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S):
            began = time.monotonic()
            wrong = self._ask()
            with self._lock:
                self._taken.append(time.monotonic() - began)
                self._wrong += [wrong] if wrong else []

    def _ask(self) -> str:
        try:
            self._line.request(*self._asked)
            reply = self._line.getresponse()
            said = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._line.close()
            return f"{self._asked[1]}: {error!r}"
        return "" if reply.status == 200 else f"{self._asked[1]}: {reply.status} {said[:300]!r}"

    def take(self) -> tuple[list[float], list[str]]:
        """What there was since this was last asked."""
        with self._lock:
            taken, wrong = self._taken, self._wrong
            self._taken, self._wrong = [], []
        return taken, wrong


class Arena:
    """A node under attack."""

    def __init__(self, node: RunningNode, program: Path, sandbox: str) -> None:
        self.node = node
        self.sandbox = sandbox
        self._program = program
        self._pid = node.pid
        self._marks = [str(node.folder), Settings(home=node.home).node_id]
        self._deployed: set[str] = set()
        self._pulses: list[Pulse] = []
        self._calm: list[float] = []
        self._before: Counter[str] = Counter()

    @contextmanager
    def open(self) -> Iterator[Arena]:
        """Have the neighbour called and the health asked for; know what there is when all is calm."""
        self._deploy("neighbour", "python", reuse="process", timeout="60s")
        for language in RUNTIMES:
            self.ready(language, "10s")
            self.call(f"{language}-10s", "peace.hello")
        body = json.dumps({"attack": "peace.work"}).encode()
        port = self.node.port
        with (
            Pulse(port, "POST", "/functions/neighbour/call", body) as work,
            Pulse(port, "GET", "/health") as health,
        ):
            self._pulses = [work, health]
            threading.Event().wait(1.0)
            taken, wrong = work.take()
            assert wrong == []
            self._calm = taken[5:]
            self._before = self._wait_as_before(None, CLEAN_S)
            yield self

    # Functions

    def ready(self, language: str, timeout: str, **fields: Any) -> str:
        """The function with all attacks of a language; its name."""
        language = "python" if language == "c" else language
        name = f"{language}-{timeout}" + "".join(f"-{value}" for value in fields.values())
        if name not in self._deployed:
            self._deploy(name, language, **{"reuse": "none", "timeout": timeout} | fields)
        return name

    def _deploy(self, name: str, language: str, **fields: Any) -> None:
        files = sources(language)
        if language == "python":
            files["program"] = (self._program.read_bytes(), True)
        self.deploy(name, package(files), runtime=language, handler=RUNTIMES[language], **fields)

    def deploy(self, name: str, code: bytes | str, **fields: Any) -> None:
        answer = self.node.deploy(name, code, **fields)
        assert answer.status == 201, answer
        self._deployed.add(name)

    def forget(self, name: str) -> None:
        """Take a function away; the next who is ready for it deploys it anew."""
        assert self.node.ask("DELETE", f"/functions/{name}").status == 200
        self._deployed.discard(name)

    def call(self, name: str, attack: str, **event: Any) -> Answer:
        return self.node.call(name, {"attack": attack, **event})

    def hello(self) -> Answer:
        """A call that harms nobody."""
        return self.call(self.ready("python", "10s"), "peace.hello")

    # What holds around an attack

    @contextmanager
    def watched(self, then: Callable[[], Answer], clean_s: float = CLEAN_S) -> Iterator[None]:
        """Whatever happens inside, it happens to nobody else, and `then`, the next call, is answered well."""
        self._settle()
        began, used = time.monotonic(), self.cpu_s()
        yield
        took, used = time.monotonic() - began, self.cpu_s() - used
        assert took < LONG_S or used / took < BUSY_SHARE, (
            f"the node was at work for {used:.1f} of {took:.1f} s"
        )
        after = then()
        assert after.status == 200, f"the next call: {after}"
        assert self.node.pid == self._pid
        self._check_neighbours(SLOWER if took > LONG_S else SLOWER_FOR_A_MOMENT)
        self._wait_as_before(self._before, clean_s)

    def _settle(self) -> None:
        for pulse in self._pulses:
            pulse.take()

    def _check_neighbours(self, slower: float) -> None:
        (work, wrong), (health, sick) = (pulse.take() for pulse in self._pulses)
        assert wrong + sick == []
        calm = max(statistics.median(self._calm), LEAST_S)
        for name, taken in (("a call at the same time", work), ("an answer of health", health)):
            if len(taken) > 3:
                times = statistics.median(taken) / calm
                assert times < slower * crowding(), (
                    f"{name} took {times:.1f} times as long as when all was calm"
                )

    def _wait_as_before(self, before: Counter[str] | None, clean_s: float) -> Counter[str]:
        """Until there is no more of the node on the machine than there was; fails if it is late."""
        began = time.monotonic()
        give_up = began + clean_s * crowding()
        while True:
            pool = self.node.ask("GET", "/stats").json["data"]["pool"]
            things = self._count()
            # As many as calls have lately needed at once: none of them was left by an attack.
            things["process"] -= PROCESSES_EACH * pool["spares"]
            busy = [state for state in AT_WORK if pool[state] > (state == "busy")]
            grown = things - (things if before is None else before)
            if not busy and not grown and (before is not None or time.monotonic() > began + CLEAN_S / 2):
                return things
            assert time.monotonic() < give_up, f"left: {dict(grown)}, {pool}\n{leaks.found(self._marks)}"
            threading.Event().wait(PAUSE_S)

    def cpu_s(self) -> float:
        """What the node itself has used of the processors; no child of it."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) * TICK_S

    def _count(self) -> Counter[str]:
        """How many processes, mounts, cgroups and files of the node there are."""
        return Counter(thing.split()[0] for thing in leaks.found(self._marks))


@contextmanager
def arena(sandbox: str, program: Path) -> Iterator[Arena]:
    with running(sandbox, **SETTINGS) as node, Arena(node, program, sandbox).open() as one:
        yield one
