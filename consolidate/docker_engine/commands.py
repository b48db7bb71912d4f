"""Commands in containers that run: their input, what they say, how they end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import requests
from docker.utils.socket import STDOUT, frames_iter

from consolidate.docker_engine.failures import telling, told, unavailable
from consolidate.docker_engine.looks import Looks
from consolidate.docker_engine.streams import converse, hang_up
from consolidate.errors import OperationFailed

LOG_LINES = 15
EXEC_TRIES, EXEC_PAUSE = 20, 0.05


class Commands(Looks):
    """Commands in the containers of an engine."""

    @told
    def run(self, container: str, command: Sequence[str], stdin: bytes | None = None) -> tuple[int, str]:
        """Run a command in a container: its exit status, and what it said on both outputs."""
        if stdin is not None:
            return self.feed(container, command, [stdin])
        made = self.client.exec_create(container, list(command))["Id"]
        output = self.client.exec_start(made)
        return self._ended(made), output.decode(errors="replace")

    def _ended(self, command: str) -> int:
        """The exit status of a command that says no more."""
        for _ in range(EXEC_TRIES):
            if not (ended := self.client.exec_inspect(command))["Running"]:
                return int(1 if ended["ExitCode"] is None else ended["ExitCode"])
            time.sleep(EXEC_PAUSE)  # the engine hears of its end a moment after we do
        raise requests.exceptions.ConnectionError("the connection has broken off, the command goes on")

    @told
    def feed(self, container: str, command: Sequence[str], input_: Iterable[bytes]) -> tuple[int, str]:
        """Run a command with an input of any length: its exit status, and what it said on both outputs."""
        made = self.client.exec_create(container, list(command), stdin=True)["Id"]
        output = converse(self.client.exec_start(made, socket=True), input_, self)
        return self._ended(made), output.decode(errors="replace")

    def output(self, container: str, command: Sequence[str]) -> Iterator[bytes]:
        """What a command in a container says, as it says it.

        Raises OperationFailed at the end where it failed, with what it said on its other output.
        """
        with telling(self):
            made = self.client.exec_create(container, list(command))["Id"]
            stream = self.client.exec_start(made, socket=True)
        errors = bytearray()
        try:
            for kind, chunk in frames_iter(stream, tty=False):
                if kind == STDOUT:
                    yield chunk
                else:
                    errors += chunk
        except OSError as error:
            raise unavailable(error, self) from None
        finally:
            hang_up(stream)
        code = told(self._ended)(made)
        if code != 0:
            what = f"{command[0]} ended with exit status {code}"
            raise OperationFailed(what, log=errors.decode(errors="replace").splitlines()[-LOG_LINES:])

    def attach(self, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> int:
        """Run a command with this terminal, or with our standard streams; its exit status.

        Raises EngineUnavailable where the connection breaks off: the command goes on.
        """
        from consolidate.terminal import interact

        with telling(self):
            made = self.client.exec_create(container, list(command), stdin=stdin, tty=tty)["Id"]
            stream = self.client.exec_start(made, socket=True, tty=tty)
        interact(
            stream, tty=tty, stdin=stdin, resize=lambda rows, columns: self.client.exec_resize(made, rows, columns)
        )
        return told(self._ended)(made)
