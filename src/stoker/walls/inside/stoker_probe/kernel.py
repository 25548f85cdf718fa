"""Which system calls are answered: each by its number, with arguments that do no harm where it is allowed.

A call that is permitted ends here in some other error than a refusal (a null pointer, a descriptor that
is none), or in something that ends with the process that tried it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys

from .words import REFUSALS, UNKNOWN, name_of, word_of

if False:  # TYPE_CHECKING without importing `typing`
    from typing import Any, Dict, Tuple

MACHINES = ("x86_64", "aarch64")
ROOT, HERE, NOTHING = b"/\0", b".\0", b"none\0"
NO_FILE = -1
ATTR = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)  # software clock of this process
HANDLE = (128).to_bytes(4, "little") + bytes(132)
READ_ALL, ATTACH, GET_KEYRING, SESSION = 3, 16, 0, -3

# Name: (number on x86_64, on aarch64, arguments). None: that machine has no such call.
CALLS: Dict[str, Tuple[Any, ...]] = {
    "mount": (165, 40, NOTHING, ROOT, b"no-such-type\0", 0, 0),
    "umount2": (166, 39, b"/proc/self/status\0", 0),
    "pivot_root": (155, 41, 0, 0),
    "chroot": (161, 51, ROOT),
    "setns": (308, 268, NO_FILE, 0),
    "open_tree": (428, 428, -100, ROOT, 1),
    "move_mount": (429, 429, NO_FILE, 0, NO_FILE, 0, 0),
    "fsopen": (430, 430, 0, 0),
    "fsconfig": (431, 431, NO_FILE, 0, 0, 0, 0),
    "fsmount": (432, 432, NO_FILE, 0, 0),
    "fspick": (433, 433, NO_FILE, 0, 0),
    "mount_setattr": (442, 442, NO_FILE, 0, 0, 0, 0),
    "statmount": (457, 457, 0, 0, 0, 0),
    "listmount": (458, 458, 0, 0, 0, 0),
    "ptrace": (101, 117, ATTACH, 0, 0, 0),
    "process_vm_readv": (310, 270, 0, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 271, 0, 0, 0, 0, 0, 0),
    "process_madvise": (440, 440, NO_FILE, 0, 0, 0, 0),
    "process_mrelease": (448, 448, NO_FILE, 0),
    "pidfd_getfd": (438, 438, NO_FILE, 0, 0),
    "kcmp": (312, 272, 0, 0, 0, 0, 0),
    "move_pages": (279, 239, 0, 0, 0, 0, 0, 0),
    "migrate_pages": (256, 238, 0, 0, 0, 0),
    "mbind": (237, 235, 0, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 237, 0, 0, 0),
    "keyctl": (250, 219, GET_KEYRING, SESSION, 0),
    "add_key": (248, 217, 0, 0, 0, 0, SESSION),
    "request_key": (249, 218, 0, 0, 0, 0),
    "bpf": (321, 280, 0, 0, 0),
    "perf_event_open": (298, 241, ATTR, 0, -1, -1, 0),
    "userfaultfd": (323, 282, 1),
    "io_uring_setup": (425, 425, 1, 0),
    "io_uring_enter": (426, 426, NO_FILE, 0, 0, 0, 0, 0),
    "io_uring_register": (427, 427, NO_FILE, 0, 0, 0),
    "open_by_handle_at": (304, 265, -100, 0, 0),
    "name_to_handle_at": (303, 264, -100, ROOT, HANDLE, bytes(8), 0),
    "fanotify_init": (300, 262, 0, 0),
    "kexec_load": (246, 104, 0, 0, 0, 0xFFFFFFFF),
    "kexec_file_load": (320, 294, NO_FILE, NO_FILE, 0, 0, 0),
    "init_module": (175, 105, 0, 0, 0),
    "finit_module": (313, 273, NO_FILE, 0, 0),
    "delete_module": (176, 106, 0, 0),
    "reboot": (169, 142, 0, 0, 0, 0),
    "swapon": (167, 224, 0, 0),
    "swapoff": (168, 225, 0),
    "acct": (163, 89, 1),
    "quotactl": (179, 60, 0xFFFFFFFF, 0, 0, 0),
    "quotactl_fd": (443, 443, NO_FILE, 0, 0, 0),
    "syslog": (103, 116, READ_ALL, 0, 0),
    "settimeofday": (164, 170, 0, 0),
    "sethostname": (170, 161, 0, -1),
    "setdomainname": (171, 162, 0, -1),
    "iopl": (172, None, 3),
    "ioperm": (173, None, 0, 1, 1),
    "modify_ldt": (154, None, 0, 0, 0),
    "personality": (135, 92, 0x0040000),
    "memfd_secret": (447, 447, 0xFFFFFFFF),
    "lookup_dcookie": (212, 18, 0, 0, 0),
    "sysfs": (139, None, 3),
    "clone3": (435, 435, 0, 0),
}
CLONE, UNSHARE, SOCKET, IOCTL = (56, 220), (272, 97), (41, 198), (16, 29)
NAMESPACES = {
    "time": 0x80,
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# Family: (number, a type that it has).
FAMILIES = {
    "AF_UNIX": (1, 1),
    "AF_INET": (2, 1),
    "AF_INET6": (10, 1),
    "AF_AX25": (3, 5),
    "AF_APPLETALK": (5, 2),
    "AF_KEY": (15, 3),
    "AF_NETLINK": (16, 3),
    "AF_PACKET": (17, 3),
    "AF_RDS": (21, 5),
    "AF_LLC": (26, 1),
    "AF_CAN": (29, 3),
    "AF_TIPC": (30, 4),
    "AF_BLUETOOTH": (31, 3),
    "AF_RXRPC": (33, 2),
    "AF_PHONET": (35, 2),
    "AF_CAIF": (37, 5),
    "AF_ALG": (38, 5),
    "AF_NFC": (39, 5),
    "AF_VSOCK": (40, 1),
    "AF_KCM": (41, 5),
    "AF_QIPCRTR": (42, 2),
    "AF_SMC": (43, 1),
    "AF_XDP": (44, 3),
}
NEEDED = ("AF_UNIX", "AF_INET", "AF_INET6")
TERMINAL = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
HIGH = 1 << 32
FOREIGN = {"int 0x80": "b814000000cd80c3", "x32 number": "b8270000400f05c3"}

libc = ctypes.PyDLL(None, use_errno=True)


def machine() -> int:
    """Which column of numbers is this machine's; below 0: we have none for it."""
    name = os.uname().machine
    return MACHINES.index(name) if name in MACHINES and sys.maxsize > HIGH else -1


def ask(number: int, *arguments: Any) -> Tuple[int, int]:
    """Make a system call: its result, and the error's number."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *wide)
    return result, ctypes.get_errno() if result == -1 else 0


def try_call(number: int, *arguments: Any) -> str:
    return word_of(ask(number, *arguments)[1])


def try_clone(number: int, flags: int) -> str:
    """A child in a new namespace, which ends at once."""
    result, error = ask(number, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if result == 0 and not error:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return word_of(error)


def try_socket(number: int, family: int, kind: int) -> str:
    error = ask(number, family, kind, 0)[1]
    return "denied " + name_of(error) if error in REFUSALS else "absent" if error in UNKNOWN else "allowed"


def try_raw(kind: int, protocol: int) -> str:
    try:
        socket.socket(socket.AF_INET, kind, protocol).close()
    except OSError as error:
        return word_of(error.errno or 0)
    return "allowed"


def try_foreign(code: str) -> str:
    """Run machine code that enters the kernel by another door than ours; killed there is a wall."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex(code))
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    result = ctypes.PYFUNCTYPE(ctypes.c_int)(start)()
    return "allowed" if result > 0 else word_of(-result)


def probes() -> Dict[str, Tuple[Any, ...]]:
    """Name: what to call for its word."""
    column = machine()
    found: Dict[str, Tuple[Any, ...]] = {}
    if column < 0:
        return found
    for name, call in CALLS.items():
        if call[column] is not None:
            found["call/" + name] = (try_call, call[column], *call[2:])
    for name, flag in NAMESPACES.items():
        found["unshare/" + name] = (try_call, UNSHARE[column], flag)
        if name != "time":  # 0x80 is a part of clone's exit signal
            found["clone/" + name] = (try_clone, CLONE[column], flag)
            found["clone/" + name + " + 2^32"] = (try_clone, CLONE[column], flag + HIGH)
    for name, (family, kind) in FAMILIES.items():
        found["socket/" + name] = (try_socket, SOCKET[column], family, kind)
        if name not in NEEDED:
            found["socket/" + name + " + 2^32"] = (try_socket, SOCKET[column], family + HIGH, kind)
    found["raw/SOCK_RAW"] = (try_raw, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    found["raw/ping"] = (try_raw, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    for name, command in TERMINAL.items():
        found["ioctl/" + name] = (try_call, IOCTL[column], 0, command, 0)
        found["ioctl/" + name + " + 2^32"] = (try_call, IOCTL[column], 0, command + HIGH, 0)
    if os.uname().machine == "x86_64":
        for name, code in FOREIGN.items():
            found["foreign/" + name] = (try_foreign, code)
    return found
