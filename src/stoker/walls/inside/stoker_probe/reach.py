"""What one can leave for another to find, and whether it is found: sockets, memory, queues, locks, files.

`Traces` are what a process of the host, or of another sandbox, leaves; the probes look for them.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys

from .kernel import ask, machine
from .sight import NAMESPACES, host_uid
from .words import name_of, word_of, word_of_error

if False:  # TYPE_CHECKING without importing `typing`
    from typing import Any, Dict, List, Tuple

    Question = List[Dict[str, Any]]

SHMGET, MSGGET, SEMGET = (29, 194), (68, 186), (64, 190)
SHMCTL, MSGCTL, SEMCTL = (31, 195), (71, 187), (66, 191)
MQ_OPEN, MQ_UNLINK = (240, 180), (241, 181)
IPC_CREAT, IPC_RMID, MODE = 0o1000, 0, 0o666
KINDS = {"shared memory": SHMGET, "message queue": MSGGET, "semaphores": SEMGET}
OUTSIDE, METADATA = "192.0.2.1", "169.254.169.254"  # nobody's address, kept for examples; clouds' own
ADDRESSES = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1"),
    "::1": (socket.AF_INET6, "::1"),
    "::ffff:127.0.0.1": (socket.AF_INET6, "::ffff:127.0.0.1"),
}
ROUTES = {
    "the internet": (socket.AF_INET, OUTSIDE),
    "the internet by IPv6": (socket.AF_INET6, "2001:db8::1"),
    "metadata": (socket.AF_INET, METADATA),
    "a private range": (socket.AF_INET, "10.255.255.1"),
}
PATIENCE_S = 2.0


class Traces:
    """What one process leaves behind for others to find, until `clear`."""

    def __init__(self, key: int) -> None:
        self.key = key
        self._column = machine()
        self._held: List[Any] = []

    def leave(self) -> Dict[str, Any]:
        """Leave whatever can be left here; what others have to know to look for it."""
        facts = {"key": self.key, "port": self._listen(), "lock": self._lock()}
        facts["files"] = [path for path in files(self.key) if written(path)]
        self._name()
        self._leave_ipc()
        return facts

    def clear(self) -> None:
        for held in self._held:
            held.close()
        self._held = []
        remove(self.key)

    def _listen(self) -> int:
        """On every address there is, so that whoever shares the network finds it."""
        listener = socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET)
        self._held.append(listener)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        return port

    def _name(self) -> None:
        named = socket.socket(socket.AF_UNIX)
        named.bind(abstract(self.key))
        named.listen()
        self._held.append(named)

    def _lock(self) -> str:
        """A lock on a file that others see too: the interpreter's."""
        path = os.path.realpath(sys.executable)
        try:
            file = open(path, "rb")  # noqa: SIM115 - kept open for the lock
            self._held.append(file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ""
        return path

    def _leave_ipc(self) -> None:
        if self._column < 0:
            return
        size, create = 4096, IPC_CREAT | MODE
        ask(SHMGET[self._column], self.key, size, create)
        ask(MSGGET[self._column], self.key, create)
        ask(SEMGET[self._column], self.key, 1, create)
        result, _ = ask(MQ_OPEN[self._column], queue(self.key), os.O_CREAT | os.O_RDWR, MODE, 0)
        if result >= 0:
            os.close(result)


def remove(key: int) -> None:
    """Take away what was left by this key, also by somebody who ended before he could."""
    for path in files(key):
        try:
            os.unlink(path)
        except OSError:
            continue
    column = machine()
    if column < 0:
        return
    for get, control, rest in ((SHMGET, SHMCTL, [0, 0]), (MSGGET, MSGCTL, [0]), (SEMGET, SEMCTL, [0, 0])):
        identity, _ = ask(get[column], key, *rest)
        if identity >= 0:
            ask(control[column], identity, *([0, IPC_RMID] if control is SEMCTL else [IPC_RMID, 0]), 0)
    ask(MQ_UNLINK[column], queue(key))


def files(key: int) -> List[str]:
    """Where the file of that key is left: wherever everybody may write."""
    folders = {"/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp")}
    return sorted(os.path.join(folder, "stoker-trace-%d" % key) for folder in folders)


def written(path: str) -> bool:
    """Whether a file could be made there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    except OSError:
        return False
    return True


def abstract(key: int) -> bytes:
    return b"\0stoker-trace-%d" % key


def queue(key: int) -> bytes:
    return b"stoker-trace-%d\0" % key


def describe() -> Dict[str, Any]:
    """What a process can tell of itself, for others to compare with."""
    with open("/proc/self/stat") as file:
        begun = file.read().rsplit(")", 1)[1].split()[19]
    namespaces = {}
    for name in NAMESPACES:
        if os.path.exists("/proc/self/ns/" + name):
            namespaces[name] = os.readlink("/proc/self/ns/" + name)
    return {
        "namespaces": namespaces,
        "uid": host_uid(os.getuid()),
        "pid": os.getpid(),
        "begun": begun,
        "session": os.getsid(0),
        "hostname": os.uname().nodename,
    }


# The looks


def worst(words: List[str]) -> str:
    """Of several attempts the one that tells most."""
    for word in words:
        if word.startswith(("allowed", "shared")):
            return word
    return words[0] if words else "absent"


def connect(question: Question, name: str) -> str:
    family, address = ADDRESSES[name]
    return worst([connect_to(family, (address, stranger["port"])) for stranger in question])


def connect_to(family: int, address: Tuple[str, int]) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect(address)
    except OSError as error:
        return "denied " + name_of(error.errno or 0) if error.errno else "denied by silence"
    return "allowed"


def route(question: Question, name: str) -> str:
    """Whether there is a way; a datagram socket that is connected sends nothing."""
    family, address = ROUTES[name]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((address, 9))
    except OSError as error:
        return "denied " + name_of(error.errno or 0)
    return "allowed"


def see_interfaces(question: Question) -> str:
    with open("/proc/self/net/dev") as file:
        names = sorted(line.split(":")[0].strip() for line in file.readlines()[2:])
    return "only lo" if names == ["lo"] else "allowed: " + (", ".join(names) or "none")


def find_name(question: Question) -> str:
    words = []
    for stranger in question:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(abstract(stranger["key"]))
            words.append("shared")
        except OSError as error:
            words.append("absent" if error.errno in (111, 2) else word_of_error(error))
    return worst(words)


def find_ipc(question: Question, kind: str) -> str:
    words = []
    for stranger in question:
        result, error = ask(KINDS[kind][machine()], stranger["key"], 0, 0)
        words.append("shared" if result >= 0 else "absent" if error == 2 else word_of(error))
    return worst(words)


def find_queue(question: Question) -> str:
    words = []
    for stranger in question:
        result, error = ask(MQ_OPEN[machine()], queue(stranger["key"]), os.O_RDONLY, 0, 0)
        words.append("shared" if result >= 0 else "absent" if error == 2 else word_of(error))
    return worst(words)


def find_file(question: Question) -> str:
    paths = [path for stranger in question for path in stranger["files"]]
    return "shared" if any(os.path.exists(path) for path in paths) else "absent"


def find_secret(question: Question, path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return word_of_error(error)
    return "allowed"


def find_lock(question: Question) -> str:
    """Whether somebody else's lock on a file that all can read is felt."""
    for path in {stranger["lock"] for stranger in question if stranger["lock"]}:
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "shared"
        except OSError as error:
            return word_of_error(error)
    return "own"


def lease(question: Question) -> str:
    try:
        with open(os.path.realpath(sys.executable), "rb") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return word_of_error(error)
    return "allowed"


def probes() -> Dict[str, Tuple[Any, ...]]:
    """Name: what to call with the question, for its word."""
    found: Dict[str, Tuple[Any, ...]] = {
        "network/interfaces": (see_interfaces,),
        "ipc/abstract socket": (find_name,),
        "trace/file in /tmp or /dev/shm": (find_file,),
        "lock/flock": (find_lock,),
        "lock/lease": (lease,),
    }
    found.update(("host/" + name, (connect, name)) for name in ADDRESSES)
    found.update(("route/" + name, (route, name)) for name in ROUTES)
    found.update(("secret/" + path, (find_secret, path)) for path in ("/etc/shadow", "/root"))
    if machine() >= 0:
        found.update(("ipc/" + kind, (find_ipc, kind)) for kind in KINDS)
        found["ipc/POSIX queue"] = (find_queue,)
    return found
