"""No request fails while servers change: real visitors, on kept and on new connections, plain and with TLS, some of
them in the middle of a slow answer or of an upload when their server is replaced."""

from __future__ import annotations

import io
import json
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from tests.engine.site import MIB, ROLLED, Site
from tests.engine.support import curl, wait_until
from tests.load import Load, Visitor, ask, connected, visitors

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(daemon: Any, token: str, python_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("rolling") / "rolling"
    folder.mkdir()
    stack = Site(folder, f"{token}-rolling", daemon)
    try:
        stack.begin()
        yield stack
    finally:
        stack.destroy()
        stack.purge()
        mine = f"consolidate-tests/{stack.name}"
        for tag in {t for i in daemon.images.list(mine) for t in i.tags if t.startswith(f"{mine}:")}:
            daemon.images.remove(tag)


def two_images(site: Site, server: str) -> tuple[str, str]:
    """The image that a server is made of, and another like it."""
    now = site.containers()[server]["Config"]["Image"]
    tag = f"consolidate-tests/{site.name}:{server}-{uuid.uuid4().hex[:6]}"
    text = f"FROM {now}\nLABEL made={uuid.uuid4().hex}\n"
    site.daemon.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True)
    return now, tag


def memory(turn: int) -> dict[str, int]:
    """MiB that each server may have."""
    return {s: least + turn for s, least in zip(ROLLED, (65, 257, 385, 129), strict=True)}


def change_all(site: Site, turn: int, images: dict[str, tuple[str, str]]) -> None:
    """Another image, setting, content, limit and environment for each server; a blog has no content, nor a container."""
    site.put("www/index.html", f"<h1>Here</h1>{turn}\n")
    site.put("app/index.php", f"<h1>Here</h1>{turn}\n")
    own: dict[str, dict[str, Any]] = {
        "www": {"cache": f"{turn + 1}s"},
        "app": {"upload_max": f"{turn + 65}M"},
        "blog": {"upload_max": f"{turn + 65}M"},
        "api": {"command": ["python3", "/api.py", f"turn {turn}"]},
    }
    for server, setting in own.items():
        limits = {"memory": f"{memory(turn)[server]}M"}
        both = {"image": images[server][(turn + 1) % 2], "resources": limits, "environment": {"TURN": str(turn)}}
        site.change({server: both | setting})


def told_by(site: Site) -> dict[str, str]:
    """What each server's program makes of its content and of its setting."""
    www, app, limit = site.get("www"), site.get("app"), site.get("app", "/told.php")
    blog, api = site.get("blog", "/?told"), site.get("api")
    cache = www.header("Cache-Control")
    return {"www": f"{www.body}{cache}", "app": f"{app.body}{limit.body}", "blog": blog.body, "api": api.body}


def certificate(site: Site, host: str) -> int:
    """The serial number of the certificate that is served for `host`."""
    with (
        socket.create_connection(("127.0.0.1", site.https), 5) as plain,
        site.trust.wrap_socket(plain, server_hostname=host) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


def told(load: Load, what: str, begun: float) -> None:
    print(
        f"{what:12} {begun:6.1f}–{load.now():.1f} s, {sum(load.answers.values())} answers, {len(load.failures)} failed"
    )


def test_changes_in_a_row_fail_no_request(site: Site, pytestconfig: pytest.Config) -> None:
    """Each is of the image, a setting, the content, the limits and the environment of four servers at once. Ten of them, or
    two where time is short.
    """
    images = {s: two_images(site, s) for s in ROLLED}
    with visitors(*site.visitors(*ROLLED)) as load:
        load.another_round()
        before = site.containers()
        for turn in range(2 if pytestconfig.getoption("--without-long") else 10):
            change_all(site, turn, images)
            begun = load.now()
            site.up()
            told(load, f"turn {turn}", begun)

            after, now = site.containers(), told_by(site)
            for server in ROLLED:
                old, new = before[server], after[server]
                assert new["Image"] != old["Image"]
                assert new["HostConfig"]["Memory"] == memory(turn)[server] * MIB
                assert f"TURN={turn}" in new["Config"]["Env"]
                assert not site.daemon.api.containers(all=True, filters={"id": old["Id"]}), "the old one is removed"
            assert now == {
                "www": f"<h1>Here</h1>{turn}\nmax-age={turn + 1}",
                "app": f"<h1>Here</h1>{turn}\n{(turn + 65) * MIB}",
                "blog": f"{(turn + 65) * MIB}",
                "api": f"Here['turn {turn}']",
            }
            assert others(after) == others(before)
            assert site.orphans() == []
            before = after
        load.another_round()
    assert load.failed() == []
    assert load.connections["www kept"] == load.connections["www kept, TLS"] == 1, "the proxy was not even reloaded"


def others(containers: dict[str, Any]) -> dict[str, str]:
    return {c["Id"]: c["State"]["StartedAt"] for s, c in containers.items() if s not in ROLLED}


def test_changes_around_a_server_fail_no_request(site: Site) -> None:
    """Another server comes and goes, a certificate and a route change: the proxy reloads, and nobody notices."""
    with visitors(*site.visitors(*ROLLED)) as load:
        load.another_round()
        before, serial = site.identities(), certificate(site, "www.test")

        begun = load.now()
        site.change({"shop": {"kind": "web", "domains": ["shop.test"]}})
        site.up()
        assert site.get("shop").status == 200
        told(load, "added", begun)

        begun = load.now()
        site.run("secret", "rotate", "edge/www.test")
        site.up()
        assert certificate(site, "www.test") != serial
        told(load, "certificate", begun)

        begun = load.now()
        site.change({"app": {"domains": ["app.test", "also.test"]}})
        site.up()
        assert site.get("also").status == 200
        told(load, "route", begun)

        begun = load.now()
        site.change({"shop": None, "app": {"domains": ["app.test"]}})
        site.up()
        assert site.get("shop").status == 404
        told(load, "removed", begun)
        load.another_round()
        after = site.identities()
    assert load.failed() == []
    print(load.connections)
    assert {s for s in after if after[s] != before.get(s)} <= {"app"}


def test_what_was_replaced_goes_back_and_fails_no_request(site: Site) -> None:
    """With all or nothing: the second server fails when the first one has been replaced, and serves already."""
    file, pages = site.file.read_text(), {f: (site.folder / f).read_text() for f in ("www/index.html", "app/index.php")}
    before, said = site.identities(), [site.get(s).body for s in ("www", "app")]
    seen: set[bytes] = set()
    watcher = Visitor("watcher", "www.test", site.http, expect=lambda answer, _: not seen.add(answer))
    with visitors(watcher, *site.visitors("www", "app")) as load:
        load.another_round()
        for page in pages:
            site.put(page, "<h1>Here</h1> is what nobody wants\n")
        site.change({"app": {"health": {"test": ["CMD", "false"]}}})
        done = site.up("--all-or-nothing", "--wait-timeout", "8", status=1)
        load.another_round()
        again = [site.get(s).body for s in ("www", "app")]
    site.file.write_text(file)
    for page, text in pages.items():
        site.put(page, text)
    assert "app failed: what has been done for the others is taken back" in done.err
    assert load.failed() == []
    assert seen == {said[0].encode(), b"<h1>Here</h1> is what nobody wants\n"}, "the first one had been replaced"
    assert again == said
    after = site.identities()
    assert {s: c[0] for s, c in after.items()} == {s: c[0] for s, c in before.items()}, "the containers that ran before"
    assert {s for s in after if after[s] != before[s]} <= {"www"}
    assert site.orphans() == []
    assert "nothing to change" in site.up().out


def test_a_connection_held_open_outlives_a_reload_and_a_replacement(site: Site) -> None:
    """It is in a worker that the reload has left, which knows nothing of the new containers."""
    site.put("app/who.php", "<?php echo json_encode([$_SERVER['REMOTE_ADDR'], $_SERVER['HTTPS'] ?? 'off', 'VERSION']);")
    site.change({"shop": None, "app": {"domains": ["app.test"]}})
    site.up()
    who = Visitor("who", "app.test", site.http, "/who.php")
    held = [connected(v) for v in (who, replace(who, port=site.https, tls=site.trust))]
    before = [json.loads(ask(who, c)) for c in held]
    site.change({"shop": {"kind": "web", "domains": ["shop.test"]}})
    site.put("app/who.php", (site.folder / "app/who.php").read_text().replace("VERSION", "the next"))
    site.up()
    after = [json.loads(ask(who, c)) for c in held]
    assert [a[2] for a in before + after] == ["VERSION", "VERSION", "the next", "the next"]
    assert [a[:2] for a in before] == [a[:2] for a in after], "nothing of the client is lost on the way"
    assert [a[1] for a in after] == ["off", "on"]


def test_a_server_that_is_stopped_is_noticed(site: Site) -> None:
    """The load can fail: those of the server that is gone do, and nobody else."""
    with visitors(*site.visitors("www", "app")) as load:
        load.another_round()
        container = site.daemon.containers.get(site.containers()["www"]["Id"])
        container.stop()
        everybody = {v.name for v in site.visitors("www")}
        wait_until(lambda: {f.visitor for f in load.failures} >= everybody, "failures", within=60)
        container.start()
    assert load.failed("app") == []
    site.up()


def address(site: Site, server: str) -> str:
    """Where the proxy finds a server."""
    network = site.containers()[server]["NetworkSettings"]["Networks"][f"{site.name}_route_{server}"]
    return str(network["IPAddress"])


def test_routes_find_servers_at_other_addresses(site: Site) -> None:
    """As after a reboot of the host, where the engine starts containers in whatever order."""
    api = site.daemon.api
    before = {s: address(site, s) for s in ROLLED}
    ids = [site.containers()[s]["Id"] for s in ("edge", *ROLLED)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(api.stop, ids))
    (network, taken), *more = ((f"{site.name}_route_{server}", taken) for server, taken in before.items())
    where = api.create_networking_config({network: api.create_endpoint_config(ipv4_address=taken)})
    squatter = api.create_container("debian:bookworm-slim", "sleep 99", networking_config=where)["Id"]
    try:
        for network, taken in more:
            api.connect_container_to_network(squatter, network, ipv4_address=taken)
        api.start(squatter)
        with ThreadPoolExecutor() as pool:
            list(pool.map(api.start, ids))
        assert all(address(site, s) != before[s] for s in ROLLED)
        wait_until(lambda: site.inside("edge", "bash", "/config/ready")[0] == 0, "the proxy")
        for host in ("www.test", "app.test", "blog.test", "api.test"):
            wait_until(lambda: curl(f"http://{host}:{site.http}/").status == 200, host)  # noqa: B023
        with visitors(*(v for v in site.visitors(*ROLLED) if "slow" not in v.name)) as load:
            load.another_round()
        assert load.failed() == []
    finally:
        api.remove_container(squatter, force=True)
