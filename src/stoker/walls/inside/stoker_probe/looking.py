"""Answers questions, one JSON text a line: leaves traces, and looks at everything there is to see.

`{"do": "leave", "key": 7}`: leave what others may find; the answer is what they have to know for that.
`{"do": "clear"}`: take it away again; the answer has how many such there were.
`{"do": "look", "strangers": [...], "given": [...]}`: the answer has each probe's word. `strangers` are
such answers, of whom nothing should be found; `given` names the variables that were given. Every probe
is tried in a process of its own, which the kernel may kill for it.
"""

from __future__ import annotations

import json
import os
import signal

from . import kernel, reach, sight

if False:  # TYPE_CHECKING without importing `typing`
    from typing import Any, Callable, Dict, List, Set

PATIENCE_S = 10
MAX_WORD = 200


def serve(reading: int, writing: int) -> None:
    """Until there is no more question."""
    opened = sight.list_open()
    traces: List[reach.Traces] = []
    with open(reading, "rb", closefd=False) as questions:
        for line in questions:
            write_all(writing, json.dumps(answer(json.loads(line), traces, opened)).encode() + b"\n")


def answer(question: Dict[str, Any], traces: List[reach.Traces], opened: Dict[int, str]) -> Dict[str, Any]:
    """To one question; `traces` are those left so far, `opened` the descriptors at the beginning."""
    if question["do"] == "leave":
        traces.append(reach.Traces(question["key"]))
        return {**reach.describe(), **traces[-1].leave()}
    if question["do"] == "clear":
        count = len(traces)
        while traces:
            traces.pop().clear()
        return {"cleared": count}
    return dict(look(question["strangers"], set(question["given"]), opened))


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def look(strangers: List[Dict[str, Any]], given: Set[str], opened: Dict[int, str]) -> Dict[str, str]:
    """Every probe's word, by its name."""
    words = {name: tried(action, *rest) for name, (action, *rest) in kernel.probes().items()}
    for room in (sight.probes(given, opened), reach.probes()):
        words.update((name, tried(action, strangers, *rest)) for name, (action, *rest) in room.items())
    return words


def tried(action: Callable[..., str], *arguments: Any) -> str:
    """What it says, or which signal it died of, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE_S)
            os.write(writing, action(*arguments).encode()[:MAX_WORD])
        except BaseException as error:
            os.write(writing, ("unknown: %r" % error).encode()[:MAX_WORD])
            raise
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        word = said.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    return "killed " + signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else word
