"""What only Node.js does."""

from __future__ import annotations

import asyncio

import pytest

from contracts.conftest import require
from runtimes.conftest import Serve
from stoker.runtimes.nodejs import Runtime
from stoker.types import FunctionError


@pytest.fixture
def node() -> Runtime:
    runtime = Runtime()
    require("nodejs", runtime.problems())
    return runtime


DEPENDENCY = {"node_modules/dep/index.js": "module.exports = 'dep';"}
ESM = "export const handle = async (event) => [typeof require, event];"


@pytest.mark.parametrize(
    ("files", "value"),
    [
        ({"index.js": "exports.handle = (event) => event;"}, {}),
        ({"index.js": "exports.handle = async () => 'later';"}, "later"),
        ({"index.js": "exports.handle = () => ({ then: (good) => good('thenable') });"}, "thenable"),
        ({"index.js": "exports.handle = () => {};"}, None),
        ({"index.js": "exports.handle = (e, c, done) => done(null, 'called');"}, "called"),
        ({"index.js": "exports.handle = (e, c, done) => { setTimeout(done, 1, null, 'late'); };"}, "late"),
        ({"index.js": "exports.handle = async (e, c, done) => 'kept';"}, "kept"),
        ({"index.js": "module.exports = new (class { a = 1; handle() { return this.a; } })();"}, 1),
        ({"index.js": "exports.default = { handle: () => 'default' };"}, "default"),
        ({"index.cjs": "exports.handle = () => 'cjs';"}, "cjs"),
        ({"index.mjs": ESM}, ["undefined", {}]),
        ({"index.js": ESM, "package.json": '{"type": "module"}'}, ["undefined", {}]),
        ({"index.mjs": "await 0; export default { handle: () => 'top' };"}, "top"),
        ({"index.js": "exports.handle = () => require('dep');", **DEPENDENCY}, "dep"),
        ({"index.mjs": "import dep from 'dep'; export const handle = () => dep;", **DEPENDENCY}, "dep"),
        ({"index.js": "exports.handle = () => [new Date(0)];"}, ["1970-01-01T00:00:00.000Z"]),
        ({"index.js": "exports.handle = () => '\\ud800';"}, "\ufffd"),
    ],
)  # fmt: skip
async def test_a_handler_may_have_every_usual_form(
    serve: Serve, node: Runtime, files: dict[str, str], value: object
) -> None:
    answer = await (await serve(node, files)).call()
    if value == "\ufffd":
        assert answer.result == b'"\\ud800"'  # JSON can say half of a pair, UTF-8 cannot
    else:
        assert answer.value == value


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("index", "'index' is not of the form 'file.function'"),
        ("index.nothing", "no function 'nothing' is exported by 'index.js'; there is first, second"),
        ("index.number", "no function 'number' is exported by 'index.js'; there is first, second"),
        ("idx.handle", "no file 'idx.js' in the function's folder; there is index.js"),
    ],
)
async def test_a_handler_that_is_not_there_is_told_with_what_is(
    serve: Serve, node: Runtime, handler: str, message: str
) -> None:
    files = {
        "index.js": "exports.second = () => 1; exports.first = () => 2; exports.number = 3;",
        "data.txt": "",
    }
    assert await (await serve(node, files, handler)).loading == FunctionError("NoSuchHandler", message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"index.js": "require('nope');"}, "Error: Cannot find module 'nope'"),
        ({"index.js": "\nexports.handle = (;"}, "SyntaxError: Unexpected token ';' (index.js:2)"),
        ({"index.mjs": "\nexport const handle = (;"}, "SyntaxError: Unexpected token ';' (index.mjs:2)"),
        ({"index.js": "throw new RangeError('at once');"}, "RangeError: at once"),
        ({"index.js": "throw 'a string';"}, "Error: a string"),
        ({"index.mjs": "await Promise.reject(new TypeError('later'));"}, "TypeError: later"),
    ],
)
async def test_an_import_that_fails_is_told_as_node_tells_it(
    serve: Serve, node: Runtime, files: dict[str, str], message: str
) -> None:
    guest = await serve(node, files)
    error = await guest.loading
    assert error is not None
    assert (error.type, error.message) == ("ImportFailed", message)
    assert "/inside/" not in error.stack
    assert "node:internal" not in error.stack
    assert (await guest.sandbox.ended).exit_code == 1


@pytest.mark.parametrize(
    ("thrown", "error"),
    [
        ("new RangeError('märchen')", ("RangeError", "märchen")),
        ("Object.assign(new Error('own'), { name: 'Own' })", ("Own", "own")),
        ("'a string'", ("Error", "a string")),
        ("undefined", ("Error", "undefined")),
        ("Object.create(null)", ("Error", "(what was thrown cannot be told)")),
    ],
)
@pytest.mark.parametrize("start", ["()", "async ()", "(e, c, done)"])
async def test_whatever_is_thrown_is_told_and_the_next_call_served(
    serve: Serve, node: Runtime, start: str, thrown: str, error: tuple[str, str]
) -> None:
    guest = await serve(node, {"index.js": f"exports.handle = {start} => {{ throw {thrown}; }};"})
    for _ in range(2):
        told = (await guest.call()).error
        assert told is not None
        assert (told.type, told.message) == error


async def test_what_nobody_catches_is_told_to_its_call_and_ends_the_process(
    serve: Serve, node: Runtime
) -> None:
    text = "exports.handle = () => new Promise(() => setTimeout(() => { throw new RangeError('late'); }, 1));"
    guest = await serve(node, {"index.js": text})
    answer = await guest.call()
    assert answer.error is not None
    assert (answer.error.type, answer.error.message) == ("RangeError", "late")
    assert (await guest.sandbox.ended).exit_code == 1


async def test_a_rejection_nobody_handles_outside_a_call_ends_the_process(
    serve: Serve, node: Runtime
) -> None:
    text = "exports.handle = () => { setTimeout(() => Promise.reject(new Error('stray')), 1); return 1; };"
    guest = await serve(node, {"index.js": text})
    assert (await guest.call()).value == 1
    assert (await guest.sandbox.ended).exit_code == 1
    await guest.settle_output()
    assert b"stray" in guest.stderr


async def test_what_was_said_before_an_exit_is_not_lost(serve: Serve, node: Runtime) -> None:
    text = "exports.handle = () => { console.log('said'); console.error('loud'); process.exit(5); };"
    guest = await serve(node, {"index.js": text})
    answer = await guest.call()
    assert answer.ending is not None
    assert answer.ending.exit_code == 5
    await guest.settle_output()
    assert (bytes(guest.stdout), bytes(guest.stderr)) == (b"said\n", b"loud\n")


async def test_it_lives_on_between_calls(serve: Serve, node: Runtime) -> None:
    text = "let n = 0; setInterval(() => n++, 1); exports.handle = () => n;"
    guest = await serve(node, {"index.js": text})
    first = (await guest.call()).value
    while (await guest.call()).value == first:
        await asyncio.sleep(0)


async def test_output_of_concurrent_calls_follows_their_callbacks(serve: Serve, node: Runtime) -> None:
    text = """
        exports.handle = (event) => new Promise((good) => setTimeout(() => {
          console.log('late', event);
          setImmediate(() => { process.stdout.write(`later ${event}`); good(event); });
        }, 5));
        """
    guest = await serve(node, {"index.js": text}, concurrency=3)
    answers = await asyncio.gather(*(guest.call(n) for n in range(3)))
    assert [answer.stdout for answer in answers] == [b"late %d\nlater %d" % (n, n) for n in range(3)]


async def test_environment_and_folder_are_there_when_it_is_imported(serve: Serve, node: Runtime) -> None:
    text = "const seen = [process.env.KEY, process.cwd() === __dirname]; exports.handle = () => seen;"
    guest = await serve(node, {"index.js": text}, KEY="välue")
    assert (await guest.call()).value == ["välue", True]


async def test_output_of_loading_is_the_sandbox_s_and_said_once(serve: Serve, node: Runtime) -> None:
    text = "console.log('imported'); exports.handle = () => console.log('called');"
    guest = await serve(node, {"index.js": text}, mode="fork")
    answers = [await guest.call() for _ in range(3)]
    await guest.settle_output()
    assert bytes(guest.stdout) == b"imported\n"
    assert {answer.stdout for answer in answers} <= {b"called\n", b"imported\ncalled\n"}
