"""Memory that lies at one address in everything that a zygote forks, and the few instructions in it.

A zygote reserves it before its first fork. What is put there outlasts the exchange of all other memory
(`freezing`, `thawing`), so the instructions that do the exchange are there, what they are told, and what a
process leaves for the one it becomes. Only for x86-64; elsewhere `reserve` reserves nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys

TYPE_CHECKING = False  # a name type checkers know; importing `typing` takes 2.5 ms of a start
if TYPE_CHECKING:
    from typing import Any

PAGE = 4096
REGISTERS = PAGE  # where the parts begin; before it the instructions
LINEAGE = PAGE + 64
LETTER = 2 * PAGE
SCRIPT = 64 * PAGE
BYTES = 1024 * PAGE
LETTER_BYTES = SCRIPT - LETTER - 8
_LENGTH = struct.Struct("=Q")

# long stand(registers, writing, reading): keep what a callee has to keep, write a byte, and read one, which
# never comes: whoever looks at this process now sees it standing still. It goes on, once, in another process,
# where `become` has brought it; there it returns 1.
_STAND = bytes.fromhex(
    "48891f48896f084c8967104c896f184c8977204c897f28488967304989d04887f7"  # keep; fd and buffer exchanged
    "ba01000000b8010000000f05"  # write(writing, registers, 1)
    "4c89c731c00f05"  # read(reading, registers, 1)
    "bf01000000b8e70000000f05f4"  # exit_group(1)
)
# void become(script): one system call for each line of seven words; one that fails ends the process with 71.
# A line that begins with -1 is the last, and names the registers to go on with.
_BECOME = bytes.fromhex(
    "4989fc498b04244885c07839"  # the number, or the end
    "498b7c2408498b742410498b5424184d8b5424204d8b4424284d8b4c24300f05"  # the arguments, the call
    "4983c438483d00f0ffff76cbbf47000000b8e70000000f05f4"  # the next one, or exit_group(71)
    "498b7c2408488b1f488b6f084c8b67104c8b6f184c8b77204c8b7f28488b6730b801000000c3"
)
_BECOME_AT = 96
_PT_LOAD = 1


class Anchor:
    """The reserved memory."""

    def __init__(self) -> None:
        import ctypes

        self.memory = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.memory[: len(_STAND)] = _STAND
        self.memory[_BECOME_AT : _BECOME_AT + len(_BECOME)] = _BECOME
        self.memory[LINEAGE : LINEAGE + 16] = os.urandom(16)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self.address), PAGE, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "memory that can be executed is not to be had")
        self.objects = _find_objects(libc)
        """Where the program and its libraries begin; whoever is forked from here on has them there."""

    @property
    def lineage(self) -> bytes:
        """Told by the zygote that reserved it: where it is the same, so are all addresses of before."""
        return self.memory[LINEAGE : LINEAGE + 16]

    def stand(self, writing: int, reading: int) -> int:
        import ctypes

        call = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)
        stood: int = call(self.address)(self.address + REGISTERS, writing, reading)
        return stood

    def become(self, script: bytes) -> None:
        """Do what the script says. HOLDS: it was written for exactly this memory."""
        import ctypes

        self.memory[SCRIPT : SCRIPT + len(script)] = script
        ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.address + _BECOME_AT)(self.address + SCRIPT)

    def leave(self, letter: bytes) -> None:
        """What is read by who we become."""
        self.memory[LETTER : LETTER + 8] = _LENGTH.pack(len(letter))
        self.memory[LETTER + 8 : LETTER + 8 + len(letter)] = letter

    def find(self) -> bytes:
        (length,) = _LENGTH.unpack(self.memory[LETTER : LETTER + 8])
        return self.memory[LETTER + 8 : LETTER + 8 + length]


def _find_objects(libc: Any) -> frozenset[int]:
    import ctypes

    found = set()

    def visit(info: int, size: int, data: object) -> int:
        """`info` is a struct dl_phdr_info."""
        bias, _, headers, count = struct.unpack("=QQQH", ctypes.string_at(info, 26))
        for number in range(count):
            kind, _, _, address = struct.unpack("=IIQQ", ctypes.string_at(headers + 56 * number, 24))
            if kind == _PT_LOAD:
                found.add((bias + address) & -PAGE)
                break
        return 0

    visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    libc.dl_iterate_phdr(visitor(visit), None)
    return frozenset(found)


def reserve() -> Any:
    """Once, in a zygote; None where it cannot be done."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        return None
    try:
        return Anchor()
    except (ImportError, OSError):
        return None
