"""A stack file to servers: every link found, every default filled in, every clash reported with its place. Pure."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError

from consolidate import naming, values
from consolidate.errors import Place, Problem, StackInvalid
from consolidate.filters import Safe, SecretRef
from consolidate.kinds import Catalogue, Kind, Provided, Recipe, Setting, word_problems
from consolidate.loader import Document, did_you_mean
from consolidate.observed import HostFacts
from consolidate.render import evaluate
from consolidate.secret import SecretSpec, Source
from consolidate.stack import COMMON, Host, Publish, ServerEntry, Stack, parse_publish, server_model

SECRETS_PATH = "/run/secrets"
BASE_IMAGE = "debian:bookworm-slim"
SECRET_WORDS = re.compile(r"(?i)pass(word|wd|phrase)?$|secret|token|api_?key|private_?key")


@dataclass(frozen=True, slots=True)
class Limits:
    memory: int
    cpus: float
    pids: int


@dataclass(frozen=True, slots=True)
class Check:
    """A command whose exit status 0 means good; times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int


@dataclass(frozen=True, slots=True)
class Link:
    """A consumer's need, met: `provider` is a server's name."""

    name: str
    consumer: str
    provider: str
    provides: str
    port: int
    password: str | None  # the secret's address


@dataclass(frozen=True, slots=True)
class Route:
    server: str
    domains: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class Server:
    """One functional server, with nothing left to look up."""

    name: str
    kind: Kind
    recipe: Recipe
    context: Mapping[str, Any] = field(repr=False)
    domains: tuple[str, ...]
    environment: Mapping[str, str]
    image: str | None
    limits: Limits
    explicit_memory: bool
    publish: tuple[Publish, ...]
    egress: bool
    health: Check | None
    ready: Check | None
    links: tuple[Link, ...]
    secrets: Mapping[str, SecretSpec]
    mounted: tuple[str, ...]
    build: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A whole stack, resolved. `name` is its name on the engine, with the environment in it."""

    name: str
    environment: str | None
    folder: Path
    host: Host
    servers: Mapping[str, Server]
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    proxy: str | None
    document: Document = field(repr=False)
    warnings: tuple[str, ...] = ()


class _Places:
    """Places of values, also of servers that a `for` has made."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.origin: dict[str, str] = {}

    def _source(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(path) > 1 and path[0] == "servers":
            return ("servers", self.origin.get(str(path[1]), str(path[1])), *path[2:])
        return path

    def problem(self, what: str, *path: str | int, hint: str = "", key: bool = False) -> Problem:
        source = self._source(path)
        place = self.document.key_place(source) if key else self.document.place(source)
        return Problem(what, place, ".".join(map(str, path)), hint)

    def place(self, *path: str | int) -> Place | None:
        return self.document.place(self._source(path))


def _substitute(value: Any, name: str, item: str) -> Any:
    if isinstance(value, str):
        return value.replace("{" + name + "}", item)
    if isinstance(value, list):
        return [_substitute(v, name, item) for v in value]
    if isinstance(value, dict):
        return {_substitute(k, name, item): _substitute(v, name, item) for k, v in value.items()}
    return value


def _items(given: Any) -> list[str] | None:
    """The values of a `for`: a list, or a range such as 1..20."""
    if isinstance(given, list) and given and all(isinstance(v, str | int) and not isinstance(v, bool) for v in given):
        return [str(v) for v in given]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", given) if isinstance(given, str) else None
    if span and int(span[1]) <= int(span[2]) < int(span[1]) + 10_000:
        width = len(span[1]) if span[1].startswith("0") else 0
        return [str(n).zfill(width) for n in range(int(span[1]), int(span[2]) + 1)]
    return None


def _expand(servers: Mapping[str, Any], places: _Places, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """Servers with every `for` written out."""
    result: dict[str, dict[str, Any]] = {}

    def add(name: str, entry: Any, origin: str) -> None:
        places.origin[name] = origin
        if not naming.NAME.fullmatch(name):
            hint = "a server's name has letters a-z, digits and dashes, begins with a letter, and has at most 32"
            problems.append(places.problem(f"'{name}' can't be a server's name", "servers", name, hint=hint, key=True))
        elif name in result:
            problems.append(places.problem(f"two servers are named '{name}'", "servers", name, key=True))
        elif not isinstance(entry, dict):
            hint = f"write at least `{name}: {{kind: web}}`; `consolidate kinds` lists them"
            problems.append(places.problem("a server is a mapping with its kind", "servers", name, hint=hint))
        else:
            result[name] = entry

    for name, entry in servers.items():
        if not (isinstance(entry, dict) and "for" in entry):
            add(name, entry, name)
            continue
        places.origin[name] = name
        loop, rest = entry["for"], {k: v for k, v in entry.items() if k != "for"}
        variable = next(iter(loop)) if isinstance(loop, dict) and len(loop) == 1 else None
        items = _items(loop[variable]) if variable is not None else None
        if items is None:
            hint = "write for: {i: 1..20} or for: {name: [red, green]}, and {i} or {name} where the value goes"
            problems.append(places.problem("a `for` has one name with a list or a range", "servers", name, "for", hint=hint))
        elif "{" + str(variable) + "}" not in name:
            what = f"the server's name must have {{{variable}}} in it, or all would be named '{name}'"
            problems.append(places.problem(what, "servers", name, key=True))
        else:
            for item in items:
                add(name.replace(f"{{{variable}}}", item), _substitute(rest, str(variable), item), name)
    return result


def _entry_problems(error: ValidationError, name: str, known: list[str], places: _Places) -> Iterator[Problem]:
    for item in error.errors():
        loc = [p for p in item["loc"] if not (isinstance(p, str) and p.startswith(("function-", "literal[", "constrained-")))]
        path = ("servers", name, *loc)
        what, hint, key = item["msg"].removeprefix("Value error, "), "", False
        if item["type"] == "extra_forbidden":
            what, key = f"unknown key '{loc[-1]}'", True
            hint = did_you_mean(str(loc[-1]), known) if len(loc) == 1 else ""
            if SECRET_WORDS.search(str(loc[-1])):
                hint = f"no password stands in a stack file: `consolidate secret set {name}/NAME` takes it from standard input"
        elif item["type"] == "missing":
            what, hint = f"'{loc[-1]}' is required", f"`consolidate kinds show` says what it means"
            path = path[:-1]
        elif item["type"] in _KIND_OF:
            what = f"should be {_KIND_OF[item['type']]}, not {_shown(item['input'])}"
        yield places.problem(what, *path, hint=hint, key=key)


_KIND_OF = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"{value!r}" if not isinstance(value, bool) else str(value).lower()


def _wrap(value: Any, setting: Setting | None) -> Any:
    """A setting's value as templates see it: text whose type or pattern makes it harmless is `Safe`."""
    if isinstance(value, str):
        safe = setting is not None and (setting.type in values.SAFE_TYPES or setting.pattern is not None)
        return Safe(value) if safe else value
    if isinstance(value, list):
        inner = setting.items if setting else None
        return [_wrap(v, inner) for v in value]
    if isinstance(value, dict):
        fields = setting.fields if setting else {}
        keys, items = (setting.keys, setting.items) if setting else (None, None)
        return {(k if k in fields else _wrap(k, keys)): _wrap(v, fields.get(k, items)) for k, v in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@dataclass
class _Draft:
    """A server on its way: validated, not yet linked."""

    name: str
    kind: Kind
    entry: ServerEntry
    settings: dict[str, Any]
    links: dict[str, Link] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    limits: Limits | None = None


class Resolver:
    """Walks from a document to a `Resolved` stack, gathering every problem on the way."""

    def __init__(self, document: Document, catalogue: Catalogue, folder: Path, environment: str | None) -> None:
        self.document, self.catalogue, self.folder, self.environment = document, catalogue, folder, environment
        self.places = _Places(document)
        self.problems: list[Problem] = []
        self.drafts: dict[str, _Draft] = {}
        self.routes: list[Route] = []
        self.proxy: _Draft | None = None
        self.authority: str | None = None

    def resolve(self) -> Resolved:
        """Raises StackInvalid with every problem found."""
        stack = self._stack()
        self.name = f"{stack.stack}-{self.environment}" if self.environment else stack.stack
        for name, entry in _expand(stack.servers, self.places, self.problems).items():
            self._draft(name, entry)
        self._stop_on_problems()
        self._link()
        self._stop_on_problems()
        self._route()
        self._stop_on_problems()
        for draft in self.drafts.values():
            self._describe(draft)
        servers = {d.name: s for d in self.drafts.values() if (s := self._server(d))}
        self._stop_on_problems()
        self._share_certificates(servers)
        self._check_ports(servers)
        self._stop_on_problems()
        return Resolved(
            name=self.name,
            environment=self.environment,
            folder=self.folder,
            host=stack.host,
            servers=servers,
            links=tuple(link for d in self.drafts.values() for link in d.links.values()),
            routes=tuple(self.routes),
            proxy=self.proxy.name if self.proxy else None,
            document=self.document,
        )

    def _stop_on_problems(self) -> None:
        if self.problems:
            raise StackInvalid(self.problems)

    def _stack(self) -> Stack:
        data = {k: v for k, v in self.document.data.items() if not k.startswith("x-")}
        unknown = [k for k in data if k not in Stack.model_fields]
        for key in unknown:
            hint = did_you_mean(key, Stack.model_fields)
            self.problems.append(self.places.problem(f"unknown key '{key}'", key, hint=hint, key=True))
        try:
            stack = Stack.model_validate({k: v for k, v in data.items() if k not in unknown})
        except ValidationError as error:
            for problem, item in zip(word_problems(error, self.document), error.errors(), strict=True):
                what = _KIND_OF.get(item["type"])
                shown = Problem(f"should be {what}, not {_shown(item['input'])}", problem.place, problem.path)
                missing = Problem(f"'{item['loc'][-1]}' is required", problem.place, "")
                self.problems.append(missing if item["type"] == "missing" else shown if what else problem)
            raise StackInvalid(self.problems) from None
        if not stack.servers:
            self.problems.append(self.places.problem("a stack has at least one server", "servers"))
        return stack

    def _draft(self, name: str, entry: dict[str, Any]) -> None:
        kind_name = entry.get("kind")
        if not isinstance(kind_name, str) or kind_name not in self.catalogue:
            hint = did_you_mean(str(kind_name), self.catalogue.names) if kind_name else ""
            known = f"{hint}{'; ' if hint else ''}`consolidate kinds` lists them: {', '.join(self.catalogue.names)}"
            what = f"there is no kind '{kind_name}'" if kind_name else "'kind' is required"
            path = ("servers", name, "kind") if kind_name else ("servers", name)
            self.problems.append(self.places.problem(what, *path, hint=known))
            return
        kind = self.catalogue[kind_name]
        model = server_model(kind)
        known_keys = [*model.model_fields, "for"]
        try:
            parsed = model.model_validate(entry)
        except ValidationError as error:
            self.problems += _entry_problems(error, name, known_keys, self.places)
            return
        dumped = parsed.model_dump()
        settings = {k: _wrap(dumped[k], s) for k, s in kind.head.settings.items()}
        self.drafts[name] = _Draft(name=name, kind=kind, entry=parsed, settings=settings)
        self._check_entry(name, parsed)
        for key, setting in kind.head.settings.items():
            if setting.type == "path" and dumped[key] is not None:
                self._check_path(dumped[key], "servers", name, key)

    def _check_entry(self, name: str, entry: ServerEntry) -> None:
        for variable, value in entry.environment.items():
            if SECRET_WORDS.search(variable) and not value.startswith(SECRETS_PATH):
                hint = (
                    f"anybody who can inspect the container reads it there; write `secrets: {{{variable.lower()}: {{}}}}`"
                    f" and {variable}_FILE: {SECRETS_PATH}/{variable.lower()}, if the program takes that"
                )
                what = f"'{variable}' looks like a secret, and an environment variable is no place for one"
                self.problems.append(self.places.problem(what, "servers", name, "environment", variable, hint=hint))
        for secret, source in entry.secrets.items():
            if source.file is not None:
                self._check_path(source.file, "servers", name, "secrets", secret, "file", inside=False)

    def _check_path(self, given: str, *path: str | int, inside: bool = True) -> None:
        folder = self.folder.resolve()
        target = (folder / given).resolve()
        if inside and not target.is_relative_to(folder):
            what = f"'{given}' leads out of the stack's folder"
            hint = f"put it below {folder}, so that the stack can be moved as one folder"
            self.problems.append(self.places.problem(what, *path, hint=hint))
        elif not target.exists():
            self.problems.append(self.places.problem(f"there is no '{given}'", *path, hint=f"looked for {target}"))

    def _link(self) -> None:
        for draft in self.drafts.values():
            for name, need in draft.kind.head.links.items():
                target = getattr(draft.entry, name)
                if target is None:
                    continue
                self._link_one(draft, name, need.provides, target)
        order = {d.name: {link.provider for link in d.links.values()} for d in self.drafts.values()}
        try:
            graphlib.TopologicalSorter(order).prepare()
        except graphlib.CycleError as error:
            ring = error.args[1]
            first = self.drafts[ring[0]]
            link = next(n for n, li in first.links.items() if li.provider in ring)
            what = f"these servers need each other in a circle: {' → '.join(reversed(ring))}"
            self.problems.append(self.places.problem(what, "servers", first.name, link))

    def _link_one(self, draft: _Draft, name: str, provides: str, target: str) -> None:
        path = ("servers", draft.name, name)
        able = [d.name for d in self.drafts.values() if provides in d.kind.head.provides and d is not draft]
        offer = f"servers that provide it: {', '.join(able)}" if able else f"no server here provides '{provides}'"
        if target not in self.drafts:
            hint = did_you_mean(target, able) or offer
            self.problems.append(self.places.problem(f"there is no server '{target}'", *path, hint=hint))
        elif target not in able:
            kind = self.drafts[target].kind.name
            what = f"'{target}' is of the kind {kind}, which doesn't provide '{provides}'"
            self.problems.append(self.places.problem(what, *path, hint=offer))
        else:
            offered = self.drafts[target].kind.head.provides[provides]
            password = f"{draft.name}/{name}_password" if offered.password else None
            draft.links[name] = Link(name, draft.name, target, provides, offered.port, password)

    def _route(self) -> None:
        """Find the proxy, and what it routes; a domain belongs to one routed server."""
        owner: dict[str, str] = {}
        for draft in self.drafts.values():
            draft.context = self._base_context(draft)
            http = self._evaluate(draft, "http")
            if self._evaluate(draft, "routes"):
                if self.proxy:
                    what = f"'{self.proxy.name}' is the proxy already; a stack has one"
                    self.problems.append(self.places.problem(what, "servers", draft.name, "kind"))
                self.proxy = draft
            if http is None:
                continue
            for index, name in enumerate(draft.entry.domains):
                if name in owner:
                    what = f"the domain {name} is routed to '{owner[name]}' already"
                    self.problems.append(self.places.problem(what, "servers", draft.name, "domains", index))
                owner[name] = draft.name
            if draft.entry.domains:
                self.routes.append(Route(draft.name, tuple(draft.entry.domains), int(http)))
        if self.proxy is None:
            self.routes = []

    def _base_context(self, draft: _Draft) -> dict[str, Any]:
        return {
            "stack": {"name": Safe(self.name)},
            "server": {
                "name": Safe(draft.name),
                "kind": Safe(draft.kind.name),
                "account": Safe(naming.account(draft.name)),
            },
            "domains": [Safe(d) for d in draft.entry.domains],
            "settings": draft.settings,
            "image": draft.entry.image,
            "base": Safe(BASE_IMAGE),
        }

    def _describe(self, draft: _Draft) -> None:
        """Fill in the context that needs the other servers."""
        proxy = self.proxy
        routed = any(r.server == draft.name for r in self.routes)
        draft.context |= {
            "proxy": (proxy.settings | {"server": Safe(proxy.name)}) if proxy and routed else None,
            "routes": [
                {"server": Safe(r.server), "domains": [Safe(d) for d in r.domains], "host": Safe(r.server), "port": r.port}
                for r in self.routes
            ]
            if draft is proxy
            else [],
            "links": {n: self._link_context(draft, n) for n in draft.kind.head.links},
            "consumers": {p: self._consumers(draft, p) for p in draft.kind.head.provides},
        }
        draft.limits = self._limits(draft)
        draft.context["resources"] = {
            "memory": draft.limits.memory,
            "cpus": draft.limits.cpus,
            "pids": draft.limits.pids,
        }

    def _link_context(self, draft: _Draft, name: str) -> dict[str, Any] | None:
        link = draft.links.get(name)
        if link is None:
            return None
        provider = self.drafts[link.provider]
        offered = provider.kind.head.provides[link.provides]
        return {
            "server": Safe(link.provider),
            "host": Safe(link.provider),
            "port": link.port,
            "password": Safe(f"{SECRETS_PATH}/{name}_password") if link.password else None,
            **self._provided_values(provider, offered, draft, name),
        }

    def _provided_values(self, provider: _Draft, offered: Provided, consumer: _Draft, link: str) -> dict[str, Any]:
        context = provider.context | {"consumer": self._consumer(consumer, link)}
        try:
            return {k: Safe(evaluate(v, context)) for k, v in offered.values.items()}
        except (TemplateError, TypeError) as error:
            self.problems.append(Problem(f"provides: {error}", provider.kind.place("provides")))
            return {}

    def _consumer(self, consumer: _Draft, link: str) -> dict[str, Any]:
        return {
            "server": Safe(consumer.name),
            "account": Safe(naming.account(consumer.name)),
            "domains": [Safe(d) for d in consumer.entry.domains],
            "link": Safe(link),
        }

    def _consumers(self, provider: _Draft, provides: str) -> list[dict[str, Any]]:
        offered = provider.kind.head.provides[provides]
        found = []
        for consumer in self.drafts.values():
            for link in consumer.links.values():
                if (link.provider, link.provides) == (provider.name, provides):
                    values_ = self._provided_values(provider, offered, consumer, link.name)
                    password = SecretRef.of(link.password, needs_filter=True) if link.password else None
                    found.append(self._consumer(consumer, link.name) | values_ | {"password": password})
        return found

    def _limits(self, draft: _Draft) -> Limits:
        word, given = self._evaluate(draft, "resources") or {}, draft.entry.resources
        try:
            return Limits(
                memory=given.memory or values.size(word.get("memory", "256M")),
                cpus=float(given.cpus or word.get("cpus", 1)),
                pids=given.pids or word.get("pids", 200),
            )
        except ValueError as error:
            self.problems.append(Problem(f"resources: {error}", draft.kind.place("resources")))
            return Limits(2**28, 1, 200)

    def _evaluate(self, draft: _Draft, word: str) -> Any:
        try:
            return evaluate(draft.kind.recipe.get(word), draft.context)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            self.problems.append(Problem(f"{word}: {error}", draft.kind.place(word), word))
            return None

    def _server(self, draft: _Draft) -> Server | None:
        before = len(self.problems)
        recipe = self._recipe(draft)
        for requirement in draft.kind.head.requires:
            if not evaluate("{{ " + requirement.expression + " }}", draft.context):
                self.problems.append(self.places.problem(requirement.message, "servers", draft.name, key=True))
        if recipe is None or len(self.problems) > before:
            return None
        assert draft.limits is not None
        entry = draft.entry
        secrets, mounted = self._secrets(draft, recipe)
        self._add_secret_function(draft, secrets)
        published = [p for p in recipe.publish if p] + list(entry.publish)
        health, ready = self._checks(draft, recipe)
        return Server(
            name=draft.name,
            kind=draft.kind,
            recipe=recipe,
            context=draft.context,
            domains=tuple(entry.domains),
            environment=recipe.environment | entry.environment,
            image=entry.image or recipe.image,
            build=None if entry.image else recipe.build,
            limits=draft.limits,
            explicit_memory=entry.resources.memory is not None,
            publish=tuple(parse_publish(p) for p in published),
            egress=recipe.egress if entry.egress is None else entry.egress,
            health=health,
            ready=ready,
            links=tuple(draft.links.values()),
            secrets=secrets,
            mounted=mounted,
        )

    def _recipe(self, draft: _Draft) -> Recipe | None:
        words = {w: self._evaluate(draft, w) for w in draft.kind.recipe}
        try:
            recipe = Recipe.model_validate({k: _plain(v) for k, v in words.items() if v is not None})
        except ValidationError as error:
            self.problems += word_problems(error, draft.kind.document)
            return None
        if not (recipe.image or recipe.build or draft.entry.image or draft.kind.dockerfile):
            self.problems.append(self.places.problem("give it an image, or a folder to build", "servers", draft.name))
        return recipe

    def _checks(self, draft: _Draft, recipe: Recipe) -> tuple[Check | None, Check | None]:
        """The engine's health check and our readiness probe; each stands in for the other where one is missing."""
        given = draft.entry.health
        if given is not None:
            check = Check(_compose_test(given.test), given.interval, given.timeout, given.retries)
            return check, check
        health = ready = None
        if recipe.health:
            h = recipe.health
            interval, timeout = values.duration(h.interval), values.duration(h.timeout)
            health = Check(_compose_test(h.command), interval, timeout, h.retries)
        if recipe.ready:
            timeout = values.duration(recipe.ready.timeout)
            ready = Check(_compose_test(recipe.ready.command), health.interval if health else 30.0, timeout, 3)
        if health is None and ready is not None:
            health = Check(ready.command, 30.0, 5.0, 3)
        return health, ready or health

    def _secrets(self, draft: _Draft, recipe: Recipe) -> tuple[dict[str, SecretSpec], tuple[str, ...]]:
        """The secrets that a server reads by their local names, and which of them are files in it."""
        specs: dict[str, SecretSpec] = {}
        mounted = []
        given = draft.entry.secrets
        for pattern, need in recipe.secrets.items():
            for item in [None] if need.each is None else list(need.each):
                name = pattern if item is None else pattern.replace("{item}", str(item))
                raw = need.name if isinstance(need.name, list) else [need.name] if need.name else []
                names = tuple(str(n).replace("{item}", str(item)) for n in raw)
                address = f"{draft.name}/{name}"
                specs[name] = SecretSpec(address, need.generate, need.length, names, None, None, need.help)
                if need.mount:
                    mounted.append(name)
                if need.generate == "authority" and draft is self.proxy:
                    self.authority = address
        for link in draft.links.values():
            if link.password:
                name = f"{link.name}_password"
                specs[name] = SecretSpec(link.password, help=f"the account on {link.provider}")
                mounted.append(name)
        for name, source in given.items():
            if "/" in name or name.startswith("."):
                self.problems.append(self.places.problem("not a secret's name", "servers", draft.name, "secrets", name))
                continue
            if name not in specs:
                specs[name] = SecretSpec(f"{draft.name}/{name}")
                mounted.append(name)
            specs[name] = _with_source(specs[name], source.model_dump(exclude_none=True))
        return specs, tuple(sorted(mounted))

    def _add_secret_function(self, draft: _Draft, specs: Mapping[str, SecretSpec]) -> None:
        readable = {spec.address: spec for spec in specs.values()}
        consumed = {str(c["password"]) for group in draft.context["consumers"].values() for c in group if c["password"]}

        def secret(name: str) -> SecretRef:
            spec = specs.get(name) or readable.get(name)
            if spec is None:
                ref = SecretRef.of(name, needs_filter=True)
                if ref in consumed:
                    return ref
                raise LookupError(f"the manifest declares no secret '{name}' {did_you_mean(name, specs)}".strip())
            return SecretRef.of(spec.address, needs_filter=spec.generate == "password")

        draft.context["secret"] = secret

    def _share_certificates(self, servers: dict[str, Server]) -> None:
        """Sign every certificate by the proxy's authority; one for a routed host name is the proxy's own."""
        proxy = servers.get(self.proxy.name) if self.proxy else None
        issued = {s.names: s.address for s in proxy.secrets.values() if s.generate == "certificate"} if proxy else {}
        for name, server in servers.items():
            for local, spec in server.secrets.items():
                if spec.generate != "certificate":
                    continue
                address = issued.get(spec.names, spec.address)
                shared = SecretSpec(address, "certificate", spec.length, spec.names, self.authority, spec.source, spec.help)
                servers[name].secrets[local] = shared  # type: ignore[index]

    def _check_ports(self, servers: Mapping[str, Server]) -> None:
        taken: dict[tuple[int, str], tuple[Publish, str]] = {}
        for server in servers.values():
            for publish in server.publish:
                for (port, protocol), (other, owner) in taken.items():
                    clash = publish.address == other.address or "0.0.0.0" in (publish.address, other.address)  # noqa: S104
                    if (publish.port, publish.protocol) == (port, protocol) and clash:
                        what = f"the port {publish.address}:{publish.port} is taken by '{owner}' already"
                        self.problems.append(self._publish_problem(what, server.name, publish))
                taken[publish.port, publish.protocol] = (publish, server.name)

    def _publish_problem(self, what: str, server: str, publish: Publish) -> Problem:
        return publish_problem(self.places, what, server, publish)


def publish_problem(places: _Places, what: str, server: str, publish: Publish) -> Problem:
    """A problem at the text in which `publish` stands: under `publish:`, or the setting that holds the port."""
    base = ("servers", places.origin.get(server, server))
    for path in places.document.values:
        if path[:2] == base and len(path) > 2 and str(publish.port) in str(_at(places.document.data, path)).split(":"):
            return places.problem(what, "servers", server, *path[2:])
    return places.problem(what, "servers", server, key=True)


def host_problems(
    resolved: Resolved, host: HostFacts, foreign_ports: Iterable[tuple[str, int, str, str]]
) -> list[Problem]:
    """Where this host can't carry the stack: explicit memory beyond what is left of it, ports that others publish."""
    places = _Places(resolved.document)
    asked = {s.name: s.limits.memory for s in resolved.servers.values() if s.explicit_memory}
    left = host.memory - int(resolved.host.reserve.memory)
    problems = []
    if sum(asked.values()) > left:
        listed = ", ".join(f"{n} {m / 2**20:g}M" for n, m in sorted(asked.items(), key=lambda i: -i[1])[:5])
        what = f"the memory limits add up to {sum(asked.values()) / 2**20:g}M, and the host has {left / 2**20:.0f}M for servers"
        problems.append(places.problem(what, "servers", hint=f"the largest are {listed}; host.reserve keeps the rest"))
    for server in resolved.servers.values():
        for publish in server.publish:
            for address, port, protocol, container in foreign_ports:
                wild = {"0.0.0.0", "::"} & {address, publish.address}  # noqa: S104
                if (port, protocol) == (publish.port, publish.protocol) and (wild or address == publish.address):
                    what = f"the port {publish.address}:{publish.port} of the host is taken by the container {container}"
                    problems.append(publish_problem(places, what, server.name, publish))
                    break
    return problems


def _at(data: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


def _with_source(spec: SecretSpec, given: Mapping[str, Any]) -> SecretSpec:
    source = next((Source(k, " ".join(v) if isinstance(v, list) else v) for k, v in given.items()), None)  # type: ignore[arg-type]
    return SecretSpec(spec.address, spec.generate, spec.length, spec.names, spec.authority, source, spec.help)


def _compose_test(test: list[str]) -> tuple[str, ...]:
    """A health check's command; CMD and CMD-SHELL mean what they mean in Compose."""
    if test[:1] == ["CMD"]:
        return tuple(test[1:])
    if test[:1] == ["CMD-SHELL"]:
        return ("/bin/sh", "-c", " ".join(test[1:]))
    return tuple(test)


def _plain(value: Any) -> Any:
    """A copy with plain text in place of `Safe`, as the models want it."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return value


def resolve(document: Document, catalogue: Catalogue, folder: Path, environment: str | None = None) -> Resolved:
    """The servers of a stack.

    `folder` is the stack's; paths in the file are below it. Raises StackInvalid with every problem found.
    """
    return Resolver(document, catalogue, folder, environment).resolve()


__all__ = ["COMMON", "Link", "Resolved", "Route", "Server", "resolve"]
