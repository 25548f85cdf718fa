from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.errors import SettingsError
from stoker.settings import Key, Settings, default_home, keys, load


def write(folder: Path, text: str) -> Path:
    file = folder / "stoker.toml"
    file.write_text(text)
    return file


def refusal(**given: object) -> str:
    arguments: dict[str, object] = {"flags": {}, "environ": {}, "cwd": Path("/"), **given}
    with pytest.raises(SettingsError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    return caught.value.message


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    settings = load({"home": str(tmp_path)}, {}, tmp_path)
    assert settings == Settings(home=tmp_path)


def test_flags_are_stronger_than_the_environment_and_that_than_the_file(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\nmax_calls = 2\nkeep_s = 3\n")
    environ = {"STOKER_PORT": "10", "STOKER_MAX_CALLS": "20"}
    settings = load({"home": str(tmp_path), "port": "100", "keep_s": None}, environ, Path("/"))
    assert (settings.port, settings.max_calls, settings.keep_s) == (100, 20, 3)


def test_the_file_of_the_working_directory_comes_before_that_of_the_home(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir(), cwd.mkdir()
    write(home, "port = 1")
    assert load({"home": home}, {}, cwd).port == 1
    write(cwd, "max_calls = 7")
    settings = load({"home": home}, {}, cwd)
    assert (settings.port, settings.max_calls) == (8222, 7)


@pytest.mark.parametrize("source", ["flag", "environment"])
def test_a_named_file_comes_before_every_other(tmp_path: Path, source: str) -> None:
    write(tmp_path, "port = 1")
    (tmp_path / "mine.toml").write_text("port = 2")
    flags = {"config": "mine.toml"} if source == "flag" else {}
    environ = {"STOKER_CONFIG": "mine.toml"} if source == "environment" else {}
    assert load(flags, environ, tmp_path).port == 2


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    message = refusal(flags={"config": "mine.toml"}, cwd=tmp_path)
    assert message == f"{tmp_path}/mine.toml: cannot be read: No such file or directory"


def test_the_contracts_own_variables_are_read() -> None:
    environ = {
        "USER_FUNCTION_URL_PREFIX": "https://example.org/f/",
        "USER_CODE_SIZE_LIMIT": "1000",
        "CONTAINER_POOL_LIMIT": "3",
        "CONTAINER_POOL_NUM": "2",
        "USING_REST_MODE": "True",
        "REST_CONTAINER_LIFE_TIME": "20.5",
    }
    settings = load({}, environ, Path("/"))
    assert settings.function_url_prefix == "https://example.org/f/"
    assert (settings.code_size_limit_bytes, settings.pool_limit, settings.pool_num) == (1000, 3, 2)
    assert (settings.rest_mode, settings.rest_life_s) == (True, 20.5)


def test_our_own_variable_is_stronger_than_the_contracts() -> None:
    environ = {"STOKER_POOL_NUM": "1", "CONTAINER_POOL_NUM": "2"}
    assert load({}, environ, Path("/")).pool_num == 1


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({}, {"STOKER_PORT": "", "USER_FUNCTION_URL_PREFIX": ""}, Path("/")).port == 8222


def test_variables_that_are_no_settings_pass_when_they_have_a_meaning() -> None:
    load({}, {"STOKER_PROMISED": "lean", "PATH": "/bin"}, Path("/"))


def test_an_unknown_variable_names_the_nearest() -> None:
    message = refusal(environ={"STOKER_PROT": "1"})
    assert message == "STOKER_PROT in the environment is no setting; did you mean 'STOKER_PORT'?"


def test_an_unknown_key_of_the_file_names_its_line_and_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "# mine\nport = 9000\n\nmax_cals = 3\n")
    message = refusal(cwd=tmp_path)
    assert message == f"{file}, line 4: no setting 'max_cals'; did you mean 'max_calls'?"


def test_an_unknown_table_of_the_file_names_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 9000\n[pool]\nnum = 3\n")
    assert refusal(cwd=tmp_path).startswith(f"{file}, line 2: no setting 'pool'; did you mean 'pool_")


def test_a_key_like_no_other_lists_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "zzzzzzzz = 1")
    assert "there is home, host, port" in refusal(cwd=tmp_path)


def test_an_unknown_flag_names_the_nearest() -> None:
    assert refusal(flags={"max_cals": 1}) == "--max-cals is no setting; did you mean 'max_calls'?"


def test_a_bad_value_of_the_file_names_its_line_and_what_is_allowed(tmp_path: Path) -> None:
    file = write(tmp_path, "\nport = 70000")
    expected = f"{file}, line 2: 70000 is not allowed; port is a whole number from 0 to 65535"
    assert refusal(cwd=tmp_path) == expected


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    file = write(tmp_path, "port = \n")
    message = refusal(cwd=tmp_path)
    assert message.startswith(f"{file}: not TOML: ")
    assert "line 1" in message


def test_a_file_that_is_no_text_says_where(tmp_path: Path) -> None:
    file = tmp_path / "stoker.toml"
    file.write_bytes(b"port = \xff")
    assert refusal(cwd=tmp_path) == f"{file}: not UTF-8 at byte 7"


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").mkdir()
    assert refusal(cwd=tmp_path) == f"{tmp_path}/stoker.toml: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("STOKER_PORT", "-1", "port is a whole number from 0 to 65535"),
        ("STOKER_PORT", "http", "port is a whole number from 0 to 65535"),
        ("STOKER_PORT", "80.5", "port is a whole number from 0 to 65535"),
        ("STOKER_MAX_EVENT_MB", "0", "max_event_mb is a number above 0 to 1024"),
        ("STOKER_MEMORY_MB", "0", "memory_mb is a whole number from 1 to 67108864 or none"),
        ("STOKER_LOG_LEVEL", "loud", "log_level is one of debug, info, warning, error"),
        ("STOKER_SANDBOX", "../lean", "sandbox is a backend's name, such as lean"),
        ("STOKER_HOST", "a b", "host is an address"),
        ("STOKER_HOME", "a\0b", "home is a path"),
        ("STOKER_HOME", "\ud800", "home is a path"),
        ("STOKER_PORT", "\udcff", "port is a whole number from 0 to 65535"),
        ("STOKER_USER", "a:b", "user is the name of a user"),
        ("USING_REST_MODE", "maybe", "rest_mode is true or false"),
        ("CONTAINER_POOL_LIMIT", "-2", "pool_limit is a whole number from -1 to 100000"),
    ],
)
def test_a_bad_variable_names_itself_its_value_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    message = refusal(environ={variable: value})
    assert message == f"{variable} in the environment: {value!r} is not allowed; {allowed}"


def test_a_very_long_bad_value_is_shown_cut() -> None:
    message = refusal(environ={"STOKER_PORT": "1" * 5000})
    assert len(message) < 300


def floats() -> list[Key]:
    return [key for key in keys().values() if isinstance(key.kind, msgspec.inspect.FloatType)]


@pytest.mark.parametrize("key", floats(), ids=lambda key: key.name)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e308", "1e400"])
def test_no_number_is_infinite_negative_or_none_at_all(key: Key, value: str) -> None:
    assert "is not allowed" in refusal(environ={key.env[0]: value})


@example(name="port", value="\ud800")
@example(name="home", value="\ud800")
@given(value=st.text(st.characters(exclude_characters="\0"), max_size=30), name=st.sampled_from(list(keys())))
def test_whatever_is_written_ends_as_a_setting_or_a_refusal(name: str, value: str) -> None:
    try:
        settings = load({name: value}, {}, Path("/nowhere"))
    except SettingsError:
        return
    assert msgspec.convert(
        getattr(settings, name), keys()[name].hint, dec_hook=lambda _type, path: path
    ) == getattr(settings, name)


@pytest.mark.parametrize("key", list(keys().values())[1:], ids=lambda key: key.name)
def test_every_default_is_itself_allowed(key: Key) -> None:
    assert msgspec.convert(key.default, key.hint) == key.default


@pytest.mark.parametrize("key", list(keys().values()), ids=lambda key: key.name)
def test_every_setting_has_its_own_variable_and_a_meaning(key: Key) -> None:
    assert key.env[0] == f"STOKER_{key.name.upper()}"
    assert key.meaning
    assert get_args(key.hint)


def test_optional_settings_can_be_set_to_none(tmp_path: Path) -> None:
    write(tmp_path, "memory_mb = 100\nmax_memory_mb = 'none'")
    assert load({"memory_mb": "none"}, {}, tmp_path).memory_mb is None


def test_a_default_above_its_maximum_is_refused() -> None:
    message = refusal(environ={"STOKER_MAX_MEMORY_MB": "100"})
    assert message == (
        "STOKER_MAX_MEMORY_MB in the environment: default_memory_mb (128) is more than max_memory_mb (100)"
    )


def test_a_relative_home_is_relative_to_where_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = write(tmp_path / "etc", "home = '../data'")
    assert load({"config": str(file)}, {}, Path("/")).home == tmp_path / "data"
    assert load({"home": "data"}, {}, tmp_path).home == tmp_path / "data"
    assert load({}, {"STOKER_HOME": "~/s", "HOME": "/home/x"}, tmp_path).home == Path("/home/x/s")


def test_a_file_in_the_home_cannot_name_another_home(tmp_path: Path) -> None:
    file = write(tmp_path, "home = '/elsewhere'")
    message = refusal(flags={"home": str(tmp_path)}, cwd=Path("/"))
    assert message == f"{file}, line 1: home is {tmp_path}, where this file is; remove the line"


@pytest.mark.skipif(os.geteuid() != 0, reason="root's home is asked")
def test_root_lives_in_var_lib() -> None:
    assert default_home({"XDG_DATA_HOME": "/x"}) == Path("/var/lib/stoker")


def test_two_homes_have_two_node_ids_and_one_home_has_one() -> None:
    here, there = Settings(home=Path("/a")), Settings(home=Path("/b"))
    assert here.node_id != there.node_id
    assert here.node_id == Settings(home=Path("/a"), port=1).node_id
    assert len(here.node_id) == 8
