"""What a process sees of itself and of the machine: who it is, its files, its limits.

Each probe takes the strangers of a question (see `looking`), the node's process first, and answers a word.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from .words import word_of_error

if False:  # TYPE_CHECKING without importing `typing`
    from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

    Question = List[Dict[str, Any]]

PR_GET_NO_NEW_PRIVS, PR_GET_SECUREBITS = 39, 27
NOROOT_AND_LOCKED = 0b11
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
ALL_IDS = 4294967295
TELLING = (
    "acpi asound interrupts iomem ioports kallsyms kcore key-users keys kmsg kpagecount kpageflags"
    " latency_stats sched_debug scsi slabinfo softirqs sysvipc/shm timer_list timer_stats vmallocinfo"
).split()
SWITCHES = (
    "sys/kernel/core_pattern sys/kernel/hostname sys/kernel/modprobe sys/net/ipv4/ip_forward"
    " sys/vm/drop_caches sysrq-trigger irq/default_smp_affinity self/oom_score_adj"
).split()
ADDRESSES = ("iomem", "ioports", "kallsyms")  # to who may not see them the kernel shows zeros
DEVICES = frozenset("fd full null random shm stderr stdin stdout urandom zero".split())
DANGEROUS = "fuse kmsg kvm loop-control mem net/tun port vsock".split()
PLACES = "/ /app /bin /build /dev /etc /home /lib /opt /proc /run /sys /usr /var /var/lib /var/tmp".split()
SCRATCH = ("/tmp", "/dev/shm")
LAST_FD = 4  # the pipe of permits
LIMITS = {
    "core": resource.RLIMIT_CORE,
    "nofile": resource.RLIMIT_NOFILE,
    "fsize": resource.RLIMIT_FSIZE,
    "nproc": resource.RLIMIT_NPROC,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "rtprio": resource.RLIMIT_RTPRIO,
    "nice": resource.RLIMIT_NICE,
}


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def status(field: str) -> str:
    for line in read("/proc/self/status").splitlines():
        if line.startswith(field + ":"):
            return line.split(":", 1)[1].strip()
    return ""


def attempt(action: Callable[..., Any], *arguments: Any) -> str:
    """`allowed`, or with which error it was denied."""
    try:
        action(*arguments)
    except OSError as error:
        return word_of_error(error)
    except ValueError:  # what `setrlimit` makes of EPERM
        return "denied EPERM"
    return "allowed"


# Who am I


def see_namespace(question: Question, name: str) -> str:
    try:
        mine = os.readlink("/proc/self/ns/" + name)
    except OSError:
        return "absent"
    return "shared" if mine in [stranger["namespaces"].get(name) for stranger in question] else "own"


def host_uid(uid: int) -> int:
    """The number by which the machine knows this user."""
    for line in read("/proc/self/uid_map").splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return -1


def see_user(question: Question) -> str:
    return {0: "root", 65534: "nobody"}.get(os.getuid(), "a number without a name")


def see_host_user(question: Question) -> str:
    mine = host_uid(os.getuid())
    strangers = [0] + [stranger["uid"] for stranger in question]
    return "shared" if mine in strangers else "own"


def see_mapped_users(question: Question) -> str:
    counts = [int(line.split()[2]) for line in read("/proc/self/uid_map").splitlines()]
    return "allowed: all" if sum(counts) >= ALL_IDS else "one" if sum(counts) == 1 else str(sum(counts))


def see_groups(question: Question) -> str:
    return "kept: %d" % len(os.getgroups()) if os.getgroups() else "none"


def see_capabilities(question: Question, name: str) -> str:
    count = bin(int(status("Cap" + name), 16)).count("1")
    return "allowed: %d" % count if count else "none"


def see_securebits(question: Question) -> str:
    bits = ctypes.CDLL(None).prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
    return "locked" if bits & NOROOT_AND_LOCKED == NOROOT_AND_LOCKED else "allowed: root is root"


def see_no_new_privileges(question: Question) -> str:
    return "set" if ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 else "allowed: not set"


def see_filter(question: Question) -> str:
    return "on" if status("Seccomp") == "2" else "allowed: none"


def become(question: Question, action: Callable[..., Any], arguments: Tuple[Any, ...]) -> str:
    return "denied" if attempt(action, *arguments) != "allowed" else "allowed"


def see_session(question: Question) -> str:
    """A session that was begun outside is number 0 in a pid namespace, or somebody's who looks on."""
    strangers = [stranger["session"] for stranger in question if see_namespace([stranger], "pid") == "shared"]
    return "shared" if os.getsid(0) in [0, *strangers] else "own"


def see_terminal(question: Question) -> str:
    return "none" if attempt(os.open, "/dev/tty", os.O_RDWR) != "allowed" else "allowed"


def see_hostname(question: Question) -> str:
    return "shared" if os.uname().nodename == question[0]["hostname"] else "own"  # the first is no sandbox


def see_cgroup(question: Question) -> str:
    paths = [line.split(":", 2)[2] for line in read("/proc/self/cgroup").splitlines()]
    return "hidden" if all(path == "/" for path in paths) else "readable"


def see_signals(question: Question) -> str:
    """Nothing may be ignored or blocked that a program does not expect to be."""
    ignored = int(status("SigIgn"), 16) & ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    return "kept: ignored or blocked" if ignored or int(status("SigBlk"), 16) else "none"


# What is open


def list_open() -> Dict[int, str]:
    """What is open, but for the descriptor that the list is read by."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name).split(":")[0]
        except OSError:
            pass
    return found


def see_descriptor(question: Question, opened: Dict[int, str], number: int) -> str:
    return opened.get(number, "closed")


def see_more_descriptors(question: Question, opened: Dict[int, str]) -> str:
    more = [str(number) for number in opened if number > LAST_FD]
    return "allowed: " + ", ".join(more) if more else "none"


def see_environment(question: Question, given: Set[str]) -> str:
    more = sorted(name for name in os.environ if name not in given)
    return "what was given, and " + ", ".join(more) if more else "what was given"


# Files


def mounts() -> Iterator[Tuple[str, List[str], str, List[str]]]:
    """Mount point, options, kind, options of the file system."""
    for line in read("/proc/self/mountinfo").splitlines():
        words = line.split()
        rest = words[words.index("-") + 1 :]
        yield words[4], words[5].split(","), rest[0], rest[2].split(",")


def see_proc_mount(question: Question) -> str:
    found = [options for place, options, _, _ in mounts() if place == "/proc"]
    wanted = [name for name in ("ro", "nosuid", "nodev", "noexec") if found and name in found[-1]]
    return ",".join(wanted) if "ro" in wanted else "allowed: " + ",".join(["rw", *wanted])


def see_mounts(question: Question, option: str, but: Tuple[str, ...]) -> str:
    """Whether every mount has an option, except for those that begin so."""
    bare = [place for place, options, _, _ in mounts() if option not in options and not place.startswith(but)]
    return "allowed: without on " + str(len(bare)) if bare else "on all"


def see_telling(question: Question, name: str) -> str:
    try:
        with open("/proc/" + name, "rb") as file:
            if name == "kmsg":  # what is read of it is lost for whoever keeps the kernel's log
                return "readable"
            line = file.readline()
    except OSError:
        return "hidden"
    shown = line.split()[0].strip(b"0-") if line and name in ADDRESSES else line
    return "readable" if shown else "hidden"


def write_switch(question: Question, name: str) -> str:
    """Opened, never written."""
    return attempt(os.open, "/proc/" + name, os.O_WRONLY)


def see_processes(question: Question) -> str:
    """Whether the node's process, known by its number and its beginning, can be seen."""
    for stranger in question[:1]:
        try:
            begun = read("/proc/%d/stat" % stranger["pid"]).rsplit(")", 1)[1].split()[19]
        except OSError:
            continue
        if begun == stranger["begun"]:
            return "shared"
    return "hidden"


def see_first_process(question: Question, name: str) -> str:
    path = "/proc/1/" + name
    looks: Dict[str, Callable[..., Any]] = {"fd": os.listdir, "fd/0": os.readlink}
    return attempt(looks.get(name, read_byte), path)


def read_byte(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        file.read(1)


def see_sys(question: Question) -> str:
    try:
        if not os.listdir("/sys"):
            return "absent"
    except OSError:
        return "absent"
    return "allowed: writable" if os.access("/sys/kernel/uevent_helper", os.W_OK) else "readable"


def see_cgroup_files(question: Question, name: str) -> str:
    places = [place for place, _, kind, _ in mounts() if kind in ("cgroup", "cgroup2")]
    words = [attempt(os.open, os.path.join(place, name), os.O_WRONLY) for place in places]
    return "allowed" if "allowed" in words else "absent" if not words or "absent" in words else words[0]


def see_devices(question: Question) -> str:
    more = sorted(set(os.listdir("/dev")) - DEVICES)
    return "more: " + ", ".join(more[:5]) + (", …" if len(more) > 5 else "") if more else "only harmless ones"


def open_device(question: Question, name: str) -> str:
    return attempt(os.open, "/dev/" + name, os.O_RDONLY | os.O_NONBLOCK)


def make_device(question: Question, kind: int, major: int, minor: int) -> str:
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "stoker-device")
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
    except OSError as error:
        return word_of_error(error)
    try:
        return "allowed" if attempt(os.open, path, os.O_RDONLY) == "allowed" else "allowed: not to be opened"
    finally:
        os.unlink(path)


def see_writable(question: Question) -> str:
    mounted = [place for place, _, kind, _ in mounts() if kind != "proc"]
    places = sorted({os.path.realpath(place) for place in (*PLACES, *SCRATCH, *mounted)})
    found = [place for place in places if os.path.isdir(place) and os.access(place, os.W_OK)]
    strange = [place for place in found if place not in SCRATCH]
    if strange:
        return "allowed: " + ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
    return "only " + " and ".join(place for place in SCRATCH if place in found)


def see_room(question: Question, place: str, of_files: bool) -> str:
    """Whether a file system of its own bounds what is written there."""
    owned = [kind for mounted, _, kind, _ in mounts() if mounted == place]
    if "tmpfs" not in owned:
        return "shared"
    size = os.statvfs(place)
    with_bytes, with_files = size.f_blocks * size.f_frsize, size.f_files
    bounded = 0 < with_files <= 1 << 18 if of_files else 0 < with_bytes <= 1 << 30
    return "bounded" if bounded else "unlimited"


def see_limit(question: Question, kind: int) -> str:
    hard = resource.getrlimit(kind)[1]
    return "unlimited" if hard == resource.RLIM_INFINITY else "bounded" if hard else "0"


def probes(given: Set[str], opened: Dict[int, str]) -> Dict[str, Tuple[Any, ...]]:
    """Name: what to call with the strangers, for its word; `opened` are descriptors, at the beginning."""
    found: Dict[str, Tuple[Any, ...]] = {
        "me/user": (see_user,),
        "me/user of the host": (see_host_user,),
        "me/mapped users": (see_mapped_users,),
        "me/groups": (see_groups,),
        "privilege/securebits": (see_securebits,),
        "privilege/no_new_privs": (see_no_new_privileges,),
        "privilege/filter": (see_filter,),
        "become/setuid(0)": (become, os.setresuid, (0, 0, 0)),
        "become/setgid(0)": (become, os.setresgid, (0, 0, 0)),
        "become/setgroups": (become, os.setgroups, ([1],)),
        "become/raise a limit": (become, resource.setrlimit, (resource.RLIMIT_RTPRIO, (1, 1))),
        "become/real time": (become, os.sched_setscheduler, (0, os.SCHED_FIFO, os.sched_param(1))),
        "become/nice -5": (become, os.setpriority, (os.PRIO_PROCESS, 0, -5)),
        "session/session": (see_session,),
        "session/terminal": (see_terminal,),
        "session/signals": (see_signals,),
        "sight/host name": (see_hostname,),
        "sight/processes": (see_processes,),
        "sight/cgroup path": (see_cgroup,),
        "files/writable": (see_writable,),
        "files/proc": (see_proc_mount,),
        "mounts/nosuid": (see_mounts, "nosuid", ("/proc/",)),
        "mounts/nodev": (see_mounts, "nodev", ("/dev", "/proc/")),
        "sys/sys": (see_sys,),
        "sys/release_agent": (see_cgroup_files, "release_agent"),
        "sys/cgroup.procs": (see_cgroup_files, "cgroup.procs"),
        "dev/list": (see_devices,),
        "make/character device": (make_device, 0o020000, 1, 3),
        "make/block device": (make_device, 0o060000, 7, 0),
        "open/more": (see_more_descriptors, opened),
        "environment/names": (see_environment, given),
    }
    found.update(("namespace/" + name, (see_namespace, name)) for name in NAMESPACES)
    found.update(("capabilities/" + name, (see_capabilities, name)) for name in "Inh Prm Eff Bnd Amb".split())
    found.update(("telling/" + name, (see_telling, name)) for name in TELLING)
    found.update(("switch/" + name, (write_switch, name)) for name in SWITCHES)
    found.update(("first/" + name, (see_first_process, name)) for name in "mem environ fd fd/0 maps".split())
    found.update(("device/" + name, (open_device, name)) for name in DANGEROUS)
    found.update(("bytes/" + place, (see_room, place, False)) for place in SCRATCH)
    found.update(("files of/" + place, (see_room, place, True)) for place in SCRATCH)
    found.update(("limit/" + name, (see_limit, kind)) for name, kind in LIMITS.items())
    found.update(("open/%d" % number, (see_descriptor, opened, number)) for number in range(LAST_FD + 1))
    return found
