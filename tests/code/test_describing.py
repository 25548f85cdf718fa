"""config.json: what it may say, what is made of it, what is said of mistakes."""

from __future__ import annotations

import json
import os

import pytest

from code_room import choose
from stoker.code.describing import Wish, check, describe, parse_config, read_config, revised
from stoker.code.terms import Terms
from stoker.errors import BadCode, BadRequest
from stoker.types import Reuse

TERMS = Terms(max_memory_mb=1024, default_memory_mb=96, default_timeout_s=12)


def parsed(**config: object) -> Wish:
    return parse_config(json.dumps(config).encode())


@pytest.fixture
def root(tmp_path):
    (tmp_path / "main.py").write_text("")
    return tmp_path


def test_everything_may_be_said():
    wish = parsed(
        environment="python3", reuse="sandbox", memory_mb=64, timeout="1.5s", concurrency=4, network="none"
    )
    assert (wish.runtime, wish.reuse, wish.memory_mb, wish.timeout_s) == ("python3", Reuse.SANDBOX, 64, 1.5)
    assert wish.concurrency == 4


@pytest.mark.parametrize(
    ("said", "seconds"), [(3, 3), (0.5, 0.5), ("30s", 30), ("500ms", 0.5), ("2m", 120), ("1h", 3600)]
)
def test_a_timeout_is_a_number_of_seconds_or_says_its_unit(said, seconds):
    assert parsed(timeout=said).timeout_s == seconds


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("timeout", "soon", 'a number of seconds, or a string such as "30s"'),
        ("timeout", "-1s", "a number of seconds"),
        ("timeout", True, "a number of seconds"),
        ("timeout", [1], "a number of seconds"),
        ("memory_mb", "128", "a whole number"),
        ("memory_mb", 1.5, "a whole number"),
        ("memory_mb", True, "a whole number"),
        ("concurrency", {}, "a whole number"),
        ("reuse", "always", "one of none, sandbox, process"),
        ("interpreter", True, "one of forked, own"),
        ("reuse", 1, "one of none, sandbox, process"),
        ("network", "host", "one of none, egress"),
        ("egress", "example.org", "a list of at most 64"),
        ("egress", ["example.org:0"], "a list of targets, each a name"),
        ("sandbox", 3, "a string"),
        ("environment", ["python"], "a string"),
        ("environment", "", "a string"),
        ("environment", "py\nthon", "printable"),
        ("handler", "a" * 300, "256"),
    ],
)
def test_a_bad_value_names_key_value_and_what_is_allowed(key, value, words):
    with pytest.raises(BadCode) as caught:
        parsed(**{key: value})
    assert f"'{key}' is " in caught.value.message
    assert words in caught.value.message
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"{" * 100_000, b"[" * 100_000])
def test_what_is_no_json_object_is_told(text):
    with pytest.raises(BadCode, match=r"config\.json is not"):
        parse_config(text)


def test_a_byte_order_mark_and_nulls_are_nothing():
    assert parse_config(b'\xef\xbb\xbf{"environment": "python3", "reuse": null}') == Wish(runtime="python3")


def test_keys_of_others_are_nothing_and_a_misspelt_one_of_ours_is_noted():
    wish = parsed(environment="python3", languages=["python"], modules=[], memmory_mb=5, time_out=1)
    assert wish.memory_mb is None
    assert "'memmory_mb' is ignored, did you mean 'memory_mb'?" in wish.note
    assert "did you mean 'timeout'?" in wish.note
    assert "languages" not in wish.note


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(memory_mb=2000), "'memory_mb' is 2000; this node allows 8 to 1024"),
        (Wish(memory_mb=-1), "'memory_mb' is -1"),
        (Wish(timeout_s=0.0), "'timeout' is 0 s; this node allows 0.001 to 900 s"),
        (Wish(timeout_s=float("inf")), "'timeout' is inf s"),
        (Wish(concurrency=0), "'concurrency' is 0"),
    ],
)
def test_more_than_the_node_allows_is_refused(wish, words):
    with pytest.raises(BadRequest) as caught:
        check(wish, TERMS, BadRequest)
    assert words in caught.value.message


def test_what_is_not_said_is_the_nodes_default(root):
    function = describe("front/W1", Wish(runtime="python3"), root, TERMS, choose)
    assert (function.name, function.runtime, function.handler) == ("W1", "python", "main.lambda_handler")
    assert (function.limits.memory_mb, function.limits.timeout_s) == (96, 12)
    assert (function.reuse, function.concurrency, function.max_concurrency) == (None, 1, 0)


def test_a_mapped_version_is_noted(root):
    assert (
        "python3.7 is not installed" in describe("f/x", Wish(runtime="python3.7"), root, TERMS, choose).note
    )


def test_a_missing_entry_names_the_file_and_what_is_there(tmp_path):
    (tmp_path / "app.py").write_text("")
    with pytest.raises(BadCode, match=r"'W1' has no main\.py, which python needs .* it holds app\.py"):
        describe("front/W1", Wish(runtime="python3"), tmp_path, TERMS, choose)


def test_a_package_without_config_json_is_told(root):
    with pytest.raises(BadCode, match=r"no config\.json"):
        read_config(root)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_a_config_json_that_is_no_small_file_is_refused(root, kind):
    path = root / "config.json"
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            path.write_bytes(b" " * 100_000)
    with pytest.raises(BadCode, match=r"config\.json"):
        read_config(root)


def test_the_revision_follows_whatever_is_in_force(root):
    plain = Wish(runtime="python3")
    first = revised(describe("front/W1", plain, root, TERMS, choose), "digest").revision
    assert first == revised(describe("front/W1", plain, root, TERMS, choose), "digest").revision
    others = [
        revised(describe("front/W1", plain, root, TERMS, choose), "other"),
        revised(describe("front/W1", Wish(runtime="python3", memory_mb=64), root, TERMS, choose), "digest"),
        revised(
            describe("front/W1", Wish(runtime="python3", environment={"a": "b"}), root, TERMS, choose),
            "digest",
        ),
    ]
    assert len({first, *(function.revision for function in others)}) == 4
