"""A slow engine, and connections to it that are cut: an error that says so, or success; then `up` gets there."""

from __future__ import annotations

import random

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.recorder import recorded
from tests.engine.support import curl, free_port

pytestmark = [pytest.mark.engine, pytest.mark.slow]

BOX = "kind: container, image: 'debian:bookworm-slim', command: sleep 99999, stop_signal: SIGKILL, healthcheck: {test: [CMD, 'true']}"
EVERY = 6  # of the calls of an `up` one is cut, in the next run the one so many later


@pytest.mark.slow
@pytest.mark.long
def test_a_slow_engine_and_one_whose_connections_are_cut(make_stack: StackFactory) -> None:
    """With each call kept back all is done, only later. A call whose connection is cut ends in a clear error or is made up
    for, whether the engine has heard it or not; the next `up` gets there from each, and nothing is left over.
    """
    stack, port = make_stack("cut"), free_port()
    stack.write(
        f"  edge: {{kind: proxy, http: {port}, tls: 'off'}}\n"
        "  www: {kind: web, domains: [www.test], content: ./site}\n"
        f"  box: {{{BOX}, volumes: ['kept:/kept'], secrets: {{token: {{}}}}}}\n"
    )
    stack.put("site/index.html", "slow\n")
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    first, statuses = random.Random(seed).randrange(1, EVERY + 1), []
    with recorded() as engine:
        engine.delay = 0.1
        stack.up(env={"DOCKER_HOST": engine.url})
        assert curl(f"http://www.test:{port}/").body == "slow\n"
        assert stack.run("plan", "--detailed-exitcode").status == 0

        engine.delay, engine.cut_at = 0.0, first
        while True:
            stack.put("site/index.html", f"{engine.cut_at}\n")
            engine.calls.clear()
            engine.heard = not engine.heard
            done = stack.up(env={"DOCKER_HOST": engine.url}, status=None)
            if len(engine.calls) < engine.cut_at:
                break
            what = engine.calls[engine.cut_at - 1]
            assert done.status in (0, 1, 69), (what, done.both)
            assert done.status == 0 or "engine" in done.err or "failed: " in done.err, (what, done.both)
            statuses.append(done.status)
            stack.up()
            assert curl(f"http://www.test:{port}/").body == f"{engine.cut_at}\n", what
            assert stack.run("plan", "--detailed-exitcode").status == 0, what
            assert stack.orphans() == [], what
            engine.cut_at += EVERY
    print(f"cut at every {EVERY}th call from {first} on: {statuses}")
    assert 69 in statuses
