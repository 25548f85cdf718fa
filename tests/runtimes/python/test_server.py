"""What only Python does, on every interpreter of this machine."""

from __future__ import annotations

import asyncio
import signal

import pytest

from contracts.guests import Answer
from runtimes.conftest import Serve
from stoker.runtimes.contract import Interpreter
from stoker.runtimes.python import Runtime
from stoker.types import FunctionError

RUNTIME = Runtime()
ECHO = {"main.py": "def lambda_handler(event, context):\n    return event\n"}


@pytest.fixture(params=RUNTIME.interpreters(), ids=lambda each: each.version)
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    each: Interpreter = request.param
    return each


def error_of(answer: Answer) -> FunctionError:
    assert answer.error is not None, answer
    return answer.error


# On every version


EVERYTHING = {
    "main.py": """
        import asyncio, sys

        calls = 0

        def lambda_handler(event, context):
            global calls
            calls += 1
            print("line", event["n"])
            if event.get("raises"):
                raise LookupError("märchen")
            return [event["n"], calls, "%d.%d.%d" % sys.version_info[:3]]

        async def patient(event, context):
            print("in", event["n"])
            await asyncio.sleep(0.05)
            print("out", event["n"])
            return event["n"]
        """
}


async def test_it_serves_one_call_after_another(serve: Serve, interpreter: Interpreter) -> None:
    guest = await serve(RUNTIME, EVERYTHING, interpreter=interpreter)
    assert (await guest.call({"n": 1})).value == [1, 1, interpreter.version]
    error = error_of(await guest.call({"n": 2, "raises": True}))
    assert (error.type, error.message) == ("LookupError", "märchen")
    assert error.stack.startswith(
        'Traceback (most recent call last):\n  File "/app/function/main.py", line 11'
    )
    assert (await guest.call({"n": 3})).value == [3, 3, interpreter.version]
    await guest.settle_output()
    assert bytes(guest.stdout) == b"line 1\nline 2\nline 3\n"


async def test_it_forks_for_each_call(serve: Serve, interpreter: Interpreter) -> None:
    guest = await serve(RUNTIME, EVERYTHING, mode="fork", interpreter=interpreter)
    answers = await asyncio.gather(*(guest.call({"n": n}) for n in range(5)))
    assert [answer.value for answer in answers] == [[n, 1, interpreter.version] for n in range(5)]
    assert [answer.stdout for answer in answers] == [b"line %d\n" % n for n in range(5)]


@pytest.mark.parametrize("handler", ["main.lambda_handler", "main.patient"])
async def test_it_serves_several_at_once(serve: Serve, interpreter: Interpreter, handler: str) -> None:
    guest = await serve(RUNTIME, EVERYTHING, handler, concurrency=5, interpreter=interpreter)
    answers = await asyncio.gather(*(guest.call({"n": n}) for n in range(5)))
    assert all(b"%d\n" % n in answer.stdout for n, answer in enumerate(answers))
    assert [answer.error for answer in answers] == [None] * 5


async def test_it_awaits_on_one_loop_for_its_whole_life(serve: Serve, interpreter: Interpreter) -> None:
    guest = await serve(
        RUNTIME,
        {
            "main.py": """
                import asyncio

                lock = asyncio.Lock()
                seen = set()

                async def lambda_handler(event, context):
                    seen.add(id(asyncio.get_running_loop()))
                    async with lock:
                        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))
                    return len(seen)
                """
        },
        interpreter=interpreter,
    )
    assert [(await guest.call()).value for _ in range(3)] == [1, 1, 1]


# What a handler may be


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ("def handle(): return 'none'", "none"),
        ("def handle(event): return event", {}),
        ("def handle(event, context): return context.function_name", "puppet"),
        ("def handle(event, context=None): return context.function_name", "puppet"),
        ("def handle(*arguments): return len(arguments)", 2),
        ("def handle(event, *, key=3): return key", 3),
        ("handle = lambda event: event", {}),
        ("class C:\n  def __call__(self, event): return event\nhandle = C()", {}),
        ("class C:\n  def f(self, event): return event\nhandle = C().f", {}),
        ("import functools\ndef f(a, event, context): return a\nhandle = functools.partial(f, 7)", 7),
        (
            "import functools\ndef f(event): return event\n@functools.wraps(f)\ndef handle(*a): return f(*a)",
            {},
        ),
        ("class A:\n  def __await__(self):\n    return 4\n    yield\ndef handle(): return A()", 4),
    ],
)
async def test_a_handler_is_called_as_it_wants(serve: Serve, definition: str, value: object) -> None:
    guest = await serve(RUNTIME, {"main.py": definition}, "main.handle")
    assert (await guest.call()).value == value


@pytest.mark.parametrize("handler", ["pkg.deep.main.handle", "pkg/deep/main.handle"])
async def test_a_handler_may_be_in_a_package(serve: Serve, handler: str) -> None:
    files = {
        "pkg/deep/main.py": "from . import near\ndef handle(): return near.__name__",
        "pkg/deep/near.py": "",
    }
    assert (await (await serve(RUNTIME, files, handler)).call()).value == "pkg.deep.near"


@pytest.mark.parametrize("name", ["server", "serving", "serial", "channel", "function", "handler", "test"])
async def test_a_module_of_the_function_may_have_any_name_of_ours(serve: Serve, name: str) -> None:
    guest = await serve(RUNTIME, {f"{name}.py": "def handle(): return __file__"}, f"{name}.handle")
    assert (await guest.call()).value.endswith(f"/{name}.py")


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("handle", "'handle' is not of the form 'module.function'"),
        ("main.nothing", "no function 'nothing' in 'main'; there is lambda_handler"),
        ("main.number", "no function 'number' in 'main'; there is lambda_handler"),
        ("man.handle", "no module 'man' in the function's folder; there is main.py"),
        ("pkg.deep.handle", "no module 'pkg.deep' in the function's folder; there is main.py"),
    ],
)
async def test_a_handler_that_is_not_there_is_told_with_what_is(
    serve: Serve, handler: str, message: str
) -> None:
    guest = await serve(
        RUNTIME, {"main.py": "number = 3\ndef lambda_handler(): pass\ndef _own(): pass"}, handler
    )
    assert await guest.loading == FunctionError("NoSuchHandler", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no')", "SystemExit: no"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
        ("def f(:", "SyntaxError: invalid syntax (main.py, line 1)"),
        (
            "def f():\nreturn 1",
            "IndentationError: expected an indented block after function definition on line 1 ",
        ),
    ],
)
async def test_an_import_that_fails_is_told_as_python_tells_it(serve: Serve, text: str, message: str) -> None:
    error = await (await serve(RUNTIME, {"main.py": text})).loading
    assert error is not None
    assert error.type == "ImportFailed"
    assert error.message.startswith(message)
    assert "stoker_server" not in error.stack
    assert "importlib" not in error.stack


async def test_a_stack_shows_causes_and_paths_as_behind_walls(serve: Serve) -> None:
    text = """
        import json

        def lambda_handler(event):
            try:
                json.loads("{")
            except ValueError as error:
                raise RuntimeError("no use") from error
        """
    error = error_of(await (await serve(RUNTIME, {"main.py": text})).call())
    assert "The above exception was the direct cause" in error.stack
    assert f"/opt/stoker/python-{RUNTIME.default().version}/lib" in error.stack or "/usr/lib" in error.stack
    assert "stoker_server" not in error.stack
    assert "/home" not in error.stack


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("def lambda_handler(a, b, c): pass", "TypeError"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\ndef lambda_handler(): raise E", "E"),
        ("def lambda_handler(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def lambda_handler(): lambda_handler()", "RecursionError"),
        ("def lambda_handler(): raise ValueError('\\ud800' * 10**6)", "ValueError"),
        ("import asyncio\nasync def lambda_handler(): raise asyncio.CancelledError", "CancelledError"),
    ],
)
async def test_whatever_is_raised_is_told_and_the_next_call_served(
    serve: Serve, text: str, kind: str
) -> None:
    guest = await serve(RUNTIME, {"main.py": text})
    for _ in range(2):
        assert error_of(await guest.call()).type == kind


# What a function sees


async def test_it_sees_the_standard_library_its_folder_and_its_dependencies(serve: Serve) -> None:
    files = {
        "main.py": """
            import mine, built, shadowed
            def lambda_handler():
                try:
                    import pip
                except ImportError:
                    pip = None
                return [mine.place, built.place, shadowed.place, pip]
            """,
        "mine.py": "place = 'folder'",
        "shadowed.py": "place = 'folder'",
        ".stoker/deps/built.py": "place = 'deps'",
        ".stoker/deps/shadowed.py": "place = 'deps'",
    }
    assert (await (await serve(RUNTIME, files)).call()).value == ["folder", "deps", "folder", None]


async def test_it_finds_files_beside_it_and_a_zone_in_its_environment(serve: Serve) -> None:
    text = """
        import os, time
        def lambda_handler():
            return [open("data.txt").read(), time.localtime(0).tm_hour, os.environ["TZ"]]
        """
    guest = await serve(RUNTIME, {"main.py": text, "data.txt": "beside"}, TZ="UTC-5")
    assert (await guest.call()).value == ["beside", 5, "UTC-5"]


async def test_it_leaves_no_bytecode_in_the_code_folder(serve: Serve) -> None:
    text = """
        import os, subprocess, sys
        import near
        def lambda_handler():
            subprocess.run([sys.executable, "-c", "import near"], check=True)
            return sorted(os.listdir("."))
        """
    guest = await serve(RUNTIME, {"main.py": text, "near.py": ""})
    assert (await guest.call()).value == ["main.py", "near.py"]


@pytest.mark.parametrize("leave", ["exit(4)", "quit(4)", "import sys; sys.exit(4)", "raise SystemExit(4)"])
async def test_every_way_of_exiting_ends_the_process_with_its_code(serve: Serve, leave: str) -> None:
    guest = await serve(
        RUNTIME, {"main.py": f"def lambda_handler():\n    print('last words', end='')\n    {leave}"}
    )
    answer = await guest.call()
    assert answer.ending is not None
    assert answer.ending.exit_code == 4
    await guest.settle_output()
    assert bytes(guest.stdout) == b"last words"


async def test_an_exit_with_words_says_them_and_ends_with_one(serve: Serve) -> None:
    guest = await serve(RUNTIME, {"main.py": "import sys\ndef lambda_handler(): sys.exit('so long')"})
    answer = await guest.call()
    assert answer.ending is not None
    assert answer.ending.exit_code == 1
    await guest.settle_output()
    assert bytes(guest.stderr) == b"so long\n"


async def test_what_was_said_before_a_crash_is_not_lost(serve: Serve) -> None:
    guest = await serve(
        RUNTIME, {"main.py": "import os\ndef lambda_handler():\n    print('said')\n    os.abort()"}
    )
    answer = await guest.call()
    assert answer.ending is not None
    assert answer.ending.signal == signal.SIGABRT
    await guest.settle_output()
    assert bytes(guest.stdout) == b"said\n"
    assert b"Fatal Python error: Aborted" in guest.stderr


async def test_a_function_may_put_its_own_streams_in_place(serve: Serve) -> None:
    text = """
        import io, sys
        def lambda_handler(event):
            sys.stdout = None if event == 1 else io.StringIO() if event == 2 else sys.__stdout__
            if event == 3:
                sys.stdout.close()
            return event
        """
    guest = await serve(RUNTIME, {"main.py": text})
    assert [(await guest.call(n)).value for n in (1, 2, 3, 4)] == [1, 2, 3, 4]


async def test_signals_and_loops_of_its_own_work_in_the_main_thread(serve: Serve) -> None:
    text = """
        import asyncio, os, signal
        caught = []
        def lambda_handler():
            signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
            os.kill(os.getpid(), signal.SIGUSR1)
            return [len(caught), asyncio.run(asyncio.sleep(0, "run"))]
        """
    guest = await serve(RUNTIME, {"main.py": text})
    assert [(await guest.call()).value for _ in range(2)] == [[1, "run"], [2, "run"]]


# Several at once


async def test_logging_set_up_at_import_reaches_the_call_that_logs(serve: Serve) -> None:
    text = """
        import logging
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        def lambda_handler(event):
            logging.info("call %d", event)
        """
    guest = await serve(RUNTIME, {"main.py": text}, concurrency=3)
    answers = await asyncio.gather(*(guest.call(n) for n in range(3)))
    assert [answer.stderr for answer in answers] == [b"call %d\n" % n for n in range(3)]


async def test_what_no_call_owns_goes_to_the_sandbox(serve: Serve) -> None:
    text = """
        import threading
        print("imported")
        def lambda_handler():
            thread = threading.Thread(target=print, args=("orphaned",))
            thread.start()
            thread.join()
        """
    guest = await serve(RUNTIME, {"main.py": text}, concurrency=2)
    assert (await guest.call()).stdout == b""
    await guest.settle_output()
    assert bytes(guest.stdout) == b"imported\norphaned\n"


async def test_an_exit_in_one_of_several_ends_them_all(serve: Serve) -> None:
    text = """
        import sys, threading
        def lambda_handler(event):
            sys.exit(event) if event else threading.Event().wait()
        """
    guest = await serve(RUNTIME, {"main.py": text}, concurrency=2)
    waiting = guest.start(0)
    answer = await guest.call(6)
    assert answer.ending is not None
    assert answer.ending.exit_code == 6
    assert not waiting.end.done()


async def test_a_task_can_be_cancelled_and_its_place_is_free(serve: Serve) -> None:
    text = """
        import asyncio
        async def lambda_handler(event):
            try:
                await asyncio.sleep(event)
            finally:
                done.append(event)
            return done
        done = []
        """
    guest = await serve(RUNTIME, {"main.py": text}, concurrency=2)
    call = guest.start(1000)
    assert (await guest.call(0)).value == [0]
    guest.session.cancel(call.number)
    assert (await guest.call(0)).value == [0, 1000, 0]


# A process for each call


async def test_what_was_made_at_import_is_there_for_every_call(serve: Serve) -> None:
    text = """
        import os
        made = [os.getpid()]
        def lambda_handler():
            return [made[0] == os.getppid(), len(made), made.append(1)]
        """
    guest = await serve(RUNTIME, {"main.py": text}, mode="fork")
    assert [(await guest.call()).value for _ in range(2)] == [[True, 1, None]] * 2


async def test_a_call_s_group_ends_with_it(serve: Serve) -> None:
    text = """
        import subprocess
        def lambda_handler():
            return subprocess.Popen(["sleep", "1000"]).pid
        """
    guest = await serve(RUNTIME, {"main.py": text}, mode="fork")
    pids = {(await guest.call()).value for _ in range(3)}
    assert len(pids) == 3
    while any(is_alive(pid) for pid in pids):
        await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return ") Z " not in file.read()
    except FileNotFoundError:
        return False


async def test_a_liar_in_a_call_s_process_cannot_reach_the_channel(serve: Serve) -> None:
    text = """
        import os
        def lambda_handler(event):
            lie = b"\\0\\0\\0\\x12\\x83\\0\\0\\0\\1" + bytes(16) + b"[]"
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, lie)
                except OSError:
                    pass
            return "the truth"
        """
    guest = await serve(RUNTIME, {"main.py": text}, mode="fork")
    first = guest.start("hang")
    assert (await guest.call()).result is not None  # its own answer at most, under its own number
    assert (await guest.end(first)).result is not None
    assert not guest.over.done()


async def test_a_child_stopped_by_itself_does_not_stop_the_others(serve: Serve) -> None:
    text = """
        import os, signal
        def lambda_handler(event):
            if event == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            return event
        """
    guest = await serve(RUNTIME, {"main.py": text}, mode="fork")
    stopped = guest.start("stop")
    assert (await guest.call(1)).value == 1
    assert not stopped.end.done()
    guest.session.cancel(stopped.number)
    assert (await guest.call(2)).value == 2
