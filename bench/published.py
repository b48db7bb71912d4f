"""Settings of published sites, which are reloaded: what visitors notice, beside a bare reload of nginx and a replacement."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

from common import CACHE, PAGE, ROOT, Stack
from turns import in_turn

sys.path.insert(0, str(ROOT))  # the visitors are those of the tests

Rows = list[dict[str, Any]]
NAME, PORT = "bench-published", 18486
CODE = f"<?php echo '{NAME}';\n"


def _site() -> Stack:
    folder = CACHE / "stacks" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in {"www/index.html": PAGE.format(name=NAME), "app/index.php": CODE}.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    return Stack(folder / "stack.yml")


def published(repeat: int = 10) -> Rows:
    """A published `web` and a published `php` get a setting, `repeat` times, under load: reloaded, told bluntly, replaced."""
    import docker

    api, stack, rows = docker.APIClient(), _site(), []
    files = {"web": ("./www", "/", "cache: {}s"), "php": ("./app", "/index.php", "memory_limit: {}M")}

    def write(kind: str, setting: int = 100, environment: int = 0) -> None:
        content, _, word = files[kind]
        more = f"{word.format(setting)}, environment: {{TURN: '{environment}'}}, publish: ['{PORT}:80']"
        stack.file.write_text(f"stack: {NAME}\nservers:\n  one: {{kind: {kind}, content: {content}, {more}}}\n")
        if setting != 100 or environment:
            stack.up()

    try:
        for kind in files:
            for side, act in (
                ("a setting, reloaded", lambda turn, k=kind: write(k, setting=100 + turn)),
                ("nginx is sent SIGHUP", lambda _: _hangup(api)),
                ("a variable, replaced", lambda turn, k=kind: write(k, environment=turn)),
            ):
                write(kind)
                stack.up()
                try:
                    rows.append(_visited_published(f"{kind}: {side}", files[kind][1], repeat, act))
                finally:
                    stack.down()
    finally:
        stack.down()
    return rows


def _hangup(api: Any) -> None:
    script = "kill -HUP $(cat /tmp/nginx.pid /run/php/nginx.pid 2> /dev/null); sleep 0.3"
    api.exec_start(api.exec_create(f"{NAME}-one-1", ["bash", "-c", script])["Id"])


def _visited_published(side: str, path: str, repeat: int, act: Callable[[int], None]) -> dict[str, Any]:
    from tests.load import Visitor, saying, visitors

    here = saying(NAME)
    them = [
        Visitor(f"{'kept' if keep else 'new'} {pause}", "one.test", PORT, path, keep=keep, pause=pause, expect=here)
        for keep in (True, False)
        for pause in (0.02, 0.2, 1.0)
    ]
    with visitors(*them) as load:
        return {"what": "a published site under load", **in_turn(load, side, repeat, act)}


__all__ = ["published"]
