"""What doesn't hold on Podman: said by the doctor, and in docs/engines.md."""

from __future__ import annotations

from consolidate.doctor.verdict import Check

PODMAN = (
    Check(
        "podman: outside",
        "warn",
        "a server that publishes a port reaches the outside, with or without `egress`",
        "Publish nothing but the proxy, or use Docker Engine. A plan says which servers these are.",
    ),
    Check(
        "podman: host",
        "warn",
        "every server reaches what the host serves on all its addresses",
        "Let services of the host listen on 127.0.0.1 alone, or use Docker Engine.",
    ),
    Check(
        "podman: boot",
        "warn",
        "servers come back after a reboot only with podman-restart.service, and so do those that were stopped",
        "Type: systemctl enable podman-restart.service",
    ),
    Check(
        "podman: limits",
        "warn",
        "not here: --drift, and digests of a registry's images; `ps` knows no health after the start without systemd",
        "Where one of these is needed, use Docker Engine.",
    ),
)
