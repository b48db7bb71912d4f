"""What comes and goes over a connection that the engine has handed to us."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable
from typing import Any

from docker.utils.socket import frames_iter

from consolidate.docker_engine.failures import unavailable
from consolidate.errors import OperationFailed


def converse(stream: Any, stdin: Iterable[bytes], *whose: object) -> bytes:
    """What a program says to `stdin`. It may answer before it has read all of it, or end without reading it.

    What goes wrong while `stdin` is made is raised, once the program has ended. `whose` connection it is, knows what breaks it.
    """
    raw: Any = getattr(stream, "_sock", stream)
    raw.settimeout(None)  # the library's is for an answer, and a program may take its time to read a part
    said: list[bytes] = []
    wrong: list[Exception] = []

    def send() -> None:
        try:
            for part in stdin:
                raw.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            return  # it does not read on
        except OSError as error:
            wrong.append(unavailable(error, *whose))
        except Exception as error:
            wrong.append(error)
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        said += [chunk for _, chunk in frames_iter(stream, tty=False)]
    except ConnectionResetError:
        pass  # it ended, with input of ours still under way
    except OSError as error:
        raise unavailable(error, *whose) from None
    finally:
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        sender.join()
        hang_up(stream)
    if wrong:
        raise wrong[0]
    return b"".join(said)


def hang_up(stream: Any) -> None:
    """Close a stream and the connection below it, which its own `close` leaves open."""
    raw = getattr(stream, "_sock", stream)
    stream.close()
    raw.close()


def imported(answer: str) -> str:
    """The id of the image that an import has made. Raises OperationFailed where it has made none."""
    last, why_not = "", ""
    for line in answer.splitlines():
        event: Any = {}
        with contextlib.suppress(json.JSONDecodeError):  # whatever it is, it's no id
            event = json.loads(line)
        event = event if isinstance(event, dict) else {}
        why_not = why_not or str(event.get("error") or event.get("message") or "")
        last = str(event.get("status", ""))
    if why_not or not last:
        raise OperationFailed(f"the engine can't import an image: {why_not or answer.strip() or 'it says nothing'}")
    return last
