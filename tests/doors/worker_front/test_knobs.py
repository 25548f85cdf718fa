from __future__ import annotations

import msgspec
import pytest

from stoker.doors.worker_front.knobs import Knobs, State
from stoker.errors import BadRequest


class Applied(list[State]):
    """Remembers what was put into force."""

    def knobs(self, state: State = State()) -> Knobs:  # noqa: B008 - frozen
        return Knobs(state, self.append)


def test_the_state_is_shown_in_the_protocols_casing() -> None:
    assert msgspec.json.encode(State()) == (
        b'{"UserCodeSizeLimit":-1,"ContainerPoolLimit":-1,"ContainerPoolNum":6,'
        b'"UsingRestMode":false,"RestContainerLifeTime":10}'
    )


def test_every_knob_can_be_changed_at_once() -> None:
    applied = Applied()
    knobs = applied.knobs()
    assert knobs.change(
        [
            ("using_rest_mode", "TRUE"),
            ("rest_container_life_time", "20"),
            ("user_code_size_limit", "1000000"),
            ("container_pool_limit", "0"),
            ("container_pool_num", "2"),
        ]
    )
    after = State(
        user_code_size_limit=1_000_000,
        container_pool_limit=0,
        container_pool_num=2,
        using_rest_mode=True,
        rest_container_life_time=20,
    )
    assert (knobs.state, applied) == (after, [after])


@pytest.mark.parametrize("wishes", [[], [("container_pool_num", "6"), ("using_rest_mode", "false")]])
def test_the_same_values_change_nothing(wishes: list[tuple[str, str]]) -> None:
    applied = Applied()
    assert not applied.knobs().change(wishes)
    assert applied == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "container_pool_num",
            "six",
            "container_pool_num is 'six'; it must be a whole number from 0 to 10000",
        ),
        ("container_pool_num", "-1", "container_pool_num is '-1'; it must be a whole number from 0 to 10000"),
        ("container_pool_num", "", "container_pool_num is ''; it must be a whole number from 0 to 10000"),
        (
            "container_pool_num",
            "1_0",
            "container_pool_num is '1_0'; it must be a whole number from 0 to 10000",
        ),
        ("container_pool_num", "٣", "container_pool_num is '٣'; it must be a whole number from 0 to 10000"),
        (
            "container_pool_limit",
            "1e3",
            "container_pool_limit is '1e3'; it must be a whole number from -1 to 100000",
        ),
        (
            "container_pool_limit",
            "--1",
            "container_pool_limit is '--1'; it must be a whole number from -1 to 100000",
        ),
        (
            "user_code_size_limit",
            "9" * 5000,
            f"user_code_size_limit is '{'9' * 60}…'; it must be a whole number from -1 to {2**62}",
        ),
        ("using_rest_mode", "1", "using_rest_mode is '1'; it must be true or false"),
        (
            "rest_container_life_time",
            "nan",
            "rest_container_life_time is 'nan'; it must be a number of seconds from 0 to 2592000",
        ),
        (
            "rest_container_life_time",
            "1e999",
            "rest_container_life_time is '1e999'; it must be a number of seconds from 0 to 2592000",
        ),
        (
            "rest_container_life_time",
            "-1",
            "rest_container_life_time is '-1'; it must be a number of seconds from 0 to 2592000",
        ),
    ],
)
def test_a_value_out_of_range_names_key_value_and_range(key: str, value: str, message: str) -> None:
    applied = Applied()
    knobs = applied.knobs()
    with pytest.raises(BadRequest) as refused:
        knobs.change(
            [("using_rest_mode", "true"), (key, value)] if key != "using_rest_mode" else [(key, value)]
        )
    assert refused.value.message == message
    assert (knobs.state, applied) == (State(), [])


def test_an_unknown_key_names_those_that_exist() -> None:
    with pytest.raises(BadRequest) as refused:
        Applied().knobs().change([("rest_mode", "true")])
    assert refused.value.message == (
        "unknown key 'rest_mode'; there are user_code_size_limit, container_pool_limit, container_pool_num, "
        "using_rest_mode, rest_container_life_time"
    )


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest) as refused:
        Applied().knobs().change([("container_pool_num", "1"), ("container_pool_num", "2")])
    assert refused.value.message == "'container_pool_num' is given more than once"


@pytest.mark.parametrize(("value", "shown"), [("0", b"0"), ("20", b"20"), ("2.5", b"2.5"), ("20.0", b"20")])
def test_a_life_time_is_shown_as_an_integer_when_it_is_one(value: str, shown: bytes) -> None:
    knobs = Applied().knobs()
    knobs.change([("rest_container_life_time", value)])
    assert msgspec.json.encode(knobs.state).endswith(b'"RestContainerLifeTime":%b}' % shown)
