"""A site for updates under load: a proxy before a web, a php and a wordpress server, and a container of somebody's own."""

from __future__ import annotations

import json
import ssl
from typing import Any

import yaml

from tests.engine.conftest import PYTHON_IMAGE
from tests.engine.support import Answer, Stack, curl, free_port
from tests.load import Visitor, checksum, saying, upload
from tests.wordpress_client import WordPress, plugin_archive

SLOW = 3  # seconds that a slow answer takes, and an upload
MIB = 2**20
ROLLED = ("www", "app", "blog", "api")
SITES = {
    "www/index.html": "<h1>Here</h1>\n",
    "www/large.bin": "x" * 4 * MIB,
    "app/index.php": "<h1>Here</h1>\n",
    "app/told.php": "<?php echo ini_get('upload_max_filesize');",
    "app/slow.php": f"<?php echo '<h1>'; flush(); sleep({SLOW}); echo 'Here</h1>';",
    "app/upload.php": """<?php
$hash = hash_init('sha256');
$bytes = hash_update_stream($hash, fopen('php://input', 'rb'));
echo json_encode(['bytes' => $bytes, 'sha256' => hash_final($hash)]);
""",
}
# It listens a while after its start, has no check, and ends at once when it is told to.
API = f"""
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep({SLOW} if self.path == "/slow" else 0)
        said = f"Here{{sys.argv[1:]}}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
time.sleep(2.5)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
PLUGIN = f"""add_action('init', function () {{
    if (isset($_GET['linger'])) {{ sleep({SLOW}); exit('lingered'); }}
    if (isset($_GET['told'])) exit(ini_get('upload_max_filesize'));
}});"""


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
        blog.install_plugin(plugin_archive("linger", PLUGIN))
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

    def get(self, host: str, path: str = "/") -> Answer:
        return curl(f"http://{host}.test:{self.http}{path}")

    def visitors(self, *servers: str) -> list[Visitor]:
        plain, tls = {"port": self.http}, {"port": self.https, "tls": self.trust}
        www: dict[str, Any] = {"host": "www.test", "pause": 0.1, "expect": saying("Here")}
        app: dict[str, Any] = {"host": "app.test", "pause": 0.1, "expect": saying("Here")}
        blog: dict[str, Any] = {"host": "blog.test", "pause": 0.6, "expect": saying("Hello world!", "</html>")}
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
