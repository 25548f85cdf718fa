"""The read-only root that the sandboxes of one launch see.

Made once for each launch, in the mount namespace of its zygote; a sandbox gets it by the copy that
`CLONE_NEWNS` makes. Few mounts, because each is copied for each sandbox and an overlay of its own laid over
it: the small files of /etc are copied into the root itself, and so are links, the devices and what is shown
of one file or of a small folder. Nothing of the host is in it but its /usr (and what stands for it on
systems that keep /bin and /lib apart), those files, and what the launch shows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from stoker.linux.mounts import READ_ONLY, attach, copy_of, leave_the_hosts, make_root, mounted_below_root
from stoker.linux.syscalls import (
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
)
from stoker.sandboxes.lean.inside.walls import BORROWED_PROC, EMPTY, FIRST
from stoker.sandboxes.lean.privileged.first import program

# Where the new root is put together: a folder that every machine has and that is never shown.
SITE = "/proc"
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
FOLDERS = ("app/function", "build", "dev", "etc", "home", "proc", "run", "sys", "tmp", "var/lib")
ETC = (
    "alternatives ca-certificates crypto-policies/back-ends fonts gai.conf host.conf java-* ld.so.cache"
    " ld.so.conf ld.so.conf.d localtime mime.types nsswitch.conf os-release pki/ca-trust/extracted"
    " pki/tls/certs pki/tls/cert.pem pki/tls/openssl.cnf protocols python3* services ssl/cert.pem ssl/certs"
    " ssl/openssl.cnf timezone"
).split()
MAX_ETC_BYTES = 16 * 1024 * 1024  # Debian's certificates, links and all take 0.5 MB
MAX_COPIED_BYTES = 1024 * 1024  # a runtime's files and a builder's settings have a hundred kB
PAGE = 4096
HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n"  # the host's own would tell of its network
USERS = "root:x:0:0:root:/tmp:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/tmp:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"
SEPARATORS = set(":,\\")  # of an overlay's options; a path with one of them is shared as it is
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def enter_root(
    shows: Iterable[tuple[str, str]],
    boot: list[tuple[str, str]],
    boot_folder: str,
    is_root: bool,
    name_server: str,
) -> tuple[list[str], list[str]]:
    """Leave the host's mounts for a root of our own, with `boot` (names and texts of files) to start from.

    What is mounted in it is returned: the folders that an overlay can be laid over, and the rest. Who is
    not root of the machine has to borrow what he cannot make: devices, and a `/proc` to be seen until
    each sandbox has mounted its own (`walls`).
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    leave_the_hosts()
    # Copied before anything is mounted, so that nothing of ours can stand in their place.
    copies = [(copy_of(source, READ_ONLY, recursive=True), target) for source, target in shows]
    borrowed = None if is_root else copy_of("/proc", READ_ONLY, recursive=True)
    mount("tmpfs", SITE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _fill(Path(SITE), is_root)
    if name_server:
        # In every root: whether a sandbox can reach it is not decided yet.
        Path(SITE, "etc/resolv.conf").write_text(f"nameserver {name_server}\noptions timeout:5 attempts:2\n")
    make_root(SITE)
    # Only now that a link can lead nowhere but into our own root.
    for copy, target in copies:
        _show(copy, target, proc)
    found = [path for path in mounted_below_root(proc) if path != EMPTY]
    if borrowed is not None:
        _show(borrowed, BORROWED_PROC, proc)
    os.close(proc)
    if boot:
        _boot(boot_folder, boot)
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    trees = [path for path in found if os.path.isdir(path) and not set(path) & SEPARATORS]
    return trees, [path for path in found if path not in trees]


def _fill(root: Path, is_root: bool) -> None:
    for name in FOLDERS:
        (root / name).mkdir(0o755, parents=True, exist_ok=True)
    for name in SYSTEM:
        _show_system(Path("/", name), root / name)
    _fill_etc(root / "etc")
    _fill_dev(root / "dev", is_root)
    (root / "var/tmp").symlink_to("/tmp")
    _fill_first(root / FIRST[1:])
    mount("tmpfs", f"{root}{EMPTY}", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "mode=555")


def _fill_first(file: Path) -> None:
    """Executed by anybody and read by nobody: so nobody looks into the process either."""
    if code := program():
        file.write_bytes(code)
        file.chmod(0o111)


def _show_system(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir()
        attach(copy_of(str(source), READ_ONLY, recursive=True), str(target))


def _show(copy: int, target: str, proc: int) -> None:
    """Attach what is shown, in the place of a link or a file of ours by that name."""
    if os.path.islink(target):
        os.unlink(target)
    status = os.fstat(copy)
    if stat.S_ISDIR(status.st_mode):
        os.makedirs(target, 0o755, exist_ok=True)
        folder = f"self/fd/{copy}/."  # not the link to it
        if _is_small(folder, proc):
            _copy_tree(folder, target, proc)
            os.close(copy)
        else:
            attach(copy, target)
        return
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_COPIED_BYTES:
        with open(os.open(f"self/fd/{copy}", os.O_RDONLY, dir_fd=proc), "rb") as source:
            Path(target).write_bytes(source.read())
        os.chmod(target, stat.S_IMODE(status.st_mode))
        os.close(copy)
    else:
        Path(target).touch()
        attach(copy, target)


def _is_small(source: str, proc: int) -> bool:
    """Whether it is less to copy a folder once than to mount it in each sandbox, where it is an overlay."""
    left = MAX_COPIED_BYTES
    for _, folders, files, descriptor in os.fwalk(source, dir_fd=proc):
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            left -= status.st_size + 1 if stat.S_ISREG(status.st_mode) else PAGE
            is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
            if left < 0 or not is_plain or not status.st_mode & stat.S_IROTH:
                return False
    return True


def _copy_tree(source: str, target: str, proc: int) -> None:
    """With the times of change: compiled Python knows its source by it."""
    for folder, _, files, descriptor in os.fwalk(source, dir_fd=proc):
        there = target + folder.removeprefix(source)
        os.makedirs(there, 0o755, exist_ok=True)
        for name in files:
            path = os.path.join(there, name)
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor), "rb") as file:
                status = os.fstat(file.fileno())
                Path(path).write_bytes(file.read())
            os.chmod(path, stat.S_IMODE(status.st_mode) & 0o755)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _fill_etc(etc: Path) -> None:
    left = MAX_ETC_BYTES
    for pattern in ETC:
        for source in Path("/etc").glob(pattern):
            left -= _copy(source, etc / source.relative_to("/etc"), left)
    (etc / "hosts").write_text(HOSTS)
    (etc / "passwd").write_text(USERS)
    (etc / "group").write_text(GROUPS)


def _copy(source: Path, target: Path, room: int) -> int:
    """Copy links, folders and files that everybody may read; returns the bytes it took."""
    status = source.lstat()
    if target.is_symlink() or target.exists():
        return 0
    target.parent.mkdir(0o755, parents=True, exist_ok=True)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(os.readlink(source))
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IROTH:
        target.mkdir(0o755, exist_ok=True)
        return sum(_copy(child, target / child.name, room) for child in source.iterdir())
    elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= room:
        target.write_bytes(source.read_bytes())
        return status.st_size
    return 0


def _fill_dev(dev: Path, is_root: bool) -> None:
    for name, (major, minor) in DEVICES.items():
        if is_root:
            os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            (dev / name).chmod(0o666)
        else:
            (dev / name).touch()
            attach(copy_of(f"/dev/{name}", MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY), str(dev / name))
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    (dev / "shm").mkdir()


def _boot(folder: str, files: list[tuple[str, str]]) -> None:
    """What a zygote is started from, on a mount that it gives up once it has read it."""
    os.mkdir(folder)
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name, text in files:
        path = Path(folder, name)
        path.parent.mkdir(0o755, parents=True, exist_ok=True)
        path.write_text(text)
