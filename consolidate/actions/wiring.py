"""Between servers: who is on which network and by which name, routes, and grants."""

from __future__ import annotations

from msgspec import Struct

from consolidate.desired import Grant


class ConnectNetwork(Struct, frozen=True):
    container: str
    network: str
    alias: str
    verb = "connect"


class DisconnectNetwork(Struct, frozen=True):
    container: str
    network: str
    verb = "disconnect"


class NameOnNetwork(Struct, frozen=True):
    """Give a container the server's name on a network that it is on already: from now on it is found there.

    One that has the name keeps its connections: a killed run may have got so far, and requests are under way.
    """

    container: str
    network: str
    alias: str
    verb = "name"


class SwitchRoute(Struct, frozen=True):
    """Run the proxy's `switch` command; with `network`, the addresses of `containers` on it go in place of ADDRESS.

    The first must have one; others that don't run are left out.
    """

    proxy: str
    command: tuple[str, ...]
    containers: tuple[str, ...] = ()
    network: str = ""
    verb = "switch route"


ADDRESS = "ADDRESS"


class ReachServer(Struct, frozen=True):
    """Wait until a container takes connections from the proxy: `command`, run there, is given its address on `network` and
    its `port`, and ends with 0 once it does."""

    proxy: str
    command: tuple[str, ...]
    name: str
    network: str
    port: str
    verb = "reach"


class ApplyGrant(Struct, frozen=True):
    """Tell the provider about a consumer; the receipt is a helper that says so."""

    stack: str
    grant: Grant
    container: str
    receipt: str
    verb = "grant"


class RevokeGrant(Struct, frozen=True):
    """Tell the provider that a consumer has gone; `container` is None where the provider has gone as well."""

    receipt: str
    container: str | None
    command: tuple[str, ...]
    input: str
    verb = "revoke"
