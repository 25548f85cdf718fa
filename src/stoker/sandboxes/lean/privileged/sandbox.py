"""One sandbox as the helper holds it: what it was given, and how all of that comes back.

Made in two halves. `make` gives it a user id, a cgroup, a network and its descriptors, and says what
to order from the zygote; `assign`, once its first process is there, moves in what belongs to one
function, and `release` lets its program start. One that is released with nothing assigned is a spare
(see `spares`) until `become` makes it some function's; that may be as soon as it has a process.
"""

from __future__ import annotations

import errno
import heapq
import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from stoker.linux.cgroups import Bounds, Group, Groups
from stoker.linux.family import spent
from stoker.linux.gauges import Counts, Gauges
from stoker.linux.mounts import READ_ONLY, SAFE, MountNamespace, try_map_users
from stoker.linux.network import Networks, read_traffic
from stoker.linux.permits import make_permits
from stoker.linux.places import Place, Places
from stoker.linux.processes import kill, user_of
from stoker.linux.users import User, UserNamespaces, make_user_namespace
from stoker.sandboxes.lean.packets import (
    AGAIN,
    EGRESS,
    FAILED,
    GO,
    HAS_CODE,
    HAS_WORKSPACE,
    HOST_NETWORK,
    MAX_TEXT,
    MOUNTED,
    NOT_COUNTED,
    RUNNING,
    STATUS,
    TROUBLE,
    WAIT_STATUS,
    Fork,
    Make,
    pack,
    receive,
)

if TYPE_CHECKING:
    from stoker.sandboxes.lean.egress.network import Connection
    from stoker.sandboxes.lean.egress.way import Way

READY_USERS = 64  # as many as there are spares of a kind at most
OUR_PROCESSES = 1  # the first process of each sandbox is not the function's


class Slots:
    """Small numbers, each in the hands of one sandbox: the lowest that is free."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._next = 0
        self._returned: list[int] = []

    def take(self) -> int:
        """Raises `OSError` when there is none."""
        if self._returned:
            return heapq.heappop(self._returned)
        if self._next == self._number:
            raise OSError(errno.EAGAIN, f"all {self._number} user ids for sandboxes are taken")
        self._next += 1
        return self._next - 1

    def give_back(self, slot: int) -> None:
        heapq.heappush(self._returned, slot)


class Means(NamedTuple):
    """What sandboxes are made of."""

    groups: Groups
    places: Places
    networks: Networks
    mounts: MountNamespace
    node: int
    """The node's pidfd: the folders it gives are mounted where it is, which need not be where we are."""
    users: UserNamespaces
    slots: Slots
    uid_base: int
    """The first of the users that sandboxes are outside, one each; 0: they are all root of our namespace."""
    bounds_processes: bool
    """The kernel counts the processes of a user in each of his namespaces for itself."""
    way: Way
    code_path: str
    workspace_path: str

    def user_of(self, slot: int) -> User:
        """Whom the sandbox with that number is outside."""
        return User(self.uid_base + slot, self.uid_base + slot) if self.uid_base else User(0, 0)

    def make_ready(self) -> bool:
        """Make one user namespace that the next sandboxes will want; whether there may be more to do.

        Each takes some milliseconds once: in a burst, one after the other, that is longer than all the rest.
        """
        slot = len(self.users)
        try:
            if slot < READY_USERS:
                self.users.of(self.user_of(slot), slot)
        except OSError:
            return False  # whoever needs it is told
        return slot < READY_USERS


class Sandbox:
    """One, from the order to make it to its end."""

    def __init__(self, number: int, order: Make, sources: list[int], means: Means) -> None:
        self.number = number
        self.pid = 0
        self.pidfd = -1
        self.begun_at = time.monotonic()
        self.is_mounted = False
        """Its root stands: what belongs to a function can be moved in."""
        self.is_running = False
        """Its walls are up and its program is being started."""
        self.greeting = -1
        """Its channel, while its program's first word is waited for."""
        self.kind = -1
        """Of which kind of spares it is, or was; negative: of none."""
        self.lineage = 0
        """Which zygote it was forked from."""
        self.is_told = False
        """The node knows it as made."""
        self.is_destroyed = False
        self.trouble = ""
        self.may_succeed = False
        """Should it be asked for again: what was to fork it has ended."""
        self.status = -1
        """The wait status of its program, when that is known."""
        self.oom_kills = 0
        """Of its processes we have ended that many for memory."""
        self.cpu_ns = self.peak_bytes = 0
        """As they were when it was last looked at."""
        self.private: socket.socket | None = None
        self._ends: list[int] = []
        self.order = order
        self.group_name = order.name
        self._sources = sources
        self._means = means
        self._trees: list[tuple[int, str]] = []
        self._group: Group | None = None
        self._place: Place | None = None
        self.gauges: Gauges | None = None
        """The counters of its cgroup, opened once for the node and for us."""
        self._slot = self._network = -1
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        state = "running" if self.is_running else "starting" if self.pid else "ordered"
        return f"<Sandbox {self.number} {self.group_name!r} {state}, pid {self.pid}>"

    def make(self) -> tuple[Fork, tuple[int, ...]]:
        """Get everything; what to order, with descriptors that are the order's. After `OSError`: `clear`."""
        given: list[int] = []
        try:
            return self._take(given), tuple(given)
        except OSError:
            while given:
                os.close(given.pop())
            raise

    def _take(self, given: list[int]) -> Fork:
        """What to order; each descriptor is in `given` as soon as there is it."""
        means, order = self._means, self.order
        self._slot = means.slots.take()
        user = means.user_of(self._slot)
        owner = self._find_owner() or user
        self._take_sources()
        is_alone = owner == user or self._has_mapped(owner, user)
        namespace = means.users.of(user if is_alone else owner, self._slot)
        group = self._make_group()
        self._open_ends(given)
        self._network = -1 if order.flags & HOST_NETWORK else means.networks.take()
        given.append(os.dup(means.networks.host if self._network < 0 else self._network))
        given.append(os.dup(namespace))
        given += map(os.dup, self._place.joining if self._place is not None else ())
        given += group.joining()
        if order.flags & EGRESS:
            self._connection = means.way.connect(self._network)
        return Fork(
            order.scratch_bytes,
            order.scratch_inodes,
            order.scratch_bytes,
            self._most_processes() if is_alone and means.bounds_processes else 0,
            group.is_version_2,
            self._network < 0,
        )

    def _find_owner(self) -> User | None:
        """Whose the workspace is, if there is one: what a build leaves belongs to him.

        HOLDS: it is the node's, for who works there writes as its owner would.
        """
        if not self.order.flags & HAS_WORKSPACE:
            return None
        status, node = os.fstat(self._sources[-1]), user_of(self._means.node)
        if node not in (0, status.st_uid):
            raise OSError(errno.EPERM, f"a workspace of user {status.st_uid}, but the node is user {node}")
        return User(status.st_uid, status.st_gid)

    def _has_mapped(self, owner: User, user: User) -> bool:
        """Have `user` work in the workspace as if he were its owner, where the file system allows that."""
        users = make_user_namespace(owner, user)
        try:
            is_mapped = try_map_users(self._trees[-1][0], users)
        finally:
            os.close(users)
        if not is_mapped and owner.uid == 0:
            raise OSError(
                errno.EPERM, "a build would be root: its folder is root's, on a file system without idmap"
            )
        return is_mapped

    def _take_sources(self) -> None:
        """Detached copies of the folders, from the descriptors: no name of theirs is ever looked up here."""
        flags = self.order.flags
        wanted = [(self._means.code_path, READ_ONLY)] if flags & HAS_CODE else []
        wanted += [(self._means.workspace_path, SAFE)] if flags & HAS_WORKSPACE else []
        for (target, attributes), source in zip(wanted, self._sources, strict=True):
            copy = self._means.mounts.copy_of(self._means.node, source, attributes)
            self._trees.append((copy, target))
        self._close_sources()

    def _make_group(self) -> Group:
        self._place = self._means.places.take()
        group = self._means.places.others(self.group_name.decode())
        group.make()
        self._group = group
        self.gauges = group.gauges(self._place.gauges)
        self._bound(self._place, group)
        return group

    def _bound(self, *groups: Group | Place | None) -> None:
        for group in groups:
            if group is not None:
                group.bound(self._bounds())

    def _most_processes(self) -> int:
        """Of its user id: one more than its cgroup takes, so that the one that counts refuses first."""
        is_counted = "pids" in self._means.groups.controllers
        return self.order.pids + OUR_PROCESSES + is_counted

    def _bounds(self) -> Bounds:
        return Bounds(self.order.memory_bytes, self.order.pids + OUR_PROCESSES, self.order.millicpus)

    def _open_ends(self, given: list[int]) -> None:
        """Make the channel, both outputs, permits and the private socket."""
        ours, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._share(ours.detach(), channel.detach(), given)
        for _ in ("stdout", "stderr"):
            self._share(*os.pipe(), given)
        self._share(*make_permits(), given)
        for end in self._ends:
            os.set_blocking(end, False)
        self.private, private = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given.append(private.detach())
        self.private.setblocking(False)

    def _share(self, ours: int, inside: int, given: list[int]) -> None:
        self._ends.append(ours)
        given.append(inside)

    def assign(self) -> None:
        """Move in the function's folders. HOLDS: its root stands, and no stranger's code has run in it."""
        if self._trees:
            self._means.mounts.attach_in(self.pidfd, self._trees)
            self._close_trees()

    def become(self, number: int, order: Make, sources: list[int]) -> None:
        """From a spare to what was ordered; after `OSError` `end` it. HOLDS: no stranger's code ran in it."""
        bounds = self._bounds()
        self.number, self.order, self._sources = number, order, sources
        self._take_sources()
        if self._bounds() != bounds:
            self._bound(self._place, self._group)
        if self.is_mounted:
            self.assign()
            self.admit()
            self.open()

    def admit(self) -> None:
        """Its network becomes the function's. A spare's is nobody's yet, and its names are not answered."""
        if self._connection is not None:
            self._means.way.narrow(self._connection, self.order.egress)

    def open(self) -> None:
        """Say the node's first words for it: the program inside need not wait until the node hears of it.

        HOLDS: the code they speak of is there. There is room: nothing has been said, and they are few.
        """
        try:
            os.write(self._ends[0], self.order.opening)
        except BrokenPipeError:
            pass  # it has ended, as its end will say

    @property
    def channel(self) -> int:
        """The node's end, as long as it has not been given away."""
        return self._ends[0]

    def release(self) -> None:
        assert self.private is not None
        try:
            self.private.send(GO)
        except BrokenPipeError:
            pass  # it has said, or its end will say, what went wrong

    def give_ends(self) -> tuple[int, ...]:
        """The node's descriptors; the caller closes them."""
        ends, self._ends = tuple(self._ends), []
        if self._connection is not None and ends:
            ends += (os.dup(self._means.networks.counters_of(self._network)),)
        return ends

    def hear(self) -> bytes | None:
        """The next word of its first process; empty at the end, None when it is silent.

        What may not be said, or not now, is the end of all hearing. The scratch space that comes with
        RUNNING is the last of the node's descriptors.
        """
        assert self.private is not None
        try:
            said, descriptors = receive(self.private)
        except BlockingIOError:
            return None
        if self._may_say(said, len(descriptors)):
            self._ends += descriptors
            return said
        for descriptor in descriptors:
            os.close(descriptor)
        return b""

    def _may_say(self, said: bytes, descriptors: int) -> bool:
        """MOUNTED, then RUNNING with one descriptor; TROUBLE before that, a STATUS after it; none twice."""
        kind, rest = said[:1], said[1:]
        if kind == MOUNTED:
            return descriptors == 0 and not (rest or self.is_mounted or self.trouble)
        if kind == RUNNING:
            return descriptors == 1 and self.is_mounted and not (rest or self.is_running or self.trouble)
        if kind == TROUBLE:
            return descriptors == 0 and bool(rest) and not (self.is_running or self.trouble)
        if kind == STATUS and len(rest) == WAIT_STATUS.size:
            return descriptors == 0 and self.is_running and self.status < 0 <= WAIT_STATUS.unpack(rest)[0]
        return False

    def look_at_use(self) -> None:
        """What it has used while its processes can be asked: those killed with the first are not counted."""
        cpu_s, self.peak_bytes = spent(self.pid) if self.pid else (0.0, 0)
        self.cpu_ns = int(cpu_s * 1e9)

    def destroy(self) -> None:
        """End it because that is wanted."""
        self.is_destroyed = True
        self.end()

    def end(self) -> None:
        """Have everything in it ended; that it has is told by its pidfd."""
        if self.pidfd >= 0:
            kill(self.pidfd)

    def failure(self) -> bytes:
        """What the node is told of one that it never knew as made."""
        text = self.trouble or f"its first process ended with wait status {self.status}"
        return pack(AGAIN if self.may_succeed else FAILED, self.number, text.encode()[:MAX_TEXT])

    def counts(self) -> Counts:
        return Counts() if self.gauges is None else self.gauges.counts()

    def carried(self) -> tuple[int, int]:
        """Bytes in and out of its network, where it has one that leads out."""
        if self._connection is None:
            return NOT_COUNTED, NOT_COUNTED
        return read_traffic(self._means.networks.counters_of(self._network))

    def clear(self) -> None:
        """Give everything back. HOLDS: no process of it is left, or none ever was."""
        self._close_sources()
        self._close_trees()
        for descriptor in self.give_ends():
            os.close(descriptor)
        if self.private is not None:
            self.private.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        if self.gauges is not None:
            self.gauges.close()
        if self._group is not None:
            self._group.remove()
        if self._place is not None:
            # The node reads the counters until it has asked for the end.
            self._means.places.give_back(self._place, self.is_told and not self.is_destroyed)
        if self._connection is not None:
            self._means.way.disconnect(self._connection)
            self._means.networks.drop(self._network)
        elif self._network >= 0:
            self._means.networks.give_back(self._network)
        if self._slot >= 0:
            self._means.slots.give_back(self._slot)
        self._group, self._place, self.gauges = None, None, None
        self._network, self._slot, self.pidfd = -1, -1, -1
        self._connection = None

    def _close_sources(self) -> None:
        while self._sources:
            os.close(self._sources.pop())

    def _close_trees(self) -> None:
        while self._trees:
            os.close(self._trees.pop()[0])
