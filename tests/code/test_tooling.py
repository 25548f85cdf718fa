"""The host's settings on their way into builds: all that matters, at a place that builds see, and no more."""

from __future__ import annotations

import configparser
import os
import stat
from pathlib import Path

import pytest

from code_room import PYTHON, translated
from stoker.code.luggage import linked_folders
from stoker.code.tooling import builder_launch
from stoker.sandboxes.contract import Launch, Show
from stoker.settings import Settings

BASE = Launch(
    name="python-3.11.7",
    argv=(str(PYTHON), "-I", "/app/server.py"),
    environment={"LANG": "C.UTF-8"},
    shows=(Show("/host/server.py", "/app/server.py"),),
    fork="/app/server.py",
)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's home."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


@pytest.fixture
def build(home: Path, user: Path):
    """The launch of builds for a machine with these variables."""

    def with_environ(**environ: str) -> Launch:
        plain = {"HOME": str(user), "PATH": "/usr/bin:/bin", "XDG_CONFIG_DIRS": str(user / "xdg")}
        return builder_launch(BASE, Settings(home=home), environ=plain | environ)

    return with_environ


def config_of(launch: Launch) -> configparser.RawConfigParser:
    reader = configparser.RawConfigParser()
    reader.read(translated(launch.environment["PIP_CONFIG_FILE"], launch))
    return reader


def test_it_is_the_base_with_a_name_of_its_own_and_no_zygote(build):
    launch = build()
    assert launch.argv == BASE.argv
    assert launch.name == "python-3.11.7-builder"
    assert launch.fork is None
    assert BASE.shows[0] in launch.shows
    assert launch.environment["LANG"] == "C.UTF-8"
    assert launch.environment["STOKER_TOOL_PYTHON_3_11_7"] == str(PYTHON)


def test_names_are_resolved_as_on_the_host(build):
    targets = {show.target: show.source for show in build().shows}
    assert targets["/etc/hosts"] == str(Path("/etc/hosts").resolve())


@pytest.mark.parametrize("network", ["egress", "none"])
def test_a_build_without_the_hosts_network_resolves_no_names_as_the_host_does(home, network):
    launch = builder_launch(BASE, Settings(home=home, build_network=network), [BASE], {})
    assert not {"/etc/hosts", "/etc/resolv.conf"} & {show.target for show in launch.shows}


def test_every_tool_is_named_and_shown(home):
    node = Launch(name="nodejs-20.1.0", argv=("/app/node/bin/node",), shows=(Show("/opt/node", "/app/node"),))
    launch = builder_launch(BASE, Settings(home=home), [BASE, node], {})
    assert launch.environment["STOKER_TOOL_NODEJS_20_1_0"] == "/app/node/bin/node"
    assert [show.target for show in launch.shows].count("/app/server.py") == 1
    assert Show("/opt/node", "/app/node") in launch.shows


def test_variables_of_installers_and_proxies_go_in_and_others_do_not(build):
    environ = {
        "PIP_INDEX_URL": "https://me:secret@mirror/simple",
        "npm_config_registry": "https://npm.mirror/",
        "NPM_CONFIG_STRICT_SSL": "false",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "NODE_OPTIONS": "--require /root/x.js --use-openssl-ca",
        "PIP_TARGET": "/somewhere",
        "PIP_CACHE_DIR": "/root/.cache",
        "npm_config_prefix": "/somewhere",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "STOKER_HOME": "/x",
    }
    inside = build(**environ).environment
    for name in ("PIP_INDEX_URL", "npm_config_registry", "NPM_CONFIG_STRICT_SSL", "https_proxy", "NO_PROXY"):
        assert inside[name] == environ[name]
    assert inside["NODE_OPTIONS"] == "--use-openssl-ca"
    for name in ("PIP_TARGET", "PIP_CACHE_DIR", "npm_config_prefix", "AWS_SECRET_ACCESS_KEY", "STOKER_HOME"):
        assert name not in inside


def test_pips_files_are_merged_as_pip_would_read_them(build, user):
    (user / "xdg/pip").mkdir(parents=True)
    (user / "xdg/pip/pip.conf").write_text(
        "[global]\ntimeout = 1\nindex_url = https://machine/\n[install]\npre = yes\n"
    )
    (user / ".config/pip").mkdir(parents=True)
    (user / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://user/\ntarget = /x\nuser = yes\n"
    )
    said = user / "said.conf"
    said.write_text("[global]\nextra-index-url =\n  https://one/\n  https://two/\n")
    config = config_of(build(PIP_CONFIG_FILE=str(said)))
    assert config["global"]["index-url"] == "https://user/"
    assert config["global"]["timeout"] == "1"
    assert config["global"]["extra-index-url"].split() == ["https://one/", "https://two/"]
    assert config["install"]["pre"] == "yes"
    assert "target" not in config["global"] and "user" not in config["global"]


def test_a_config_file_of_dev_null_means_none(build, user):
    (user / ".pip").mkdir()
    (user / ".pip/pip.conf").write_text("[global]\ntimeout = 1\n")
    assert config_of(build(PIP_CONFIG_FILE="/dev/null")).sections() == []


def test_a_broken_config_file_does_not_stop_the_node(build, user):
    (user / ".pip").mkdir()
    (user / ".pip/pip.conf").write_text("timeout = 1\n")
    assert not config_of(build()).has_option("global", "timeout")


def test_certificates_go_in_as_copies(build, user, home):
    ca = user / "ca.pem"
    ca.write_text("certificate")
    ca.chmod(0o600)
    (user / ".pip").mkdir()
    (user / ".pip/pip.conf").write_text(f"[global]\ncert = {ca}\n")
    launch = build(REQUESTS_CA_BUNDLE=str(ca), NODE_EXTRA_CA_CERTS="~/missing.pem")
    for path in (launch.environment["REQUESTS_CA_BUNDLE"], config_of(launch)["global"]["cert"]):
        assert path.startswith("/app/settings/")
        copy = Path(translated(path, launch))
        assert copy.read_text() == "certificate"
        assert copy.parent == home / "build-settings"
        assert stat.S_IMODE(copy.stat().st_mode) == 0o644


def test_the_copies_belong_to_the_owner_of_the_home_and_nobody_else_reaches_them(build, home):
    if os.geteuid() == 0:
        os.chown(home, 64321, 64321)
    launch = build()
    settings = home / "build-settings"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o700
    copy = Path(translated(launch.environment["PIP_CONFIG_FILE"], launch))
    assert {settings.stat().st_uid, copy.stat().st_uid} == {home.stat().st_uid}


def test_local_folders_are_shown_where_settings_expect_them(build, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    launch = build(PIP_FIND_LINKS=f"{wheels} https://elsewhere/")
    assert launch.environment["PIP_FIND_LINKS"] == f"{wheels} https://elsewhere/"
    assert Show(str(wheels), str(wheels)) in launch.shows


def test_a_local_index_is_shown_with_the_folders_that_its_pages_link_to(build, tmp_path):
    page = tmp_path / "simple/jinja2/index.html"
    page.parent.mkdir(parents=True)
    (tmp_path / "files/a").mkdir(parents=True)
    (tmp_path / "files/a/jinja2.whl").touch()
    (tmp_path / "private").mkdir()
    page.write_text(
        '<a href="../../files/a/jinja2.whl#sha256=0">x</a> <a href="https://x/y.whl">y</a>'
        ' <a href="../../../../../../../../no/such.whl">z</a> <a href="../">up</a>'
    )
    assert linked_folders(tmp_path / "simple") == {tmp_path / "files"}
    launch = build(PIP_EXTRA_INDEX_URL=f"file://{tmp_path}/simple file:///nowhere/simple")
    shown = {show.target for show in launch.shows if show.target.startswith(str(tmp_path))}
    assert shown == {f"{tmp_path}/simple", f"{tmp_path}/files"}


def test_npms_files_go_in_with_the_variables_they_use(build, user):
    ca = user / "ca.pem"
    ca.write_text("certificate")
    (user / ".npmrc").write_text(
        "//registry.example/:_authToken=${NPM_TOKEN}\n; a comment\n"
        f'prefix=/x\ncache = /y\ncafile="{ca}"\nomit[]=dev\nregistry=https://registry.example/\n'
    )
    launch = build(NPM_TOKEN="secret", OTHER="x")
    assert launch.environment["NPM_TOKEN"] == "secret"
    assert "OTHER" not in launch.environment
    text = Path(translated(launch.environment["npm_config_userconfig"], launch)).read_text()
    assert "_authToken=${NPM_TOKEN}" in text and "registry=https://registry.example/" in text
    assert "prefix" not in text and "cache" not in text and "omit" not in text
    inside = text.split('cafile="')[1].split('"')[0]
    assert Path(translated(inside, launch)).read_text() == "certificate"
    assert "npm_config_globalconfig" in launch.environment


def test_a_second_start_begins_with_nothing_of_the_first(build, user, home):
    (user / ".npmrc").write_text("registry=https://first/\n")
    build()
    (user / ".npmrc").unlink()
    build()
    assert all("first" not in path.read_text() for path in (home / "build-settings").iterdir())


def test_a_link_in_the_place_of_the_folder_is_not_followed(build, home, tmp_path):
    (tmp_path / "victim").mkdir()
    (home / "build-settings").symlink_to(tmp_path / "victim")
    build()
    assert list((tmp_path / "victim").iterdir()) == []
    assert (home / "build-settings/pip.conf").is_file()


def test_what_cannot_be_read_is_left_out(build, tmp_path):
    assert build(SSL_CERT_FILE=str(tmp_path / "no.pem")).environment["SSL_CERT_FILE"] == str(
        tmp_path / "no.pem"
    )
