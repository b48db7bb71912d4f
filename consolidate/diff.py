"""The difference between what should be and what is, as a plan. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from consolidate import naming
from consolidate.desired import DataVolume, Desired, DesiredServer, FileVolume, Network
from consolidate.observed import Observed, ObservedContainer, free_subnets
from consolidate.plan import (
    ADDRESS,
    Action,
    ApplyGrant,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    Impact,
    NameOnNetwork,
    Operation,
    Plan,
    ProvideImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RevokeGrant,
    StartContainer,
    StopContainer,
    StoreSecrets,
    SwitchRoute,
    WaitReady,
    WriteFiles,
    WriteLive,
)
from consolidate.secret import SecretRecord

REVOKE = naming.PREFIX + "revoke"


def diff(desired: Desired, observed: Observed, new_secrets: Iterable[SecretRecord] = ()) -> Plan:
    """The plan that turns `observed` into `desired`.

    `new_secrets` is the whole store to be written, where any of it is new. Raises ValueError where the pool of
    subnets is too small.
    """
    return _Differ(desired, observed, tuple(new_secrets)).plan()


@dataclass
class _Differ:
    desired: Desired
    observed: Observed
    store: tuple[SecretRecord, ...]
    operations: list[Operation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)  # server → its container after this plan

    def plan(self) -> Plan:
        self._secrets()
        self._images()
        self._networks()
        for server in self.desired.servers.values():
            self._files(server)
        for server in self.desired.servers.values():
            self._container(server)
        self._grants()
        self._routes()
        self._gone()
        return Plan(self.desired.stack, tuple(map(self._with_met_needs, self.operations)), tuple(self.notes))

    def _with_met_needs(self, operation: Operation) -> Operation:
        """Without needs that are not in this plan: they are met already."""
        needs = tuple(n for n in operation.needs if n in self.ids)
        return replace(operation, needs=needs, after=tuple(n for n in operation.after if n in self.ids))

    def add(
        self,
        id_: str,
        action: Action,
        server: str,
        reason: str,
        *,
        needs: Iterable[str] = (),
        after: Iterable[str] = (),
        impact: Impact = "none",
        downtime: str = "",
        undo: Iterable[Action] = (),
    ) -> str:
        """Add an operation. It may need what is added later, and what no plan has to do any more."""
        later = tuple(dict.fromkeys(after))
        needed = tuple(dict.fromkeys(needs))
        self.operations.append(Operation(id_, action, server, reason, needed, later, impact, downtime, tuple(undo)))
        self.ids.add(id_)
        return id_

    def labels(self, server: str, role: str, **more: str) -> tuple[tuple[str, str], ...]:
        labels = {naming.STACK: self.desired.stack, naming.OF: server, naming.ROLE: role} | more
        return tuple(sorted(labels.items()))

    def _secrets(self) -> None:
        if not self.store:
            return
        volume = naming.store_volume(self.desired.stack)
        if volume not in {v.name for v in self.observed.volumes}:
            self.add(f"volume:{volume}", CreateVolume(volume, self.labels("", "store")), "", "holds the secrets")
        count = len(self.store)
        reason = f"{count} secrets, some of them new"
        self.add("secrets", StoreSecrets(self.desired.stack, self.store), "", reason, needs=[f"volume:{volume}"])

    def _images(self) -> None:
        for image in self.desired.images:
            if image.tag in self.observed.images:
                continue
            reason = {"build": "not built yet", "pull": "not on the engine", "base": "every image is built from it"}[
                image.how
            ]
            needs = [f"image:{self.desired.images[0].tag}"] if image.how == "build" else []
            servers = ", ".join(image.servers)
            self.add(f"image:{image.tag}", ProvideImage(image), servers, reason, needs=needs)

    def _networks(self) -> None:
        have = {n.name for n in self.observed.networks}
        missing = [n for n in self.desired.networks if n.name not in have]
        pool = self.desired.resolved.host.subnets
        for network, subnet in zip(missing, free_subnets(self.observed, pool, len(missing)), strict=True):
            labels = self.labels(network.server, network.role)
            action = CreateNetwork(network.name, subnet, network.internal, network.masquerade, labels, pool)
            self.add(f"network:{network.name}", action, network.server, _why_network(network))

    def _files(self, server: DesiredServer) -> None:
        # A volume whose writer is still there was not filled to the end.
        partial = {v for c in self.observed.containers if c.helper == "writer" for v in c.volumes}
        have = {v.name for v in self.observed.volumes} - partial
        for volume in server.volumes:
            if volume.name not in have:
                self._data_volume(volume)
        for files in server.files:
            if files.name not in have:
                reason = "its configuration" if files.role == "config" else "the secrets that it reads"
                self.add(f"files:{files.name}", WriteFiles(files), server.server.name, reason, needs=["secrets"])

    def _data_volume(self, volume: DataVolume) -> None:
        labels = self.labels(volume.server, "data", **{naming.VOLUME: volume.volume})
        self.add(
            f"volume:{volume.name}", CreateVolume(volume.name, labels), volume.server, "data that outlives containers"
        )

    def _write_live(self, server: DesiredServer, container: str | None, *, replaced: bool) -> str | None:
        """The operation that writes the reloadable files, where they differ from those last applied."""
        live = server.live
        if live is None:
            return None
        receipt = self.observed.helper(naming.helper(self.desired.stack, live.server, "live"))
        have = {v.name for v in self.observed.volumes}
        if receipt and receipt.labels.get(naming.APPLIED) == live.applied and live.volume in have:
            return None
        if live.volume not in have and f"volume:{live.volume}" not in self.ids:
            labels = self.labels(live.server, "live")
            self.add(
                f"volume:{live.volume}",
                CreateVolume(live.volume, labels),
                live.server,
                "files that can change under it",
            )
        told = None if replaced else container
        impact: Impact = "reload" if told else "none"
        reason = "its reloadable files changed" if receipt else "its reloadable files"
        needs = [f"volume:{live.volume}", "secrets"]
        downtime = "no connection is dropped" if told else ""
        return self.add(
            f"live:{live.server}",
            WriteLive(live, told),
            live.server,
            reason,
            needs=needs,
            impact=impact,
            downtime=downtime,
        )

    def _container(self, server: DesiredServer) -> None:
        name, want = server.server.name, server.container
        found = self.observed.servers.get(name, [])
        current = self.observed.current(name)
        match = next((c for c in found if c.fingerprint == want.fingerprint and c.state != "dead"), None)
        lost = [m.volume for m in want.mounts if f"volume:{m.volume}" in self.ids or f"files:{m.volume}" in self.ids]
        # A container that was made without a network can't join one later.
        if match and not lost and (match.networks or not server.networks):
            self.names[name] = match.name
            self._keep(server, match, [c for c in found if c is not match])
        else:
            self._replace(server, current, found, lost if match else [])

    def _keep(self, server: DesiredServer, container: ObservedContainer, others: list[ObservedContainer]) -> None:
        """The right container is there: let it run, on the right networks, alone."""
        name = server.server.name
        joined = self._networks_right(server, container)
        live = self._write_live(server, container.name if container.running else None, replaced=False)
        serving = [c for c in others if c.running]
        if container.running and not serving and not others:
            return
        if not container.running:
            stop = [
                self.add(
                    f"stop:{c.name}", StopContainer(c.name, server.container.stop_grace), name, "an earlier generation"
                )
                for c in serving
                if not server.rolling
            ]
            reason = f"it is {container.state}" if container.state != "created" else "it was created but not started"
            needs = [*joined, *stop, *([live] if live else []), *self._before_start(server)]
            undo: list[Action] = [StopContainer(container.name, server.container.stop_grace)]
            undo += [StartContainer(c.name) for c in serving if not server.rolling]
            self.add(
                f"start:{name}", StartContainer(container.name), name, reason, needs=needs, impact="restart", undo=undo
            )
            self.add(
                f"ready:{name}",
                WaitReady(container.name, server.ready),
                name,
                reason,
                needs=[f"start:{name}"],
                undo=undo,
            )
        elif others:
            # An earlier run was stopped before it knew: should the new one not get ready, the old one comes back.
            undo = [] if serving else [RemoveContainer(container.name), StartContainer(others[0].name)]
            reason = "an earlier run did not see it ready"
            self.add(f"ready:{name}", WaitReady(container.name, server.ready), name, reason, undo=undo)
        self._take_over(server, container.name, others, "an earlier generation")

    def _networks_right(self, server: DesiredServer, container: ObservedContainer) -> list[str]:
        name, wanted = server.server.name, set(server.networks)
        made = []
        for network in sorted(wanted - set(container.networks)):
            action = ConnectNetwork(container.name, network, name)
            made.append(
                self.add(
                    f"connect:{container.name}:{network}",
                    action,
                    name,
                    f"it needs {network}",
                    needs=[f"network:{network}"],
                )
            )
        owned = {n.name for n in self.observed.networks}
        for network in sorted((set(container.networks) & owned) - wanted):
            action2 = DisconnectNetwork(container.name, network)
            self.add(f"disconnect:{container.name}:{network}", action2, name, "nothing there is declared any more")
        return made

    def _before_start(self, server: DesiredServer) -> list[str]:
        """What must hold before a server starts: its providers are ready and know it."""
        needs = []
        for link in server.server.links:
            needs.append(f"ready:{link.provider}")
            needs.append(f"grant:{link.provider}:{link.consumer}:{link.name}")
        return needs

    def _replace(
        self, server: DesiredServer, current: ObservedContainer | None, found: list[ObservedContainer], lost: list[str]
    ) -> None:
        name, want = server.server.name, server.container
        generation = max((c.generation for c in found), default=0) + 1
        new = naming.container(self.desired.stack, name, generation)
        self.names[name] = new
        reason = _why(server, current, lost)
        running = current is not None and current.running
        rolling = server.rolling and running
        impact: Impact = "rolling" if rolling else "restart" if running else "none"
        downtime = (
            ""
            if not running
            else "none expected: the new one starts first"
            if rolling
            else "from its stop until the new one is ready"
        )
        live = self._write_live(server, None, replaced=True)
        labels = {
            naming.STACK: self.desired.stack,
            naming.SERVER: name,
            naming.KIND: want.kind,
            naming.GENERATION: str(generation),
            naming.FINGERPRINT: want.fingerprint,
            naming.REASONS: json.dumps(dict(server.parts), sort_keys=True),
        }
        needs = [f"image:{want.image}", *([live] if live else [])]
        needs += [f"{kind}:{m.volume}" for m in want.mounts for kind in ("volume", "files")]
        needs += [f"network:{n}" for n in server.networks]
        # Before it is ready the proxy must not find it.
        nameless = tuple(filter(None, [self._route_network(server)])) if rolling else ()
        create = CreateContainer(new, generation, want, server.networks, tuple(sorted(labels.items())), nameless)
        self.add(f"create:{name}", create, name, reason, needs=needs)
        stops = []
        if not rolling:
            stops = [
                self.add(
                    f"stop:{c.name}",
                    StopContainer(c.name, want.stop_grace),
                    name,
                    "the new one takes its place",
                    needs=[f"create:{name}", *self._before_start(server)],
                    impact="restart",
                )
                for c in found
                if c.running or c.state == "restarting"
            ]
        undo: list[Action] = [StopContainer(new, want.stop_grace)]
        if current is not None:
            # A failed successor goes, with its name free for the next try; the old one serves on.
            undo = [RemoveContainer(new), *([StartContainer(current.name)] if running and not rolling else [])]
        self.add(
            f"start:{name}",
            StartContainer(new),
            name,
            reason,
            needs=[f"create:{name}", *stops, *self._before_start(server)],
            impact=impact,
            downtime=downtime,
            undo=undo,
        )
        self.add(f"ready:{name}", WaitReady(new, server.ready), name, reason, needs=[f"start:{name}"], undo=undo)
        self._take_over(server, new, found, "replaced")
        for note in server.relaxed:
            self.notes.append(f"{name}: {note}")

    def _take_over(self, server: DesiredServer, new: str, old: list[ObservedContainer], reason: str) -> None:
        """Once the new container is ready it gets the requests, and the old ones go."""
        name, grace = server.server.name, server.container.stop_grace
        ready = f"ready:{name}"
        rolled = [c for c in old if c.running and f"stop:{c.name}" not in self.ids]
        route = self._route_network(server)
        proxy = self._running_proxy()
        if rolled and route:
            alias = NameOnNetwork(new, route, name)
            ready = self.add(f"name:{name}", alias, name, "the proxy finds it", needs=[ready])
        if rolled and route and proxy:
            command = (*proxy[1], "take", name, ADDRESS, str(int(grace)))
            needs = [ready, f"live:{self.desired.resolved.proxy}"]
            switch = SwitchRoute(proxy[0], command, new, route)
            ready = self.add(
                f"switch:{name}", switch, name, "requests go to the new one", needs=needs, impact="rolling"
            )
        for container in old:
            id_ = f"stop:{container.name}"
            if container in rolled:
                self.add(id_, StopContainer(container.name, grace), name, reason, needs=[ready])
            self.add(f"remove:{container.name}", RemoveContainer(container.name), name, reason, needs=[ready, id_])
        if rolled and route and proxy:
            needs = [f"remove:{c.name}" for c in rolled]
            settle = SwitchRoute(proxy[0], (*proxy[1], "settle", name))
            self.add(f"settle:{name}", settle, name, "the old one has gone", needs=needs)

    def _route_network(self, server: DesiredServer) -> str | None:
        name = naming.route_network(self.desired.stack, server.server.name)
        return name if name in server.networks and server.server.name != self.desired.resolved.proxy else None

    def _running_proxy(self) -> tuple[str, tuple[str, ...]] | None:
        """The proxy's container and its `switch` command, where it goes on running as it is."""
        proxy = self.desired.servers.get(self.desired.resolved.proxy or "")
        if proxy is None or not proxy.server.recipe.switch:
            return None
        found = self.observed.servers.get(proxy.server.name, [])
        kept = next((c for c in found if c.running and c.fingerprint == proxy.container.fingerprint), None)
        return (kept.name, tuple(proxy.server.recipe.switch)) if kept else None

    def _grants(self) -> None:
        """Grants compare with their receipts; a provider whose data is new has forgotten them."""
        for grant in self.desired.grants:
            link = grant.link
            receipt_name = naming.helper(self.desired.stack, link.provider, grant.name)
            receipt = self.observed.helper(receipt_name)
            provider = self.desired.servers[link.provider]
            forgotten = any(f"volume:{v.name}" in self.ids for v in provider.volumes)
            if receipt and receipt.labels.get(naming.APPLIED) == grant.applied and not forgotten:
                continue
            reason = f"{link.consumer} needs its {link.provides}" if not receipt else "its account changed"
            self.add(
                f"grant:{link.provider}:{link.consumer}:{link.name}",
                ApplyGrant(self.desired.stack, grant, self.names[link.provider], receipt_name),
                link.provider,
                reason,
                needs=[f"ready:{link.provider}", "secrets"],
            )

    def _routes(self) -> None:
        """Wait until the proxy has found the servers that are new."""
        resolved = self.desired.resolved
        proxy = self.desired.servers[resolved.proxy] if resolved.proxy else None
        routed = [r.server for r in resolved.routes]
        new = [s for s in routed if f"start:{s}" in self.ids and f"switch:{s}" not in self.ids]
        if proxy is None or not proxy.server.recipe.switch:
            return
        name = proxy.server.name
        waiting = new or (routed if f"start:{name}" in self.ids else [])
        if waiting:
            command = (*proxy.server.recipe.switch, "wait", *waiting)
            needs = [f"ready:{name}", f"live:{name}", *(f"ready:{s}" for s in new)]
            self.add(f"routes:{name}", SwitchRoute(self.names[name], command), name, "it routes to them", needs=needs)

    def _gone(self) -> None:
        """Remove what no server declares any more. Data volumes stay."""
        self._gone_containers()
        leaving = {o.action.name: o.id for o in self.operations if isinstance(o.action, RemoveContainer)}
        parting = {
            (o.action.container, o.action.network): o.id
            for o in self.operations
            if isinstance(o.action, DisconnectNetwork)
        }
        wanted = {n.name for n in self.desired.networks}
        for network in self.observed.networks:
            if network.name not in wanted:
                server = network.labels.get(naming.OF, "")
                members = [c.name for c in self.observed.containers if network.name in c.networks]
                needs = [leaving[m] for m in members if m in leaving]
                needs += [parting[m, network.name] for m in members if (m, network.name) in parting]
                self.add(
                    f"remove-network:{network.name}",
                    RemoveNetwork(network.name),
                    server,
                    "nothing uses it any more",
                    needs=needs,
                )
        self._gone_volumes()

    def _gone_containers(self) -> None:
        for name, found in self.observed.servers.items():
            if name in self.desired.servers:
                continue
            for container in found:
                stop = self.add(
                    f"stop:{container.name}",
                    StopContainer(container.name, 30),
                    name,
                    "it is no longer in the stack",
                    impact="restart",
                    downtime="it is gone",
                )
                self.add(
                    f"remove:{container.name}",
                    RemoveContainer(container.name),
                    name,
                    "it is no longer in the stack",
                    needs=[stop],
                )
        granted = {naming.helper(self.desired.stack, g.link.provider, g.name) for g in self.desired.grants}
        live = {naming.helper(self.desired.stack, s, "live") for s, d in self.desired.servers.items() if d.live}
        for helper in self.observed.containers:
            if helper.helper == "grant" and helper.name not in granted:
                self._revoke(helper)
            elif (helper.helper == "live" and helper.name not in live) or self._is_leftover(helper):
                server = helper.labels.get(naming.OF, "")
                self.add(f"remove:{helper.name}", RemoveContainer(helper.name), server, "nothing needs it any more")

    def _is_leftover(self, helper: ObservedContainer) -> bool:
        """A writer that a killed run left behind, and that this plan doesn't use again."""
        return helper.helper == "writer" and not any(f"files:{v}" in self.ids for v in helper.volumes)

    def _revoke(self, receipt: ObservedContainer) -> None:
        provider = receipt.labels.get(naming.OF, "")
        stored = json.loads(receipt.labels.get(REVOKE, "{}"))
        action = RevokeGrant(
            receipt.name, self.names.get(provider), tuple(stored.get("command", ())), stored.get("input", "")
        )
        reason = "the server that it was for has gone; what it owned there is kept"
        self.add(f"revoke:{receipt.name}", action, provider, reason, needs=[f"ready:{provider}"])

    def _gone_volumes(self) -> None:
        wanted = {f.name for d in self.desired.servers.values() for f in d.files}
        wanted |= {d.live.volume for d in self.desired.servers.values() if d.live}
        removed = self.observed.servers.keys() - self.desired.servers.keys()
        data = {v.name for d in self.desired.servers.values() for v in d.volumes}
        removals = {o.action.name: o.id for o in self.operations if isinstance(o.action, RemoveContainer)}
        for volume in self.observed.volumes:
            role, server = volume.labels.get(naming.ROLE, ""), volume.labels.get(naming.OF, "")
            if role in ("config", "secrets", "live") and volume.name not in wanted:
                holders = [c.name for c in self.observed.containers if volume.name in c.volumes]
                needs = [removals[h] for h in holders if h in removals]
                gone = server not in self.desired.servers
                reason = "its server has gone" if gone else "it belonged to an earlier generation"
                after = [] if gone else [f"ready:{server}"]
                self.add(
                    f"remove-volume:{volume.name}", RemoveVolume(volume.name), server, reason, needs=[*needs, *after]
                )
            elif role == "data" and volume.name not in data and server in removed:
                self.notes.append(f"{server}: its data is kept in the volume {volume.name}")


def _why_network(network: Network) -> str:
    return {
        "front": "its way to the outside, its own",
        "link": "the private network of a link",
        "route": "the private network with the proxy",
    }[network.role]


def _why(server: DesiredServer, current: ObservedContainer | None, lost: list[str]) -> str:
    """What differs, in words; the parts of the old container are on its label."""
    if current is None:
        return "not there yet"
    if lost:
        return f"a volume of it was lost: {', '.join(lost)}"
    try:
        old: Mapping[str, str] = json.loads(current.labels.get(naming.REASONS, "{}"))
    except ValueError:
        old = {}
    new = server.parts
    told = []
    for part in sorted({*old, *new}):
        before, after = old.get(part), new.get(part)
        if before == after:
            continue
        if part in ("image", "memory", "cpus", "pids", "published ports"):
            told.append(f"{part} {_human(part, before)} → {_human(part, after)}")
        elif before is None or after is None:
            told.append(f"{part} {'added' if before is None else 'removed'}")
        else:
            told.append(f"{part} changed")
    if server.networks and not current.networks:
        told.append("it had no network yet")
    return "; ".join(told) or "how its container is made changed"


def _human(part: str, value: str | None) -> str:
    if part == "memory" and value and value.isdigit():
        return f"{int(value) / 2**20:g}M"
    return value or "none"


__all__ = ["REVOKE", "FileVolume", "diff"]
