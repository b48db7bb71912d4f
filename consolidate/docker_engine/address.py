"""Which engine is meant, as Docker's own client finds it: options, variables, contexts, and certificates for TLS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker import errors as docker_errors
from docker.utils import parse_host
from msgspec import Struct

from consolidate.errors import UsageError

DEFAULT = "default"  # the context without a folder: the engine of DOCKER_HOST, else of this machine's socket
ENDPOINT = "docker"  # what contexts call the engine
CONTEXTS = "`docker context ls` lists them"


class Tls(Struct, frozen=True):
    """What a connection by TLS is made with: PEM files in a folder. Without an `authority` the machine's are trusted."""

    folder: Path
    authority: Path | None
    certificate: tuple[Path, Path] | None  # and its key
    verify: bool = True


class Address(Struct, frozen=True):
    """An engine's address, None for this machine's default socket; `name` is the word that it was named by, if any."""

    url: str | None = None
    name: str | None = None
    tls: Tls | None = None


def meant(host: str | None, context: str | None, variables: Mapping[str, str], home: Path) -> Address:
    """The engine that `host`, `context`, DOCKER_HOST, DOCKER_CONTEXT or the current context names, in this order.

    Raises UsageError for what can't be an address, for a context that there isn't, and where two are named.
    """
    if host and context:
        raise UsageError("both an address (-H) and a context (--context) were named", hint="name one of them")
    config = Path(variables.get("DOCKER_CONFIG") or home / ".docker")
    given = variables.get("DOCKER_HOST")
    if not host and (context or not given):
        name = context or variables.get("DOCKER_CONTEXT")
        which = name or _current(config / "config.json")
        if which != DEFAULT:
            return _of_context(which, config, "" if name else f", which {config / 'config.json'} calls the current one")
    url = host or given
    if not url:
        return Address()
    return Address(_checked(url), url, _from_variables(url, variables, config))


def is_tcp(url: str) -> bool:
    return url.startswith(("tcp://", "http://", "https://")) or "://" not in url


def _checked(url: str) -> str:
    try:
        if not url.startswith("ssh://"):
            parse_host(url)
        elif (
            not (parts := urlsplit(url)).hostname
            or parts.password
            or parts.query
            or parts.fragment
            or parts.port == 0
            or parts.hostname.startswith("-")
            or (parts.username or "").startswith("-")
        ):
            raise ValueError
    except (docker_errors.DockerException, ValueError):
        hint = "such are: unix:///var/run/docker.sock, tcp://host:2376, ssh://user@host"
        raise UsageError(f"'{url}' can't be an engine's address", hint=hint) from None
    return url


def _from_variables(url: str, variables: Mapping[str, str], config: Path) -> Tls | None:
    """Docker's client takes DOCKER_TLS_VERIFY for it; whoever gives certificates alone wants no less."""
    folder = variables.get("DOCKER_CERT_PATH")
    wanted = folder or variables.get("DOCKER_TLS_VERIFY") or url.startswith("https://")
    return _material(Path(folder or config), verify=True) if wanted and is_tcp(url) else None


def _material(folder: Path, *, verify: bool) -> Tls:
    authority, certificate, key = (folder / f"{n}.pem" for n in ("ca", "cert", "key"))
    if certificate.is_file() != key.is_file():
        there, missing = (certificate, key) if certificate.is_file() else (key, certificate)
        raise UsageError(f"there is no {missing} to go with {there}", hint="a certificate is of no use without its key")
    return Tls(
        folder,
        authority if authority.is_file() else None,
        (certificate, key) if certificate.is_file() else None,
        verify,
    )


def _current(file: Path) -> str:
    """The current context's name. A file that can't be read may name another engine than the one that would be taken."""
    try:
        config = json.loads(file.read_text())
        return str((config.get("currentContext") or DEFAULT) if isinstance(config, dict) else DEFAULT)
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError) as error:
        what = f"{file}, which may name the current Docker context, can't be read: {error}"
        raise UsageError(what, hint="mend it, or name an engine with -H or --context") from None


def _of_context(name: str, config: Path, whence: str) -> Address:
    identity = hashlib.sha256(name.encode()).hexdigest()
    file = config / "contexts" / "meta" / identity / "meta.json"
    try:
        meta: Any = json.loads(file.read_text())
        endpoint = meta["Endpoints"][ENDPOINT]
        url, verify = str(endpoint["Host"]), not endpoint.get("SkipTLSVerify")
    except FileNotFoundError:
        raise UsageError(f"there is no Docker context '{name}'{whence}", hint=CONTEXTS) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"the Docker context '{name}'{whence} has no engine's address that can be read: {error!r} in {file}"
        raise UsageError(what, hint=CONTEXTS) from None
    folder = config / "contexts" / "tls" / identity / ENDPOINT
    tls = _material(folder, verify=verify) if is_tcp(url) and folder.is_dir() else None
    return Address(_checked(url), name, tls)
