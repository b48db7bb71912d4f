"""What takes a new configuration while it runs: who is in the middle of something does not notice."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import shutil
from contextlib import ExitStack, closing

import pytest

from consolidate.kinds import data_folder
from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, curl, free_port, wait_until
from tests.load import Visitor, ask, connected, visitors

pytestmark = pytest.mark.engine

UPLOAD = """<?php
$hash = hash_init('sha256');
$bytes = hash_update_stream($hash, fopen('php://input', 'rb'));
echo json_encode(['bytes' => $bytes, 'sha256' => hash_final($hash)]);
"""


def test_an_upload_outlives_many_reloads_of_the_proxy(make_stack: StackFactory) -> None:
    """It goes on in the worker in which it began, under the same master, and the others leave; if they don't, half of the
    memory is theirs, and the oldest goes first."""
    stack, port = make_stack("upload"), free_port()
    stack.write(
        f"  edge: {{kind: proxy, http: {port}, tls: 'off', resources: {{memory: 40M}}}}\n"
        "  app: {kind: php, domains: [app.test], content: ./app}\n",
        app__index_dot_php=UPLOAD,
    )
    stack.up()
    before = stack.identities()
    master, *workers = processes(stack)
    body = random.randbytes(2**20)
    connection = connected(Visitor("upload", "app.test", port))
    connection.putrequest("POST", "/index.php")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    stack.edit("[app.test]", "[app.test, also.test]")
    stack.up()
    for _ in range(6):
        assert stack.inside("edge", "bash", "/config/reload") == (0, "")
    now = processes(stack)
    assert stack.identities() == before
    assert now[0] == master
    wait_until(lambda: processes(stack)[2:] == workers, "the workers that nothing keeps to go")
    connection.send(body[len(body) // 2 :])
    answer = json.loads(connection.getresponse().read())
    assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    connection.close()

    who = Visitor("held", "app.test", port, "/index.php")
    with ExitStack() as held:
        first, *_, last = [held.enter_context(closing(kept(stack, who))) for _ in range(6)]
        assert 1 < len(processes(stack)[2:]) < 6
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(who, first)
        ask(who, last)


def kept(stack: Stack, who: Visitor) -> http.client.HTTPConnection:
    """A connection on which nobody asks any more, in the worker that a reload leaves for it."""
    connection = connected(who)
    ask(who, connection)
    assert stack.inside("edge", "bash", "/config/reload") == (0, "")
    return connection


def processes(stack: Stack) -> list[str]:
    """HAProxy's process ids: the master's, the worker's, and those of workers that reloads have left."""
    code, said = stack.inside("edge", "bash", "-c", "echo show proc | socat -t5 - /run/haproxy/master.sock")
    assert code == 0, said
    rows = [line.split() for line in said.splitlines() if line and line[0] != "#"]
    return [row[0] for row in rows if row[1] in ("master", "worker")]


def test_a_published_site_takes_settings_while_it_serves(make_stack: StackFactory) -> None:
    """Its container is the same, no visitor fails, and a configuration that nginx refuses leaves it as it was."""
    stack, ports = make_stack("published"), [free_port(), free_port()]
    stack.write(
        f"  www: {{kind: web, content: ./site, publish: ['{ports[0]}:80']}}\n"
        f"  app: {{kind: php, content: ./site, publish: ['{ports[1]}:80']}}\n",
        site__index_dot_html="<h1>Here</h1>\n",
        site__limit_dot_php="Here: <?php echo ini_get('memory_limit');",
    )
    shutil.copytree(data_folder("templates") / "web", stack.folder / "kinds/web")
    stack.edit("servers:\n", "templates: [./kinds]\nservers:\n")
    stack.up()
    before = stack.identities()
    site, code = f"http://www.test:{ports[0]}", f"http://app.test:{ports[1]}"
    assert curl(f"{site}/no/file").status == 404
    them = [
        Visitor(f"{path} {'kept' if keep else 'new'} {pause}", "www.test", port, path, keep=keep, pause=pause)
        for port, path in zip(ports, ("/", "/limit.php"), strict=True)
        for keep, pause in ((True, 0.0), (True, 0.2), (False, 0.02))
    ]
    with visitors(*them) as load:
        load.another_round()
        stack.edit("kind: web,", "kind: web, spa: true,")
        stack.edit("kind: php,", "kind: php, memory_limit: 99M,")
        stack.up()
        assert curl(f"{site}/no/file").body == "<h1>Here</h1>\n"
        assert curl(f"{code}/limit.php").body == f"Here: {99 * 2**20}"
        stack.edit("spa: true,", "")
        broken = stack.folder / "kinds/web/files/nginx.conf.j2"
        broken.write_text(f"{broken.read_text()}\nno_such_directive on;\n")
        assert "www refuses its new files; it goes on with the old ones" in stack.up(status=1).err
        load.another_round()
    assert load.failed() == []
    assert curl(f"{site}/no/file").body == "<h1>Here</h1>\n"
    assert stack.identities() == before
