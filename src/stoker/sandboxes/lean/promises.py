"""What is promised of each wall of a lean sandbox, in the words of the probe (`stoker.walls`).

SECURITY.md shows this table, `stoker doctor --walls` and a test compare it with what is seen from inside.
"""

from __future__ import annotations

ROOT = {
    "namespaces": "own",
    "user": "nobody",
    "user as the machine knows it": "own",
    "users there are": "one",
    "groups": "none",
    "capabilities": "none",
    "securebits": "locked",
    "no_new_privs": "set",
    "seccomp filter": "on",
    "becoming more": "denied",
    "calls: mounts and roots": "denied EPERM; denied ENOSYS: statmount, listmount",
    "calls: new namespaces": "denied EPERM",
    "call: clone3": "denied ENOSYS",
    "calls: other processes' memory": "denied EPERM",
    "calls: keyrings": "denied EPERM",
    "calls: io_uring": "denied ENOSYS",
    "calls: bpf, perf, userfaultfd": "denied EPERM",
    "calls: file handles": "denied EPERM",
    "calls: the machine": "denied EPERM",
    "calls: rarely needed": "denied EPERM; denied ENOSYS: personality, memfd_secret",
    "calls of another architecture": "killed SIGSYS",
    "sockets: AF_UNIX, AF_INET, AF_INET6": "allowed",
    "sockets: every other family": "denied EPERM",
    "sockets: raw": "denied EPERM; denied EACCES: ping",
    "terminal input": "denied EPERM",
    "processes of the machine": "hidden",
    "the first process": "absent",
    "name of the machine": "own",
    "path of the cgroup": "hidden",
    "/proc": "ro,nosuid,nodev,noexec",
    "/proc: what tells of the machine": "hidden",
    "/proc: what changes it": "denied EROFS",
    "/sys": "absent",
    "/dev": "only harmless ones",
    "/dev: devices": "absent",
    "making devices": "denied EPERM",
    "secrets of the machine": "absent",
    "can be written": "only /tmp and /dev/shm",
    "mounts: nosuid, nodev": "on all",
    "scratch: bytes": "bounded",
    "scratch: number of files": "bounded",
    "resource limits": "0; bounded: nofile, fsize, nproc, memlock",
    "descriptors 0 to 4": "pipe; /dev/null: 0; socket: 3",
    "more descriptors": "none",
    "environment": "what was given",
    "session": "own",
    "terminal": "none",
    "signals ignored or blocked": "none",
    "network interfaces": "only lo",
    "ways out": "denied ENETUNREACH",
    "the machine's loopback": "denied ECONNREFUSED",
    "abstract sockets of others": "absent",
    "shared memory and queues of others": "absent",
    "files of others in scratch": "absent",
    "locks on shared files": "own; denied EACCES: lease",
}

# Its user is whoever started the node.
WITHOUT_ROOT = ROOT | {
    "user as the machine knows it": "shared",
}

PROMISES = {"lean": ROOT, "lean without root": WITHOUT_ROOT}
