"""Commands in containers that run: a route switched, a grant made or taken back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from consolidate import naming
from consolidate.actions import ADDRESS, ApplyGrant, RevokeGrant, SwitchRoute
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.filters import fill

LOG_LINES = 15
TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")  # in front of each line of a log


class Interrupted(Exception):
    """The user asked to stop."""


def last_words(engine: Engine, container: str) -> list[str]:
    """The last lines that a container's program has said."""
    lines = engine.logs(container, tail=LOG_LINES, since=None, follow=False)
    return [TIME.sub("", line.decode(errors="replace")).rstrip() for line in lines]


def must_run(engine: Engine, container: str, command: Sequence[str], refusal: str, *, input_: bytes = b"") -> None:
    """Run a command that has to succeed.

    Raises OperationFailed: `refusal`, with the last lines that the command printed.
    """
    code, said = engine.run(container, command, input_)
    if code:
        raise OperationFailed(refusal, log=said.splitlines()[-LOG_LINES:])


def free_disk(run: Callable[[Sequence[str]], tuple[int, str]], folder: str = "/") -> int:
    """Bytes that are free where a folder of a container lies: its root is where the engine has its images. `run` runs a
    command in it.

    Raises OperationFailed.
    """
    code, said = run(["df", "--block-size=1", "--output=avail", folder])
    last = said.split()[-1:] or [""]
    if code or not last[0].isdecimal():
        raise OperationFailed("the host doesn't say how much room its disk has left", log=said.splitlines())
    return int(last[0])


def switch_route(engine: Engine, action: SwitchRoute) -> None:
    found = [engine.state(c).addresses.get(action.network) for c in action.containers if action.network]
    if found and not found[0]:
        raise OperationFailed(f"{action.containers[0]} has no address on the network {action.network}")
    addresses = [a for a in found if a]
    command = [w for word in action.command for w in (addresses if word == ADDRESS else [word])]
    must_run(engine, action.proxy, command, f"{action.proxy} does not switch")


def apply_grant(engine: Engine, action: ApplyGrant, reveal: Callable[[str], str]) -> None:
    """Have the provider let the consumer in; the receipt says how to take that back."""
    grant = action.grant
    refusal = f"{grant.link.provider} refuses {grant.link.consumer}"
    must_run(
        engine,
        action.container,
        grant.command,
        refusal,
        input_=fill(grant.input, reveal).encode(),
    )
    revoke = json.dumps({"command": grant.revoke_command, "input": grant.revoke_input})
    labels = {
        naming.STACK: action.stack,
        naming.HELPER: "grant",
        naming.OF: grant.link.provider,
        naming.FOR: grant.name,
        naming.APPLIED: grant.applied,
        naming.REVOKE: revoke,
    }
    engine.create_helper(action.receipt, labels, {})


def revoke_grant(engine: Engine, action: RevokeGrant) -> None:
    if action.container and action.command:
        refusal = f"{action.container} can't take a grant back"
        must_run(engine, action.container, action.command, refusal, input_=action.input.encode())
    engine.remove(action.receipt)
