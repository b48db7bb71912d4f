"""From a stack file to servers: everything is looked up, filled in and shared, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from consolidate.errors import StackInvalid
from consolidate.filters import Safe, SecretRef
from consolidate.kinds import data_folder
from consolidate.resolve.build import compose_test
from consolidate.resolved import Limits, Resolved
from consolidate.secret import Source as SecretSource
from consolidate.source import Source, load_stack
from tests.bad_cases import KINDS

STORE = """\
summary: It keeps things for others.
image: store:1
provides:
  shelf: {port: 7, password: true, values: {shelf: "{{ consumer.account }}", of: "{{ settings.owner }}", kind: shelf}}
settings: {owner: {type: text, default: nobody}}
"""
USER = """\
summary: It needs a shelf.
image: user:1
links:
  place: {provides: shelf, required: true}
  spare: {provides: shelf}
resources: {memory: 100M, cpus: 0.5, pids: 50}
environment: {A: one, B: two}
egress: true
settings:
  port: {type: listen, default: 9000}
  pages: {type: map, keys: {type: string, pattern: "[a-z]+"}, items: {type: text}, default: {}}
publish: ["{{ settings.port }}:80", ""]
secrets:
  salt: {generate: password, length: 64}
  "page_{item}": {generate: password, each: "{{ settings.pages }}", mount: false}
"""


def resolved(folder: Path, text: str, overlay: str | None = None) -> Resolved:
    """A stack with the kinds `store` and `user`, beside our own."""
    for name, manifest in (("store", STORE), ("user", USER)):
        (folder / "kinds" / name).mkdir(parents=True, exist_ok=True)
        (folder / "kinds" / name / "kind.yml").write_text(manifest)
    (folder / "stack.yml").write_text(text)
    if overlay is not None:
        (folder / "stack.prod.yml").write_text(overlay)
    environment = None if overlay is None else "prod"
    return load_stack(Source(folder / "stack.yml", environment, (folder / "kinds", KINDS)))


def servers(folder: Path, text: str) -> Mapping[str, Any]:
    return resolved(folder, f"stack: t\nservers:\n{text}").servers


@pytest.mark.parametrize(
    ("loop", "names"),
    [
        ("1..3", ["s-1", "s-2", "s-3"]),
        ("08..11", ["s-08", "s-09", "s-10", "s-11"]),
        ("5..5", ["s-5"]),
        ("[red, 7]", ["s-red", "s-7"]),
    ],
)
def test_a_for_is_written_out(tmp_path: Path, loop: str, names: list[str]) -> None:
    """One entry makes a server for each value, in their order, with the value wherever {i} stands, in keys as well."""
    entry = (
        f'{{for: {{i: {loop}}}, kind: web, domains: ["{{i}}.test"], environment: {{"N{{i}}": "is {{i}} of {{j}}"}}}}'
    )
    made = servers(tmp_path, f"  s-{{i}}: {entry}\n  other: {{kind: web}}\n")
    assert list(made) == [*names, "other"]
    for name in names:
        item = name.removeprefix("s-")
        assert made[name].domains == (f"{item}.test",)
        assert made[name].environment == {f"N{item}": f"is {item} of {{j}}"}


def test_a_for_fills_in_only_its_own_name(tmp_path: Path) -> None:
    """Braces in a server without a `for` are plain text."""
    assert servers(tmp_path, '  a: {kind: web, environment: {X: "{i}"}}\n')["a"].environment == {"X": "{i}"}


BASE = """\
stack: acme
host: {reserve: {memory: 1G}}
servers:
  edge: {kind: proxy, http: 8080, tls: internal}
  www:
    kind: web
    domains: [www.acme.test, acme.test]
    environment: {A: one, B: two}
  old: {kind: web}
"""
OVERLAY = """\
host: {reserve: {cpus: 1}}
servers:
  edge: {http: "0.0.0.0:80", https: "0.0.0.0:443"}
  www: {domains: [www.acme.example], environment: {B: null, C: three}, resources: {memory: 64M}}
  old: null
  new: {kind: web}
"""


def test_an_environment_is_laid_over_the_stack(tmp_path: Path) -> None:
    """Maps merge by key, lists and scalars replace, null removes, and the stack gets a name of its own."""
    found = resolved(tmp_path, BASE, OVERLAY)
    assert (found.name, found.environment) == ("acme-prod", "prod")
    assert list(found.servers) == ["edge", "www", "new"]
    assert (found.host.reserved_memory, found.host.reserved_cpus) == (2**30, 1)
    assert [p.host for p in found.servers["edge"].publish] == ["0.0.0.0:80", "0.0.0.0:443"]
    www = found.servers["www"]
    assert www.domains == ("www.acme.example",)
    assert www.environment == {"A": "one", "C": "three"}
    assert www.explicit_memory


def test_without_an_environment_the_overlay_is_not_read(tmp_path: Path) -> None:
    """The stack alone has its own name and its own values."""
    (tmp_path / "stack.prod.yml").write_text("[broken")
    found = resolved(tmp_path, BASE)
    assert (found.name, found.environment) == ("acme", None)
    assert list(found.servers) == ["edge", "www", "old"]


def test_what_is_not_said_comes_from_the_kind(tmp_path: Path) -> None:
    """Limits win key by key, variables merge, an empty item publishes nothing, and egress can be taken back."""
    made = servers(
        tmp_path,
        """\
  db: {kind: store}
  a: {kind: user, place: db}
  b: {kind: user, place: db, port: 9001, resources: {cpus: 2}, environment: {B: "2", C: "3"}, egress: false,
      publish: ["[::1]:81:81/udp"]}
""",
    )
    a, b = made["a"], made["b"]
    assert a.limits == Limits(100 * 2**20, 0.5, 50)
    assert b.limits == Limits(100 * 2**20, 2, 50)
    assert made["db"].limits == Limits(256 * 2**20, 1, 200)
    assert (a.explicit_memory, a.explicit_cpus, b.explicit_memory, b.explicit_cpus) == (False, False, False, True)
    assert (a.environment, b.environment) == ({"A": "one", "B": "two"}, {"A": "one", "B": "2", "C": "3"})
    assert (a.egress, b.egress, made["db"].egress) == (True, False, False)
    assert [str(p) for p in a.publish] == ["127.0.0.1:9000->80/tcp"]
    assert [str(p) for p in b.publish] == ["127.0.0.1:9001->80/tcp", "[::1]:81->81/udp"]


def test_a_link_tells_both_sides(tmp_path: Path) -> None:
    """A consumer learns where its provider is and a provider who its consumers are; a link that isn't made is null."""
    made = servers(tmp_path, '  the-app: {kind: user, place: db}\n  db: {kind: store, owner: "it\'s"}\n')
    consumer, provider = made["the-app"].source.context, made["db"].source.context
    assert consumer["links"]["spare"] is None
    assert consumer["links"]["place"] == {
        "server": "db",
        "host": "db",
        "port": 7,
        "password": "/run/secrets/place_password",
        "shelf": "the_app",
        "of": "it's",
        "kind": "shelf",
    }
    (told,) = provider["consumers"]["shelf"]
    assert (told["server"], told["account"], told["link"], told["shelf"]) == ("the-app", "the_app", "place", "the_app")
    assert told["password"] == SecretRef.of("the-app/place_password", needs_filter=True)
    (link,) = made["the-app"].links
    assert (link.consumer, link.provider, link.provides, link.password) == (
        "the-app",
        "db",
        "shelf",
        "the-app/place_password",
    )


def test_a_providers_values_are_as_safe_as_what_they_are_made_of(tmp_path: Path) -> None:
    """Text of a provider's setting is text in its consumer's templates too; the manifest's own words are safe."""
    made = servers(tmp_path, "  app: {kind: user, place: db}\n  db: {kind: store}\n")
    place = made["app"].source.context["links"]["place"]
    assert not isinstance(place["of"], Safe)
    assert isinstance(place["shelf"], Safe)
    assert isinstance(place["kind"], Safe)


def test_a_server_reads_its_own_secrets(tmp_path: Path) -> None:
    """Secrets have the server's name before them, one for each item; those of links and of the stack file are added."""
    text = """\
  db: {kind: store}
  app:
    kind: user
    place: db
    pages: {home: one, about: two}
    secrets: {api: {}, salt: {env: SALT}, key: {file: key.txt}, pass: {command: [pass, show, "a b"]}}
"""
    (tmp_path / "key.txt").write_text("k")
    app = servers(tmp_path, text)["app"]
    assert {n: s.address for n, s in app.secrets.items()} == {
        n: f"app/{n}" for n in ("salt", "page_home", "page_about", "place_password", "api", "key", "pass")
    }
    assert app.mounted == ("api", "key", "pass", "place_password", "salt")
    assert app.secrets["salt"].length == 64
    assert {n: s.source for n, s in app.secrets.items() if s.source} == {
        "salt": SecretSource("env", "SALT"),
        "key": SecretSource("file", "key.txt"),
        "pass": SecretSource("command", "pass show 'a b'"),
    }
    secret = app.source.context["secret"]
    assert secret("api") == secret("app/api")
    with pytest.raises(LookupError, match="did you mean 'salt'"):
        secret("slat")


MAIL = """\
stack: t
servers:
  edge: {kind: proxy}
  www: {kind: web, domains: [www.x.test%s]}
  mail: {kind: mail, domains: [x.test], hostname: mail.x.test}
"""


def test_a_routed_host_name_has_one_certificate(tmp_path: Path) -> None:
    """A server whose host name the proxy routes uses the proxy's certificate for it."""
    made = resolved(tmp_path, MAIL % ", mail.x.test").servers
    certificate = made["mail"].secrets["certificate"]
    assert certificate.address == "edge/mail.x.test" == made["edge"].secrets["mail.x.test"].address
    assert certificate.authority == "edge/authority"


def test_another_host_name_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    """A name that nobody routes gets its own certificate, of the proxy's authority where there is one."""
    routed = resolved(tmp_path, MAIL % "").servers["mail"].secrets["certificate"]
    alone = servers(tmp_path, "  mail: {kind: mail, domains: [x.test]}\n")["mail"].secrets["certificate"]
    assert (routed.address, routed.names, routed.authority) == ("mail/certificate", ("mail.x.test",), "edge/authority")
    assert (alone.address, alone.names, alone.authority) == ("mail/certificate", ("mail.x.test",), None)


def test_the_proxy_routes_what_has_http_and_domains(tmp_path: Path) -> None:
    """A server without a domain, or without HTTP, is not routed; with no proxy nothing is."""
    entries = """\
  www: {kind: web, domains: [www.x.test]}
  inner: {kind: web}
  mail: {kind: mail, domains: [x.test]}
  app: {kind: container, image: "app:1", domains: [app.x.test], http: 3000}
  idle: {kind: container, image: "app:1", domains: [idle.x.test]}
"""
    found = resolved(tmp_path, f"stack: t\nservers:\n{entries}  edge: {{kind: proxy}}\n")
    assert [(r.server, r.domains, r.port) for r in found.routes] == [
        ("www", ("www.x.test",), 80),
        ("app", ("app.x.test",), 3000),
    ]
    assert found.proxy == "edge"
    assert resolved(tmp_path, f"stack: t\nservers:\n{entries}").routes == ()


def test_all_mistakes_of_one_pass_are_told_in_their_order(tmp_path: Path) -> None:
    """Several servers' mistakes come together, sorted by place, each once though a `for` repeats it."""
    with pytest.raises(StackInvalid) as caught:
        servers(
            tmp_path, "  s-{i}: {for: {i: 1..9}, kind: web, spa: 1}\n  b: {kind: wbe}\n  c: {kind: web, image: A}\n"
        )
    assert [p.path for p in caught.value.problems] == ["servers.s-1.spa", "servers.b.kind", "servers.c.image"]


def test_our_kinds_win_nothing_over_the_users(tmp_path: Path) -> None:
    """A folder of the user's own that has a kind of our name replaces it."""
    (tmp_path / "kinds" / "web").mkdir(parents=True)
    (tmp_path / "kinds" / "web" / "kind.yml").write_text("summary: Mine.\nimage: mine:1\n")
    assert servers(tmp_path, "  a: {kind: web}\n")["a"].image == "mine:1"
    assert (data_folder("templates") / "web" / "kind.yml").is_file()


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (["CMD", "a", "b c"], ("a", "b c")),
        (["CMD-SHELL", "a | b"], ("/bin/sh", "-c", "a | b")),
        (["a", "b"], ("a", "b")),
    ],
)
def test_a_health_check_is_compose_s(test: list[str], argv: tuple[str, ...]) -> None:
    """CMD and CMD-SHELL mean what they mean in Compose."""
    assert compose_test(test) == argv
