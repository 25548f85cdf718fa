from __future__ import annotations

import json

import pytest

from doors.asgi import Reply, ask
from doors.canned import CannedNode, Paper
from stoker.doors.worker_front import Door
from stoker.errors import BuildFailed, CodeUnavailable, NoSuchFunction
from stoker.types import Reuse

STATE = (
    b'"State":{"UserCodeSizeLimit":-1,"ContainerPoolLimit":-1,"ContainerPoolNum":6,'
    b'"UsingRestMode":false,"RestContainerLifeTime":10}}'
)


async def get(node: CannedNode, target: str) -> Reply:
    return await ask(Door(node).handlers(), "GET", target)


async def test_configure_without_wishes_shows_the_state() -> None:
    reply = await get(CannedNode(), "/configure")
    assert (reply.status, reply.body) == (200, b'{"Message":"nothing changed",' + STATE)
    assert reply.headers[b"content-type"] == b"application/json"


async def test_the_first_state_comes_from_the_settings() -> None:
    node = CannedNode(code_size_limit_bytes=5, pool_limit=4, pool_num=3, rest_mode=True, rest_life_s=2.5)
    assert json.loads((await get(node, "/configure")).body)["State"] == {
        "UserCodeSizeLimit": 5,
        "ContainerPoolLimit": 4,
        "ContainerPoolNum": 3,
        "UsingRestMode": True,
        "RestContainerLifeTime": 2.5,
    }


async def test_a_change_takes_effect_for_the_next_call() -> None:
    node = CannedNode()
    door = Door(node)
    reply = await ask(door.handlers(), "GET", "/configure?using_rest_mode=true&rest_container_life_time=20")
    said = json.loads(reply.body)
    assert said["Message"] == "configure changed"
    assert (said["State"]["UsingRestMode"], said["State"]["RestContainerLifeTime"]) == (True, 20)
    door.routes()[0].answer(Paper("GET", "/execute?name=W1"))
    assert (node.calls[0].reuse, node.calls[0].keep_s) == (Reuse.SANDBOX, 20.0)


async def test_limit_and_pools_reach_their_rooms() -> None:
    node = CannedNode()
    target = "/configure?user_code_size_limit=1000&container_pool_limit=2&container_pool_num=1"
    assert (await get(node, target)).status == 200
    assert (node.code.limits, node.pool.prewarm) == ([1000], [(2, 1)])


async def test_the_pools_of_the_settings_are_in_force_from_the_start() -> None:
    node = CannedNode(pool_limit=3, pool_num=2)
    await Door(node).open()
    assert node.pool.prewarm == [(3, 2)]


@pytest.mark.parametrize(
    "query", ["container_pool_num=x", "pool=1", "using_rest_mode=true&container_pool_num=-7"]
)
async def test_a_bad_wish_changes_nothing(query: str) -> None:
    node = CannedNode()
    door = Door(node)
    reply = await ask(door.handlers(), "GET", "/configure?" + query)
    assert reply.status == 400
    assert list(json.loads(reply.body)) == ["Error", "Message"]
    assert (await ask(door.handlers(), "GET", "/configure")).body == b'{"Message":"nothing changed",' + STATE
    assert (node.code.limits, node.pool.prewarm) == ([], [])


async def test_clear_removes_the_sandboxes() -> None:
    node = CannedNode()
    reply = await get(node, "/clear")
    assert (reply.status, reply.text) == (200, "done; reset_images=false")
    assert reply.headers[b"content-type"].startswith(b"text/plain")
    assert (node.pool.cleared, node.code.forgotten) == (["front"], [])


async def test_clear_forgets_prepared_code_when_asked() -> None:
    node = CannedNode()
    reply = await get(node, "/clear?reset_images=true")
    assert (reply.status, reply.text) == (200, "done; reset_images=true")
    assert (node.pool.cleared, node.code.forgotten) == (["front"], ["front"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("reset_images=yes", "reset_images is 'yes'; it must be true or false"),
        ("reset_image=true", "unknown key 'reset_image'; there is reset_images"),
    ],
)
async def test_clear_refuses_what_it_cannot_read(query: str, message: str) -> None:
    node = CannedNode()
    reply = await get(node, "/clear?" + query)
    assert (reply.status, json.loads(reply.body)) == (400, {"Error": True, "Message": message})
    assert node.pool.cleared == []


async def test_prepare_fetches_and_builds_every_function_of_the_list() -> None:
    node = CannedNode()
    node.code.list = ["W1", "W2"]
    reply = await get(node, "/prepare")
    assert (reply.status, reply.text) == (200, "done")
    assert node.code.fetched == ["front/W1", "front/W2"]
    assert all(pin.is_released for pin in node.code.pins)


async def test_prepare_names_what_failed_and_prepares_the_rest() -> None:
    node = CannedNode()
    node.code.list = ["W1", "W2", "W3"]
    node.code.broken = {
        "front/W1": NoSuchFunction("there is no W1.zip"),
        "front/W3": BuildFailed("pip said:\n  no such thing"),
    }
    reply = await get(node, "/prepare")
    assert (reply.status, reply.text) == (500, "W1: there is no W1.zip\nW3: pip said: no such thing")
    assert len(node.code.pins) == 1
    assert node.code.pins[0].is_released


async def test_prepare_without_a_list_says_so() -> None:
    node = CannedNode()
    node.code.list = CodeUnavailable("there is no lists.txt")
    reply = await get(node, "/prepare")
    assert (reply.status, json.loads(reply.body)) == (
        500,
        {"Error": True, "Message": "there is no lists.txt"},
    )
