"""What of the kernel can be reached from inside."""

from __future__ import annotations

import os

from trying import breaches

TELLING = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kallsyms",
    "/proc/interrupts",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
    "/proc/kmsg",
    "/dev/kmsg",
    "/proc/kpagecount",
    "/proc/softirqs",
)
SWITCHES = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/kernel/modprobe",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/release_agent",
    "/sys/fs/cgroup/memory/release_agent",
    "/proc/sys/kernel/hostname",
    "/proc/self/loginuid",
    "/proc/self/attr/current",
    "/proc/self/setgroups",
    "/proc/self/uid_map",
    "/proc/self/timens_offsets",
    "/proc/self/coredump_filter",
    "/proc/self/clear_refs",
    "/proc/self/mem",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/fs/binfmt_misc/register",
)
OURS = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "LC_CTYPE"}


def reads_what_tells_of_the_host(event):
    through = []
    for path in TELLING:
        try:
            with open(path, "rb", buffering=0) as file:
                if file.read(1):
                    through.append(path)
        except OSError:
            pass
    return through


def turns_switches(event):
    return breaches({path: lambda path=path: os.close(os.open(path, os.O_WRONLY)) for path in SWITCHES})


def dumps_its_environment(event):
    return sorted(f"{name}={value}" for name, value in os.environ.items() if name not in OURS)


def looks_for_others(event):
    """Processes, mounts and files that are not its own."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[4] for line in file]
    there = [name for name in os.listdir("/proc") if name.isdigit() and int(name) > 16]
    there += [
        path
        for path in ("/root", "/home/x", "/var/log", "/etc/shadow", "/run/docker.sock", "/sys/kernel")
        if (os.path.exists(path) and path != "/root") or (path == "/root" and os.path.isdir(path))
    ]
    return there + [mount for mount in mounts if mount.startswith(("/var", "/home", "/root", "/run"))]


def is_what_was_promised(event):
    with open("/proc/self/status") as file:
        status = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
    wanted = {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "CapInh": "0" * 16,
        "CapPrm": "0" * 16,
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
        "CapAmb": "0" * 16,
    }
    through = [f"{key} is {status[key][0]}" for key, value in wanted.items() if status[key][0] != value]
    return through + (["runs as root"] if 0 in os.getresuid() + os.getresgid() else [])
