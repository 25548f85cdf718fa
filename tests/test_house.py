"""The house rules of ARCHITECTURE.md, held by reading the source: who imports whom, names, sizes, habits."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "stoker"
MODULES = sorted(SOURCE.rglob("*.py"))
FUNCTIONS = {ROOT / "tests" / "functions", ROOT / "tests" / "hostile" / "functions"}
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if FUNCTIONS.isdisjoint(path.parents))

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

WINGS = ("doors", "sandboxes", "runtimes")

# Which modules of ours a room may import. A name allows the module and everything below it; one that
# ends in a dot only what is below it; "" everything. `<wing>.*` is every plug-in of a wing.
WORDS = {"types", "errors", "egress"}
TABLE: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "egress": set(),
    "settings": WORDS,
    "deadlines": WORDS,
    "outputs": WORDS,
    "plugins": WORDS | {"sandboxes.", "doors.", "runtimes."},
    "invoke": WORDS
    | {
        "admission",
        "code",
        "deadlines",
        "outputs",
        "pool",
        "sandboxes.contract",
        "runtimes.contract",
        "runtimes.greeting",
        "runtimes.wire",
        "verdicts",
    },
    "verdicts": WORDS,
    "ground": {""},
    "node": {""},
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {""},
    "linux": WORDS,
    "telemetry": WORDS,
    "admission": WORDS,
    "code": WORDS | {"sandboxes.contract", "records.model", "linux.removal"},
    "records": WORDS,
    "pool": WORDS
    | {"code", "deadlines", "sandboxes.contract", "runtimes.contract", "runtimes.greeting", "runtimes.wire"},
    "walls": WORDS | {"plugins", "settings", "linux", "sandboxes.contract"},
    "runtimes": WORDS | {"sandboxes.contract"},
    "runtimes.*": WORDS | {"runtimes.contract", "runtimes.greeting", "runtimes.wire", "sandboxes.contract"},
    "sandboxes": WORDS,
    "sandboxes.*": WORDS | {"sandboxes.contract", "linux"},
    "doors": WORDS,
    "doors.*": WORDS
    | {"doors.contract", "doors.exchange", "doors.explanation", "doors.refusals", "records.model"},
}
# What may be named in annotations only, under TYPE_CHECKING: a door is given the node, it never makes one.
NAMED: dict[str, set[str]] = {"doors.*": {"node"}, "doors": {"node"}}
# What runs inside a sandbox, or as the privileged helper before it, imports nothing it does not need.
STANDARD_LIBRARY_ONLY = ("runtimes/python/inside/", "code/workshop/", "walls/inside/")

FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|base|managers?|misc)(_|$)")
MODULE_AIM, FUNCTION_AIM, PARAMETERS_AIM = 220, 30, 5
# A file or function at twice its aim is a question. Here are the answers, one sentence each.
ANSWERED: dict[str, str] = {
    "pool.plan": "one state machine: what it reckons with is in stock, brood, groups, pace and keeping, "
    "and what is left is the handlers of its events, each of which may move the line",
}

MAKERS = {
    "list",
    "dict",
    "set",
    "bytearray",
    "defaultdict",
    "deque",
    "Counter",
    "OrderedDict",
    "count",
    "Lock",
}
CHANGES = {"append", "add", "update", "pop", "clear", "setdefault", "extend", "remove", "insert"}

BROAD_EXCEPT = (
    "runtimes/python/",  # the in-sandbox server's call of user code
    "doors/listener.py",  # a door's outermost handler
)


def name_of(path: Path) -> str:
    """`pool.plan` for src/stoker/pool/plan.py, `pool` for its `__init__.py`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def imports(path: Path) -> Iterator[tuple[ast.AST, str, bool]]:
    """Every import of ours: where, `pool.plan` for `from stoker.pool import plan`, whether for types only."""
    tree = tree_of(path)
    package = ["stoker", *path.relative_to(SOURCE).parts[:-1]]
    typing = {inner for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        for name in imported(node, package):
            if name == "stoker" or name.startswith("stoker."):
                yield node, name.removeprefix("stoker").removeprefix("."), node in typing


def imported(node: ast.AST, package: list[str]) -> list[str]:
    """The full names of the modules that an import statement imports; none for another statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{module}.{alias.name}" if is_module(module, alias.name) else module for alias in node.names]


def is_module(module: str, name: str) -> bool:
    folder = SOURCE.parent / Path(*module.split("."))
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(name: str) -> str:
    """`pool` for `pool.plan`, `doors.jobs` for `doors.jobs.queue`, `doors` for `doors.listener`."""
    first, *rest = name.split(".")
    is_plugin = first in WINGS and rest and (SOURCE / first / rest[0]).is_dir()
    return f"{first}.{rest[0]}" if is_plugin else first


def row_of(room: str) -> str:
    return f"{room.split('.', maxsplit=1)[0]}.*" if "." in room else room


def allows(row: set[str], name: str) -> bool:
    return any(
        entry in ("", name) or name.startswith(entry if entry.endswith(".") else f"{entry}.") for entry in row
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    name = name_of(path)
    room = room_of(name)
    row = row_of(room)
    assert row in TABLE, f"{name} has no row in the table of tests/test_house.py"
    strangers = [
        f"{where(path, node)} imports stoker.{other}"
        for node, other, is_typing in imports(path)
        if room_of(other) != room
        and not allows(TABLE[row] | (NAMED.get(row, set()) if is_typing else set()), other)
    ]
    assert strangers == [], f"{name} may import {', '.join(sorted(TABLE[row])) or 'nothing of ours'}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_but_plugins_names_a_plugin(path: Path) -> None:
    name = name_of(path)
    named = [
        f"{where(path, node)} imports stoker.{other}"
        for node, other, _ in imports(path)
        if "." in room_of(other) and room_of(other) != room_of(name) and name != "plugins"
    ]
    assert named == [], "ask stoker.plugins by the folder's name instead"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_is_one_lower_case_noun(path: Path) -> None:
    for part in path.relative_to(SOURCE).with_suffix("").parts:
        assert re.fullmatch(r"[a-z][a-z0-9_]*|__init__|__main__", part), part
        assert not FORBIDDEN_NAMES.search(part), f"{part} says nothing: name what is in it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_opens_with_what_it_is(path: Path) -> None:
    first = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0].strip()
    assert first, f"{path.relative_to(ROOT)} has no docstring"
    assert first[-1] in ".:!?…", f"{path.relative_to(ROOT)}: its docstring's first line is a sentence"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_annotations_are_never_evaluated(path: Path) -> None:
    tree = tree_of(path)
    says = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    annotates = any(
        isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AnnAssign) for node in ast.walk(tree)
    )
    assert says or not annotates, f"{path.relative_to(ROOT)}: from __future__ import annotations"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_broad_excepts_stand_in_three_places(path: Path) -> None:
    if str(path.relative_to(SOURCE)).startswith(BROAD_EXCEPT):
        return
    broad = [
        where(path, node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or catches(node.type, "Exception"))
        and not raises_again(node)
    ]
    assert broad == [], "catch what can happen here; the three broad places are in ARCHITECTURE.md"


def catches(caught: ast.expr, name: str) -> bool:
    nodes = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(node, ast.Name) and node.id in (name, "BaseException") for node in nodes)


def raises_again(handler: ast.ExceptHandler) -> bool:
    """`except BaseException: clean up; raise` swallows nothing."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_keeps_state(path: Path) -> None:
    stateful = [
        f"{where(path, node)} {target}"
        for node in tree_of(path).body
        for target, value in assigned(node)
        if is_mutable(value) and not is_constant_name(target)
    ]
    stateful += [where(path, node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]
    assert stateful == [], "state has one owner, an object that the node makes; constants are UPPER_CASE"


def assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
        yield node.target.id, node.value


def is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.Call):
        called = value.func
        return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in MAKERS
    return False


def is_constant_name(name: str) -> bool:
    return name == "__all__" or re.fullmatch(r"_?[A-Z][A-Z0-9_]*", name) is not None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_constant_table_is_never_changed(path: Path) -> None:
    tree = tree_of(path)
    tables = {target for node in tree.body for target, value in assigned(node) if is_mutable(value)}
    changed = [
        f"{where(path, node)} {node.func.value.id}.{node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in tables
        and node.func.attr
        in {"append", "add", "update", "pop", "clear", "setdefault", "extend", "remove", "insert"}
    ]
    changed += [
        f"{where(path, node)} {node.value.id}[…] = …"
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and isinstance(node.value, ast.Name)
        and node.value.id in tables
    ]
    assert changed == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_waits_with_a_timeout_of_his_own(path: Path) -> None:
    """The caller holds the deadline, in one place."""
    given = [
        where(path, node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.AsyncFunctionDef)
        for argument in [*node.args.args, *node.args.kwonlyargs]
        if argument.arg == "timeout"
    ]
    assert given == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_size_at_twice_its_aim_has_an_answer(path: Path) -> None:
    questions = dict(sizes(path))
    unanswered = [text for key, text in questions.items() if key not in ANSWERED]
    assert unanswered == [], "split it by idea, or answer in ANSWERED of tests/test_house.py"


def sizes(path: Path) -> Iterator[tuple[str, str]]:
    name = name_of(path)
    tree = tree_of(path)
    lines = len(path.read_text("utf-8").splitlines())
    if lines > 2 * MODULE_AIM:
        yield name, f"{name} has {lines} lines; the aim is {MODULE_AIM}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            long = (node.end_lineno or node.lineno) - node.lineno + 1
            arguments = [a for a in [*node.args.args, *node.args.kwonlyargs] if a.arg not in ("self", "cls")]
            if long > 2 * FUNCTION_AIM:
                yield f"{name}.{node.name}", f"{where(path, node)} {node.name} has {long} lines"
            if len(arguments) > 2 * PARAMETERS_AIM:
                yield (
                    f"{name}.{node.name}",
                    f"{where(path, node)} {node.name} has {len(arguments)} parameters",
                )


def test_every_answer_still_has_its_question() -> None:
    asked = {key for path in MODULES for key, _ in sizes(path)}
    assert set(ANSWERED) - asked == set()


def test_what_is_compiled_has_no_struct_and_no_heir_that_is_not() -> None:
    """mypyc forgets what stands beside a Struct's base, such as `frozen`; heirs of its own are its own."""
    setup = tree_of(ROOT / "setup.py")
    tuples = [node.value for node in ast.walk(setup) if isinstance(node, ast.Assign)]
    names = {name for one in tuples if isinstance(one, ast.Tuple) for name in ast.literal_eval(one)}
    compiled = {SOURCE / f"{name}.py" for name in names}
    assert compiled <= set(MODULES)
    heirs = [
        (path, node) for path in MODULES for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)
    ]
    own = {node.name for path, node in heirs if path in compiled}
    wrong = [
        f"{where(path, node)} {node.name}"
        for path, node in heirs
        for base in map(ast.unparse, node.bases)
        if (path in compiled and base == "msgspec.Struct") or (path not in compiled and base in own)
    ]
    assert names and wrong == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_runs_inside_needs_nothing_but_the_standard_library(path: Path) -> None:
    if not str(path.relative_to(SOURCE)).startswith(STANDARD_LIBRARY_ONLY):
        return
    top = next(SOURCE / start for start in STANDARD_LIBRARY_ONLY if path.is_relative_to(SOURCE / start))
    siblings = {sibling.stem for sibling in top.iterdir()}
    foreign = [
        f"{where(path, node)} {name}"
        for node in ast.walk(tree_of(path))
        for name in imported(node, [])
        if not getattr(node, "level", 0)  # a relative import stays inside
        and name.split(".")[0] not in {*sys.stdlib_module_names, *siblings}
    ]
    assert foreign == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_neither_mock_nor_sleep(path: Path) -> None:
    found = [
        f"{where(path, node)} {ast.unparse(node)[:60]}"
        for node in ast.walk(tree_of(path))
        if is_mock(node) or is_sleep(node)
    ]
    assert found == [], "use the real thing or the shipped fake, and wait for what happens, not for a time"


def is_mock(node: ast.AST) -> bool:
    patches = {"setattr", "delattr", "setitem", "patch"}
    return any(name.startswith(("unittest.mock", "mock", "pytest_mock")) for name in imported(node, [])) or (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in patches
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"monkeypatch", "mocker", "mock"}
    )


def is_sleep(node: ast.AST) -> bool:
    """`asyncio.sleep(0)` gives way and is allowed."""
    if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"
    ):
        return False
    owner = node.func.value
    gives_way = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
    return isinstance(owner, ast.Name) and owner.id in {"time", "asyncio"} and not gives_way


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_is_a_sentence(path: Path) -> None:
    if not path.name.startswith("test_"):
        return
    short = [
        f"{where(path, node)} {node.name}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and node.name.count("_") < 3
    ]
    assert short == [], "say what holds: test_a_full_node_evicts_only_if_that_makes_room"


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_every_room_has_a_name_plate(folder: Path) -> None:
    if str(folder.relative_to(SOURCE)).startswith("code/workshop"):
        return  # a function like any other: shown to the sandbox as a folder
    assert (folder / "__init__.py").is_file()


@pytest.mark.parametrize(("name", "at_least"), [("SPECIFICATION.md", 30), ("SECURITY.md", 20)])
def test_every_test_that_a_document_names_exists(name: str, at_least: int) -> None:
    named = set(re.findall(r"`([Tt]est_?\w+)`", (ROOT / name).read_text("utf-8")))
    there = {
        node.name
        for path in TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    there |= {target for path in TESTS for node in tree_of(path).body for target, _ in assigned(node)}
    assert len(named) > at_least
    assert named - there == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_table_has_no_row_for_nobody() -> None:
    assert set(TABLE) - {row_of(room_of(name_of(path))) for path in MODULES} == set()
