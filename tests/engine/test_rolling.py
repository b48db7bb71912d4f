"""No request fails while servers change: real visitors, on kept and on new connections, plain and with TLS, some of
them in the middle of a slow answer or of an upload when their server is replaced."""

from __future__ import annotations

import io
import json
import socket
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.engine.conftest import PYTHON_IMAGE
from tests.engine.support import Stack, curl, free_port, wait_until
from tests.load import Load, Visitor, ask, checksum, connected, saying, upload, visitors
from tests.wordpress_client import WordPress, plugin_archive

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

SLOW = 3  # seconds that a slow answer takes, and an upload
MIB = 2**20
ROLLED = ("www", "app", "blog", "api")
SITES = {
    "www/index.html": "<h1>Here</h1>\n",
    "www/large.bin": "x" * 4 * MIB,
    "app/index.php": "<h1>Here</h1>\n",
    "app/slow.php": f"<?php echo '<h1>'; flush(); sleep({SLOW}); echo 'Here</h1>';",
    "app/upload.php": """<?php
$hash = hash_init('sha256');
$bytes = hash_update_stream($hash, fopen('php://input', 'rb'));
echo json_encode(['bytes' => $bytes, 'sha256' => hash_final($hash)]);
""",
}
# It listens a while after its start, has no check, and ends at once when it is told to.
API = f"""
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep({SLOW} if self.path == "/slow" else 0)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"Here")
time.sleep(2.5)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
LINGER = f"add_action('init', function () {{ if (isset($_GET['linger'])) {{ sleep({SLOW}); exit('lingered'); }} }});"


class Site(Stack):
    """A proxy before a web, a php and a wordpress server, and a container of somebody's own."""

    http: int
    https: int
    trust: ssl.SSLContext
    headers: dict[str, str]  # of the blog's administrator

    def begin(self) -> None:
        self.http, self.https = free_port(), free_port()
        for path, text in SITES.items():
            self.put(path, text)
        self.write(
            f"  edge: {{kind: proxy, http: {self.http}, https: {self.https}, redirect: false}}\n"
            "  www: {kind: web, domains: [www.test], content: ./www}\n"
            "  app: {kind: php, domains: [app.test], content: ./app}\n"
            "  blog: {kind: wordpress, domains: [blog.test], database: db, admin: {user: ada, email: ada@blog.test}}\n"
            "  db: {kind: mysql}\n"
        )
        self.put("api/Dockerfile", f"FROM {PYTHON_IMAGE}\nCOPY api.py /\n")
        self.put("api/api.py", API)
        self.daemon.images.build(path=str(self.folder / "api"), tag=f"consolidate-tests/{self.name}:api", rm=True)
        api = {"kind": "container", "image": f"consolidate-tests/{self.name}:api", "user": "1000:1000", "http": 8000}
        self.change({"api": api | {"domains": ["api.test"], "command": ["python3", "/api.py"]}})
        self.up(timeout=300)
        authority = self.secret("edge/authority")
        self.trust = ssl.create_default_context(cadata=authority[: authority.index("-----BEGIN", 10)])
        blog = WordPress(f"http://127.0.0.1:{self.http}", f"blog.test:{self.http}")
        blog.login("ada", self.secret("blog/admin_password"))
        blog.install_plugin(plugin_archive("linger", LINGER))
        nonce = blog.page("/wp-admin/admin-ajax.php?action=rest-nonce").text.strip()
        cookies = "; ".join(f"{c.name}={c.value}" for c in blog.session.cookies)
        self.headers = {
            "Cookie": cookies,
            "X-WP-Nonce": nonce,
            "Content-Disposition": 'attachment; filename="letter.txt"',
            "Content-Type": "text/plain",
        }

    def change(self, servers: dict[str, dict[str, Any]]) -> None:
        """Change servers of the stack file; None removes one."""
        data = yaml.safe_load(self.file.read_text())
        for name, more in servers.items():
            if more is None:
                data["servers"].pop(name, None)
            else:
                data["servers"][name] = data["servers"].get(name, {}) | more
        self.file.write_text(yaml.safe_dump(data, sort_keys=False))

    def visitors(self, *servers: str) -> list[Visitor]:
        plain, tls = {"port": self.http}, {"port": self.https, "tls": self.trust}
        www: dict[str, Any] = {"host": "www.test", "pause": 0.05, "expect": saying("Here")}
        app: dict[str, Any] = {"host": "app.test", "pause": 0.1, "expect": saying("Here")}
        blog: dict[str, Any] = {"host": "blog.test", "pause": 0.3, "expect": saying("Hello world!", "</html>")}
        api: dict[str, Any] = {"host": "api.test", "pause": 0.1, "expect": saying("Here")}
        large: dict[str, Any] = {"path": "/large.bin", "reading": SLOW, "expect": lambda got, _: len(got) == 4 * MIB}
        sending: dict[str, Any] = {"path": "/upload.php", "body": upload(8 * MIB), "sending": SLOW, "expect": checksum}
        media: dict[str, Any] = {"path": "/wp-json/wp/v2/media", "body": upload(2 * MIB), "sending": SLOW / 2}
        media |= {"headers": self.headers, "expect": kept(2 * MIB)}
        all_ = [
            Visitor("www kept", **www, **plain),
            Visitor("www new", keep=False, **www, **plain),
            Visitor("www kept, TLS", **www, **tls),
            Visitor("www new, TLS", keep=False, **www, **tls),
            Visitor("www slow", **www | large, **plain),
            Visitor("www slow, TLS", **www | large, **tls),
            Visitor("app kept", **app, **plain),
            Visitor("app new", keep=False, **app, **plain),
            Visitor("app kept, TLS", **app, **tls),
            Visitor("app new, TLS", keep=False, **app, **tls),
            Visitor("app slow", path="/slow.php", **app, **plain),
            Visitor("app slow, TLS", path="/slow.php", keep=False, **app, **tls),
            Visitor("app upload", **app | sending, **plain),
            Visitor("app upload, TLS", **app | sending, keep=False, **tls),
            Visitor("blog kept", **blog, **plain),
            Visitor("blog new", keep=False, **blog, **plain),
            Visitor("blog kept, TLS", **blog, **tls),
            Visitor("blog slow", path="/?linger", **blog | {"expect": saying("lingered")}, **plain),
            Visitor("blog upload", **blog | media, **plain),
            Visitor("api kept", **api, **plain),
            Visitor("api new, TLS", keep=False, **api, **tls),
            Visitor("api slow", path="/slow", **api, **plain),
        ]
        return [v for v in all_ if v.name.split()[0] in servers]


def kept(size: int) -> Any:
    """WordPress has put the whole upload into its library."""
    return lambda answer, _: json.loads(answer)["media_details"]["filesize"] == size


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
        for tag in {t for i in daemon.images.list(f"consolidate-tests/{token}-rolling") for t in i.tags}:
            daemon.images.remove(tag)


def another_image(site: Site, server: str) -> str:
    """An image like the server's, but another."""
    now = site.containers()[server]["Config"]["Image"]
    tag = f"consolidate-tests/{site.name}:{server}-{uuid.uuid4().hex[:6]}"
    text = f"FROM {now}\nLABEL made={uuid.uuid4().hex}\n"
    site.daemon.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True)
    return tag


def image(site: Site, turn: int) -> None:
    site.change({s: {"image": another_image(site, s)} for s in ROLLED})


def setting(site: Site, turn: int) -> None:
    size = f"{65 + turn}M"
    site.change({"www": {"cache": f"{turn + 1}s"}, "app": {"upload_max": size}, "blog": {"upload_max": size}})
    site.change({"api": {"command": ["python3", "/api.py", str(turn)]}})


def content(site: Site, turn: int) -> None:
    site.put("www/index.html", f"<h1>Here</h1>{turn}\n")
    site.put("app/index.php", f"<h1>Here</h1>{turn}\n")
    site.change({"blog": {"mail_from": f"post{turn}@blog.test"}, "api": {"image": another_image(site, "api")}})


def limits(site: Site, turn: int) -> None:
    for server, memory in zip(ROLLED, (65, 257, 385, 129), strict=True):
        site.change({server: {"resources": {"memory": f"{memory + turn}M"}}})


def environment(site: Site, turn: int) -> None:
    site.change({s: {"environment": {"TURN": str(turn)}} for s in ROLLED})


CHANGES = (image, setting, content, limits, environment)


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


def test_ten_changes_in_a_row_fail_no_request(site: Site) -> None:
    """Of the image, a setting, the content, the limits and the environment of four servers at once, twice."""
    with visitors(*site.visitors(*ROLLED)) as load:
        load.another_round()
        for turn in range(10):
            change = CHANGES[turn % len(CHANGES)]
            before = site.identities()
            change(site, turn)
            begun = load.now()
            site.up()
            told(load, change.__name__, begun)
            after = site.identities()
            assert {s for s in after if after[s] != before[s]} == set(ROLLED)
        load.another_round()
    assert load.failed() == []
    assert load.connections["www kept"] == load.connections["www kept, TLS"] == 1, "the proxy was not even reloaded"


def test_changes_around_a_server_fail_no_request(site: Site) -> None:
    """Another server comes and goes, a certificate and a route change: the proxy reloads, and nobody notices."""
    with visitors(*site.visitors(*ROLLED)) as load:
        load.another_round()
        before, serial = site.identities(), certificate(site, "www.test")

        begun = load.now()
        site.change({"shop": {"kind": "web", "domains": ["shop.test"]}})
        site.up()
        assert curl(f"http://shop.test:{site.http}/").status == 200
        told(load, "added", begun)

        begun = load.now()
        site.run("secret", "rotate", "edge/www.test")
        site.up()
        assert certificate(site, "www.test") != serial
        told(load, "certificate", begun)

        begun = load.now()
        site.change({"app": {"domains": ["app.test", "also.test"]}})
        site.up()
        assert curl(f"http://also.test:{site.http}/").status == 200
        told(load, "route", begun)

        begun = load.now()
        site.change({"shop": None, "app": {"domains": ["app.test"]}})
        site.up()
        assert curl(f"http://shop.test:{site.http}/").status == 404
        told(load, "removed", begun)
        load.another_round()
        after = site.identities()
    assert load.failed() == []
    print(load.connections)
    assert {s for s in after if after[s] != before.get(s)} <= {"app"}


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
        load.another_round()
        container.start()
    assert len(load.failed("www")) >= 6
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
    for id_ in ids:
        api.stop(id_)
    squatter = site.daemon.containers.create("debian:bookworm-slim", "sleep 99", network_mode="none", detach=True)
    api.disconnect_container_from_network(squatter.id, "none")
    try:
        for server, taken in before.items():
            network = f"{site.name}_route_{server}"
            api.connect_container_to_network(squatter.id, network, ipv4_address=taken)
        squatter.start()
        for id_ in ids:
            api.start(id_)
        assert all(address(site, s) != before[s] for s in ROLLED)
        wait_until(lambda: site.inside("edge", "bash", "/config/ready")[0] == 0, "the proxy")
        for host in ("www.test", "app.test", "blog.test", "api.test"):
            wait_until(lambda: curl(f"http://{host}:{site.http}/").status == 200, host)  # noqa: B023
        with visitors(*(v for v in site.visitors(*ROLLED) if "slow" not in v.name)) as load:
            load.another_round()
        assert load.failed() == []
    finally:
        squatter.remove(force=True)
