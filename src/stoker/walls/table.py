"""The walls, each a name for what some of the probe's words say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import msgspec

from stoker.walls.inside.stoker_probe.words import OPEN

NOT_SEEN, ABSENT = "not seen", "absent"


class Wall(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    probes: tuple[str, ...]
    """Patterns of names of probes."""

    def words(self, seen: Mapping[str, str]) -> dict[str, str]:
        """The words of this wall's probes, in the order of the patterns."""
        return {
            name: word for pattern in self.probes for name, word in seen.items() if fnmatchcase(name, pattern)
        }

    def summary(self, seen: Mapping[str, str]) -> str:
        """One word where all probes say the same; else the most frequent, then who says otherwise."""
        words = self.words(seen)
        if not words:
            return NOT_SEEN
        if any(word != ABSENT and not is_open(word) for word in words.values()):
            # What this kernel does not have is as good as denied: the same word on every machine.
            words = {name: word for name, word in words.items() if word != ABSENT}
        (usual, _), *_ = Counter(words.values()).most_common(1)
        others: dict[str, list[str]] = {}
        for name, word in words.items():
            if word != usual:
                others.setdefault(word, []).append(name.split("/", 1)[1])
        return "; ".join([usual, *(f"{word}: {', '.join(names)}" for word, names in others.items())])


def is_open(word: str) -> bool:
    """Whether a probe's word says that there is no wall."""
    return word.startswith(OPEN)


def weaker(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[str]:
    """The probes that find no wall in `ours` where `theirs` have one."""
    for name, word in ours.items():
        if is_open(word) and name in theirs and not is_open(theirs[name]):
            yield name


def _calls(names: str) -> tuple[str, ...]:
    return tuple(f"call/{name}" for name in names.split())


WALLS = (
    Wall("namespaces", ("namespace/*",)),
    Wall("user", ("me/user",)),
    Wall("user as the machine knows it", ("me/user of the host",)),
    Wall("users there are", ("me/mapped users",)),
    Wall("groups", ("me/groups",)),
    Wall("capabilities", ("capabilities/*",)),
    Wall("securebits", ("privilege/securebits",)),
    Wall("no_new_privs", ("privilege/no_new_privs",)),
    Wall("seccomp filter", ("privilege/filter",)),
    Wall("becoming more", ("become/*",)),
    Wall(
        "calls: mounts and roots",
        _calls(
            "mount umount2 pivot_root chroot setns open_tree move_mount fsopen fsconfig fsmount fspick"
            " mount_setattr statmount listmount"
        ),
    ),
    Wall("calls: new namespaces", ("unshare/*", "clone/*")),
    Wall("call: clone3", _calls("clone3")),
    Wall(
        "calls: other processes' memory",
        _calls(
            "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp"
            " move_pages migrate_pages"
        ),
    ),
    Wall("calls: keyrings", _calls("keyctl add_key request_key")),
    Wall("calls: io_uring", _calls("io_uring_setup io_uring_enter io_uring_register")),
    Wall("calls: bpf, perf, userfaultfd", _calls("bpf perf_event_open userfaultfd")),
    Wall("calls: file handles", _calls("open_by_handle_at name_to_handle_at fanotify_init")),
    Wall(
        "calls: the machine",
        _calls(
            "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct"
            " quotactl quotactl_fd syslog settimeofday sethostname setdomainname iopl ioperm"
        ),
    ),
    Wall(
        "calls: rarely needed",
        _calls("personality modify_ldt mbind set_mempolicy memfd_secret lookup_dcookie sysfs"),
    ),
    Wall("calls of another architecture", ("foreign/*",)),
    Wall("sockets: AF_UNIX, AF_INET, AF_INET6", ("socket/AF_UNIX*", "socket/AF_INET*")),
    Wall("sockets: every other family", ("socket/AF_[!UI]*",)),
    Wall("sockets: raw", ("raw/*",)),
    Wall("terminal input", ("ioctl/*",)),
    Wall("processes of the machine", ("sight/processes",)),
    Wall("the first process", ("first/*",)),
    Wall("name of the machine", ("sight/host name",)),
    Wall("path of the cgroup", ("sight/cgroup path",)),
    Wall("/proc", ("files/proc",)),
    Wall("/proc: what tells of the machine", ("telling/*",)),
    Wall("/proc: what changes it", ("switch/*",)),
    Wall("/sys", ("sys/*",)),
    Wall("/dev", ("dev/list",)),
    Wall("/dev: devices", ("device/*",)),
    Wall("making devices", ("make/*",)),
    Wall("secrets of the machine", ("secret/*",)),
    Wall("can be written", ("files/writable",)),
    Wall("mounts: nosuid, nodev", ("mounts/*",)),
    Wall("scratch: bytes", ("bytes/*",)),
    Wall("scratch: number of files", ("files of/*",)),
    Wall("resource limits", ("limit/*",)),
    Wall("descriptors 0 to 4", ("open/[0-4]",)),
    Wall("more descriptors", ("open/more",)),
    Wall("environment", ("environment/*",)),
    Wall("session", ("session/session",)),
    Wall("terminal", ("session/terminal",)),
    Wall("signals ignored or blocked", ("session/signals",)),
    Wall("network interfaces", ("network/interfaces",)),
    Wall("ways out", ("route/*",)),
    Wall("the machine's loopback", ("host/*",)),
    Wall("abstract sockets of others", ("ipc/abstract socket",)),
    Wall("shared memory and queues of others", ("ipc/[!a]*",)),
    Wall("files of others in scratch", ("trace/*",)),
    Wall("locks on shared files", ("lock/*",)),
)
