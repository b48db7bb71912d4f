"""Run a command line of `consolidate` in this process; the last word on stderr is how many engine calls it made."""

from __future__ import annotations

import collections
import os
import sys
from typing import Any

import requests

from consolidate.__main__ import main

COUNTS: collections.Counter[str] = collections.Counter()
send = requests.Session.send


def counting(session: requests.Session, request: Any, **more: Any) -> Any:
    path = request.url.partition("/v1.")[2].partition("?")[0].partition("/")[2]
    words = path.split("/")
    if len(words) > 2:
        words[1] = "…"
    COUNTS[f"{request.method} {'/'.join(words)}"] += 1
    return send(session, request, **more)


requests.Session.send = counting  # type: ignore[method-assign]
status = main(sys.argv[1:])
if os.environ.get("CALLS"):
    for call, times in COUNTS.most_common():
        print(f"{times:5} {call}", file=sys.stderr)
print(f"calls: {sum(COUNTS.values())}", file=sys.stderr)
sys.exit(status)
