"""A process that has loaded its function, written to a file: what it is made of, and how to become it.

Theory. A fork of a process is its memory, its registers and what the kernel knows of it. Of two processes
that were forked from the same zygote the kernel knows nearly the same: the addresses of the vdso, the
stack, the thread's own block and what was mapped before are equal. So the one becomes what the other is by
exchanging the memory that differs, and going on with its registers: a fork across the walls of two
sandboxes, in which nobody needs a right that he has not anyway. Pages are copied when they are written to,
as after a fork: what lies in the file is mapped.

What is written is a child that stands still (`anchor`): fork handlers have run in it, and of many threads
one is left. The file holds the pages that are its own, behind them the script: system calls in lines of
seven words, which put these pages, and files that were mapped, where they were.

Not everything can be carried: what the kernel holds for the process (files it has open, what it shares with
others, what it has started, what it has written) stays behind. A function that has any of that after its
import is not frozen.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import signal
import struct
import sys
from array import array

from . import randomness
from .anchor import BYTES, PAGE, REGISTERS, SCRIPT, Anchor

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAGIC = b"stoker-1"
HEAD = struct.Struct(
    "=8s16sQQQ"
)  # magic, lineage, where the script is, how long it is, and the files to check
LINE = struct.Struct("=7q")
FILE_FD = 5  # the frozen file while it is thawed, and what it opens meanwhile; below them only the server's
OPENED_FD = FILE_FD + 1
SCRATCH = ("/tmp", "/dev/shm")
_PREAD, _MMAP, _MUNMAP, _BRK, _SIGACTION, _SIGPROCMASK, _ALTSTACK = 17, 9, 11, 12, 13, 14, 131
_CLOSE, _OPENAT, _MADVISE = 3, 257, 28
_AT_FDCWD, _SIG_SETMASK, _WIPE_ON_FORK = -100, 2, 18
_PRIVATE, _FIXED, _ANONYMOUS, _NORESERVE, _DROPPABLE = 0x02, 0x10, 0x20, 0x4000, 0x08
_READ, _EXECUTE = 1, 4
_PRESENT, _SWAPPED, _OF_A_FILE = 1 << 63, 1 << 62, 1 << 61
_ADD_SEALS, _ALL_SEALS = 1033, 0b1111  # no more seals, no shrinking, no growing, no writing
_SMALL_BYTES = 256 * 1024  # a file of which less is mapped is copied: that costs memory, but opening it time
_GAP_PAGES = 64  # fewer empty pages between two that are kept are kept with them
_KERNELS = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]")
_TOP = 0x7FFFFFFFF000
_SIGNALS = tuple(number for number in range(1, 65) if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33))
_TID_AT = 0x2D0  # in glibc's block of a thread, where it keeps the thread's number


class CannotFreeze(Exception):
    """Something of the process would be lost."""


class Area:
    """One line of /proc/<pid>/maps."""

    def __init__(self, line: str) -> None:
        span, self.perms, offset, _, inode, *path = line.split(None, 5)
        self.start, self.end = (int(bound, 16) for bound in span.split("-"))
        self.offset = int(offset, 16)
        self.path = path[0].rstrip("\n") if path else ""
        self.is_file = inode != "0"
        self.is_deleted = self.path.endswith(" (deleted)")
        is_fixed = self.is_file and "w" not in self.perms and not self.is_deleted
        self.is_shared = self.perms[3] == "s" and not is_fixed
        self.protection = sum(bit for bit, sign in ((1, "r"), (2, "w"), (4, "x")) if sign in self.perms)


def read_areas(pid: int) -> list[Area]:
    with open(f"/proc/{pid}/maps") as file:
        return [Area(line) for line in file]


def freeze(anchor: Anchor, code: str, about: dict[str, list[str]]) -> int:
    """Write this process to a file of memory that nobody can change any more, and beside it `about`.

    Returns the file, and later, in each process that becomes what was written, -1. The files below `code` are
    taken to be as they are for ever. Raises CannotFreeze with the reason.
    """
    _check()
    gc.collect()
    gc.freeze()
    reading, writing = os.pipe()
    never, end = os.pipe()
    child = os.fork()
    if child == 0:
        if _stand_still(anchor, writing, never):
            _become_a_child()
            return -1
        os._exit(1)
    os.close(writing)
    file = os.memfd_create("zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _Writer(file, child, anchor, code, _read_all(reading), about).write()
        fcntl.fcntl(file, _ADD_SEALS, _ALL_SEALS)
    except OSError as error:
        os.close(file)
        raise CannotFreeze(f"its memory cannot be copied: {error}") from None
    except CannotFreeze:
        os.close(file)
        raise
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for descriptor in (reading, never, end):
            os.close(descriptor)
    return file


def _stand_still(anchor: Anchor, writing: int, never: int) -> bool:
    """The child's side: say what the kernel knows of it, and stand; True in who has become it."""
    try:
        _touch_what_looks_at_its_number()
        os.write(writing, _kernel_state())
        return bool(anchor.stand(writing, never))
    except (OSError, CannotFreeze):
        return False


def _become_a_child() -> None:
    """What `fork` does: libc's number of this thread, and Python's handlers of before and after."""
    _thread_number().value = os.getpid()
    ctypes.pythonapi.PyOS_BeforeFork()
    ctypes.pythonapi.PyOS_AfterFork_Child()
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.main_thread()._set_native_id()
    randomness.refresh()


def _check() -> None:
    """Whether all there is of this process is its memory. Raises CannotFreeze."""
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # it was the listing's own
        if int(name) >= FILE_FD and not target.startswith("/proc/"):
            raise CannotFreeze(f"its import has left {target} open")
    for scratch in SCRATCH:
        if os.listdir(scratch):
            raise CannotFreeze(f"its import has written to {scratch}")
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        raise CannotFreeze("its import has started a thread")
    if any(signal.getitimer(kind)[0] for kind in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL)):
        raise CannotFreeze("its import has set a timer")
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise CannotFreeze("its import has started a process")


def _touch_what_looks_at_its_number() -> None:
    """OpenSSL begins anew when its process has another number than when it was last used.

    All that we become have the number of our parent, so it must have been used under ours.
    """
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        ssl.RAND_bytes(1)


def _libc() -> Any:
    return ctypes.PyDLL(None, use_errno=True)


def _kernel_state() -> bytes:
    """What the kernel knows of signals: the mask, the other stack, then one action after the other."""
    libc, parts = _libc(), []
    if _thread_number().value != os.getpid():
        raise CannotFreeze("this libc keeps its threads in another way")
    mask, stack = ctypes.create_string_buffer(8), ctypes.create_string_buffer(24)
    libc.syscall(_SIGPROCMASK, 0, None, mask, 8)
    libc.syscall(_ALTSTACK, None, stack)
    parts += [mask.raw, stack.raw]
    for one in _SIGNALS:
        action = ctypes.create_string_buffer(32)
        libc.syscall(_SIGACTION, one, None, action, 8)
        parts.append(action.raw)
    return b"".join(parts)


def _thread_number() -> Any:
    libc = _libc()
    libc.pthread_self.restype = ctypes.c_void_p
    return ctypes.c_int.from_address(libc.pthread_self() + _TID_AT)


def _read_all(reading: int) -> bytes:
    """What the child says, up to the byte that it writes when it stands."""
    size = 8 + 24 + 32 * len(_SIGNALS) + 1
    said = b""
    while len(said) < size:
        part = os.read(reading, size - len(said))
        if not part:
            raise CannotFreeze("its copy has ended")
        said += part
    return said[:-1]


class _Writer:
    """Writes the file: pages first, then the script."""

    def __init__(
        self,
        file: int,
        child: int,
        anchor: Anchor,
        code: str,
        kernel_state: bytes,
        about: dict[str, list[str]],
    ) -> None:
        self._file = file
        self._about = about
        self._child = child
        self._anchor = anchor
        self._code = code + "/"
        self._kernel_state = kernel_state
        self._memory = os.open(f"/proc/{child}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{child}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._at = PAGE  # of the file, where the next pages go
        self._lines: list[tuple[int, ...]] = []
        self._texts = b""
        self._opened = ""
        self._starts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        """By a file's path, where its first area begins and how long all are together."""
        self._checks: dict[str, tuple[int, int]] = {}
        """Size and time of the files that could be others later."""

    def write(self) -> None:
        try:
            self._write()
        finally:
            os.close(self._memory)
            os.close(self._pagemap)

    def _write(self) -> None:
        flags = _read_flags(self._child)
        areas = [area for area in read_areas(self._child) if area.start < _TOP]
        self._unmap_between(areas)
        self._look_at_files(areas)
        for area in areas:
            if self._is_there(area):
                continue
            if area.is_shared or flags.get(area.start, set()) & {"io", "pf", "ht"}:
                raise CannotFreeze(f"its import has mapped shared memory ({area.path or 'anonymous'})")
            self._add(area, flags.get(area.start, set()))
        self._close_opened()
        self._finish()

    def _is_there(self, area: Area) -> bool:
        """Whether whoever is to become the child has it, as it is."""
        if area.path in _KERNELS or 0 <= area.start - self._anchor.address < BYTES:
            return True
        is_old = area.is_file and "w" not in area.perms and self._starts[area.path] in self._anchor.objects
        return is_old and not self._has_own_pages(area)

    def _look_at_files(self, areas: list[Area]) -> None:
        for area in areas:
            if area.is_file:
                self._starts.setdefault(area.path, area.start)
                self._sizes[area.path] = self._sizes.get(area.path, 0) + area.end - area.start

    def _unmap_between(self, areas: list[Area]) -> None:
        end = 0x10000
        for area in areas:
            if area.start > end:
                self._line(_MUNMAP, end, area.start - end)
            end = area.end
        if end < _TOP:
            self._line(_MUNMAP, end, _TOP - end)

    def _add(self, area: Area, flags: set[str]) -> None:
        if area.path == "[heap]":
            self._line(_BRK, area.end)
        if area.path == "[stack]":
            self._add_stack(area)
        elif not area.protection:
            self._map_nothing(area.start, area.end, 0)
        elif "wf" in flags or "dp" in flags:
            self._map_nothing(area.start, area.end, area.protection, _DROPPABLE if "dp" in flags else 0)
            if "wf" in flags:
                self._line(_MADVISE, area.start, area.end - area.start, _WIPE_ON_FORK)
        elif not area.is_file:
            self._add_own(area)
        elif self._sizes[area.path] <= _SMALL_BYTES or self._has_own_pages(area) or area.is_deleted:
            self._keep(area.start, area.end, area.protection)
        else:
            self._map_file(area)

    def _add_stack(self, area: Area) -> None:
        """Copied, for a stack has to be one that grows; from where it is used on."""
        pointer = struct.unpack("=Q", os.pread(self._memory, 8, self._anchor.address + REGISTERS + 48))[0]
        start = max(area.start, (pointer & -PAGE) - PAGE)
        at = self._copy(start, area.end)
        self._line(_PREAD, FILE_FD, start, area.end - start, at)

    def _add_own(self, area: Area) -> None:
        """Runs of pages that there are are kept, and between them there is nothing."""
        here = area.start
        for start, end in self._runs(area):
            if start > here:
                self._map_nothing(here, start, area.protection)
            self._keep(start, end, area.protection)
            here = end
        if here < area.end:
            self._map_nothing(here, area.end, area.protection)

    def _runs(self, area: Area) -> Iterator[tuple[int, int]]:
        start = end = -1
        for number, entry in enumerate(self._pages(area)):
            if not entry & (_PRESENT | _SWAPPED):
                continue
            if start >= 0 and number - end > _GAP_PAGES:
                yield area.start + start * PAGE, area.start + end * PAGE
                start = -1
            start = number if start < 0 else start
            end = number + 1
        if start >= 0:
            yield area.start + start * PAGE, area.start + end * PAGE

    def _pages(self, area: Area) -> array[int]:
        count = (area.end - area.start) // PAGE
        return array("Q", os.pread(self._pagemap, count * 8, area.start // PAGE * 8))

    def _has_own_pages(self, area: Area) -> bool:
        is_there = _PRESENT | _SWAPPED
        return any(entry & is_there and not entry & _OF_A_FILE for entry in self._pages(area))

    def _keep(self, start: int, end: int, protection: int) -> None:
        self._map(start, end, protection, FILE_FD, self._copy(start, end))

    def _map(self, start: int, end: int, protection: int, file: int, at: int) -> None:
        """Of a file; with what was mapped just before where that goes on here, for every piece takes time.

        What is read goes with what is executed beside it, as linkers laid them out for decades; what may be
        written to never does.
        """
        _, before, size, allowed, *rest = self._lines[-1] if self._lines else (0,) * 7
        is_more = before + size == start and rest == [_PRIVATE | _FIXED, file, at - size]
        if is_more and (allowed == protection or {allowed, protection} == {_READ, _READ | _EXECUTE}):
            self._lines[-1] = (_MMAP, before, size + end - start, allowed | protection, *rest)
        else:
            self._line(_MMAP, start, end - start, protection, _PRIVATE | _FIXED, file, at)

    def _copy(self, start: int, end: int) -> int:
        """Put these pages into the file; where they are in it."""
        at, here = self._at, start
        while here < end:
            data = os.pread(self._memory, min(1 << 20, end - here), here)
            if not data:
                raise CannotFreeze("its memory cannot be read")
            os.pwrite(self._file, data, self._at)
            here += len(data)
            self._at += len(data)
        return at

    def _map_nothing(self, start: int, end: int, protection: int, flags: int = 0) -> None:
        kind = flags or _PRIVATE
        self._line(_MMAP, start, end - start, protection, kind | _FIXED | _ANONYMOUS | _NORESERVE, -1, 0)

    def _map_file(self, area: Area) -> None:
        if self._opened != area.path:
            self._close_opened()
            if not area.path.startswith(self._code):
                status = os.stat(area.path)
                self._checks[area.path] = (status.st_size, status.st_mtime_ns)
            self._lines.append((_OPENAT, _AT_FDCWD, ~len(self._texts), os.O_RDONLY | os.O_CLOEXEC, 0, 0, 0))
            self._texts += os.fsencode(area.path) + b"\0"
            self._opened = area.path
        self._map(area.start, area.end, area.protection, OPENED_FD, area.offset)

    def _close_opened(self) -> None:
        if self._opened:
            self._line(_CLOSE, OPENED_FD)
            self._opened = ""

    def _line(self, *words: int) -> None:
        self._lines.append(words + (0,) * (7 - len(words)))

    def _finish(self) -> None:
        state = self._kernel_state
        here = len(self._texts) + -len(self._texts) % 8
        self._texts = self._texts.ljust(here, b"\0") + state
        for index, number in enumerate(_SIGNALS):
            self._lines.append((_SIGACTION, number, ~(here + 32 + 32 * index), 0, 8, 0, 0))
        self._lines.append((_ALTSTACK, ~(here + 8), 0, 0, 0, 0, 0))
        self._lines.append((_SIGPROCMASK, _SIG_SETMASK, ~here, 0, 8, 0, 0))
        self._line(_CLOSE, FILE_FD)
        self._line(-1, self._anchor.address + REGISTERS)
        script = self._script()
        if SCRIPT + len(script) > BYTES:
            raise CannotFreeze(f"its memory is in {len(self._lines)} pieces")
        registers = os.pread(self._memory, 56, self._anchor.address + REGISTERS)
        script_at = self._at
        os.pwrite(self._file, registers + script, script_at)
        checks = json.dumps({"files": self._checks, **self._about}).encode()
        os.pwrite(self._file, checks, script_at + 56 + len(script))
        head = HEAD.pack(MAGIC, self._anchor.lineage, script_at, len(script), len(checks))
        os.pwrite(self._file, head, 0)

    def _script(self) -> bytes:
        """The lines, then the texts; where an argument is ~n it is the address of the text at n."""
        texts_at = self._anchor.address + SCRIPT + len(self._lines) * LINE.size
        packed = []
        for number, *words in self._lines:
            where = 1 if number in (_OPENAT, _SIGACTION, _SIGPROCMASK) else 0 if number == _ALTSTACK else None
            if where is not None:
                words[where] = texts_at + ~words[where]
            packed.append(LINE.pack(number, *words))
        return b"".join(packed) + self._texts


def _read_flags(pid: int) -> dict[int, set[str]]:
    """By the start of each area, the kernel's two-letter flags of it."""
    found: dict[int, set[str]] = {}
    start = 0
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            word = line.split(None, 1)[0]
            if word == "VmFlags:":
                found[start] = set(line.split()[1:])
            elif not word.endswith(":"):
                start = int(word.split("-")[0], 16)
    return found
