"""What a sandbox's first process becomes when its walls are up: the least program that reaps and tells.

Theory. All that the first process of a pid namespace does from then on is `zygote.tend`: wait, and say how
the second one ended. As a fork of an interpreter it kept a megabyte for that. This is the same loop in two
dozen instructions, written out here because there is no compiler where Stoker is installed. Where
the machine is another, `program` has nothing and `tend` goes on in Python.

Its file may be executed by anybody and read by nobody: the kernel then lets nobody look into the process
either, as before it executed (`PR_SET_DUMPABLE`, which executing resets).
"""

from __future__ import annotations

import os
import struct

from stoker.linux.syscalls import CLOSE_RANGE
from stoker.sandboxes.lean.inside.walls import PERMITS, PRIVATE
from stoker.sandboxes.lean.packets import STATUS

BASE = 0x400000
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
EXECUTABLE, X86_64, LOAD, STACK, READ_EXECUTE, READ_WRITE = 2, 62, 1, 0x6474E551, 5, 6


def program() -> bytes:
    """An executable file for this machine; empty where we have none."""
    if os.uname().machine != "x86_64" or struct.calcsize("P") != 8:
        return b""
    code = _x86_64()
    start = ELF_HEADER.size + 2 * PROGRAM_HEADER.size
    size = start + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ELF_HEADER.pack(
        ident, EXECUTABLE, X86_64, 1, BASE + start, ELF_HEADER.size, 0, 0,
        ELF_HEADER.size, PROGRAM_HEADER.size, 2, 0, 0, 0,
    )  # fmt: skip
    load = PROGRAM_HEADER.pack(LOAD, READ_EXECUTE, 0, BASE, BASE, size, size, 4096)
    stack = PROGRAM_HEADER.pack(STACK, READ_WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def _x86_64() -> bytes:
    """The child's number is the one byte of its name, `argv[0]`."""
    return b"".join(
        (
            bytes.fromhex("488b442408"),  # mov rax, [rsp+8]
            bytes.fromhex("0fb618"),  # movzx ebx, byte [rax]
            bytes.fromhex("4883ec10"),  # sub rsp, 16
            # close_range(0, PERMITS, 0)
            bytes.fromhex("31ff"),  # xor edi, edi
            b"\xbe" + struct.pack("<I", PERMITS),  # mov esi, PERMITS
            bytes.fromhex("31d2"),  # xor edx, edx
            b"\xb8" + struct.pack("<I", CLOSE_RANGE),  # mov eax, CLOSE_RANGE
            bytes.fromhex("0f05"),  # syscall
            # again: wait4(-1, rsp+4, 0, 0)
            bytes.fromhex("83cfff"),  # or edi, -1
            bytes.fromhex("488d742404"),  # lea rsi, [rsp+4]
            bytes.fromhex("31d2"),  # xor edx, edx
            bytes.fromhex("4531d2"),  # xor r10d, r10d
            bytes.fromhex("b83d000000"),  # mov eax, 61
            bytes.fromhex("0f05"),  # syscall
            bytes.fromhex("83f8fc"),  # cmp eax, -EINTR
            bytes.fromhex("74e7"),  # je again
            bytes.fromhex("85c0"),  # test eax, eax
            bytes.fromhex("7823"),  # js fail
            bytes.fromhex("39d8"),  # cmp eax, ebx
            bytes.fromhex("75df"),  # jne again
            # write(PRIVATE, rsp+3, 5)
            bytes.fromhex("c6442403") + STATUS,  # mov byte [rsp+3], STATUS
            b"\xbf" + struct.pack("<I", PRIVATE),  # mov edi, PRIVATE
            bytes.fromhex("488d742403"),  # lea rsi, [rsp+3]
            bytes.fromhex("ba05000000"),  # mov edx, 5
            bytes.fromhex("b801000000"),  # mov eax, 1
            bytes.fromhex("0f05"),  # syscall
            bytes.fromhex("31ff"),  # xor edi, edi
            bytes.fromhex("eb05"),  # jmp end
            bytes.fromhex("bf01000000"),  # fail: mov edi, 1
            # end: exit_group(edi)
            bytes.fromhex("b8e7000000"),  # mov eax, 231
            bytes.fromhex("0f05"),  # syscall
        )
    )
