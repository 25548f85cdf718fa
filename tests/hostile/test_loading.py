"""Attacks at the time a function is loaded, before any call is its own."""

from __future__ import annotations

import pytest

from hostile.arena import Arena

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

HANDLER = "\ndef lambda_handler(event, context):\n    return []\n"
SAY = """
import os, struct
def say(kind, payload):
    os.write(3, struct.pack('!IBI', len(payload), kind, 0) + payload)
"""
ENDS = {
    "hangs": (
        """
import time
time.sleep(1e9)
""",
        "TimedOut",
    ),
    "is busy": ("while True: pass", "TimedOut"),
    "exits": (
        """
import os
os._exit(3)
""",
        "Exited",
    ),
    "leaves": ("raise SystemExit(4)", "ImportFailed"),
    "interrupts": ("raise KeyboardInterrupt", "ImportFailed"),
    "aborts": (
        """
import os
os.abort()
""",
        "Crashed",
    ),
    "takes all memory": (
        "held = [bytearray(b'x' * (1 << 20)) for _ in range(1 << 20)]",
        "OutOfMemory MemoryError ImportFailed",
    ),
    "recurses": (
        """
def f(): f()
f()
""",
        "ImportFailed",
    ),
    "imports itself": (
        """
import main
from main import nothing
""",
        "ImportFailed",
    ),
    "floods its output": (
        """
import os
while True: os.write(1, b'y' * 65536)
""",
        "OutputTooLarge",
    ),
    "floods the channel": (
        """
import os
while True: os.write(3, bytes(65536))
""",
        "Crashed",
    ),
    "closes everything": (
        """
import os
os.closerange(0, 64)
import time
time.sleep(1e9)
""",
        "Crashed TimedOut",
    ),
    "says it is loaded, twice": (
        SAY
        + """
say(0x82, bytes(8))
say(0x82, bytes(8))
""",
        "Crashed",
    ),
    "greets again": (SAY + "say(0x81, b'{\"wire\": 1}')", "Crashed"),
    "says that it could not be loaded": (
        SAY
        + """
say(0x84, bytes(16) + b'{"type": "T", "message": "m"}')
import time
time.sleep(1e9)
""",
        "T",
    ),
    "answers before it is asked": (
        SAY
        + """
os.write(3, struct.pack('!IBI', 18, 0x83, 1) + bytes(16) + b'[]')
""",
        "Crashed",
    ),
    "leaves a process behind and fails": (
        """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(1e9)
raise ValueError
""",
        "ImportFailed",
    ),
    "stops itself": (
        """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
""",
        "TimedOut",
    ),
}
LIVES = {
    "takes the server's modules away": """
import sys
for name in [n for n in sys.modules if 'stoker' in n or n == 'json']:
    del sys.modules[name]
""",
    "leaves threads": """
import threading, time
for _ in range(20): threading.Thread(target=time.sleep, args=(1e9,)).start()
""",
    "leaves a process": """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(1e9)
""",
    "ignores every signal": """
import signal
for n in {*signal.Signals} - {9, 19}: signal.signal(n, signal.SIG_IGN)
""",
    "traces itself": """
import sys
sys.settrace(lambda *a: None)
sys.setrecursionlimit(60)
""",
    "sets alarms": """
import signal
signal.signal(14, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
""",
}


@pytest.mark.parametrize("what", ENDS)
def test_a_function_that_attacks_while_it_is_loaded_ends_its_call(field: Arena, what: str) -> None:
    source, ends = ENDS[what]
    if what in ("hangs", "is busy", "stops itself") and field.sandbox == "process":
        pytest.skip("takes ten seconds, and the same deadline ends it")
    field.deploy("loaded", source + HANDLER, runtime="python", timeout="1s", reuse="none")
    with field.watched(field.hello):
        answer = field.call("loaded", "")
        assert answer.status in (500, 504, 507), answer
        assert answer.json["error"]["type"] in ends.split(), answer
        assert ends != "TimedOut" or "was not loaded within 10 s" in answer.json["error"]["message"]
    field.forget("loaded")


@pytest.mark.parametrize("what", LIVES)
def test_a_function_that_meddles_while_it_is_loaded_serves_its_calls(field: Arena, what: str) -> None:
    field.deploy("loaded", LIVES[what] + HANDLER, runtime="python", timeout="5s", reuse="none")
    with field.watched(lambda: field.call("loaded", "")):
        assert field.call("loaded", "").json == []
    field.forget("loaded")
