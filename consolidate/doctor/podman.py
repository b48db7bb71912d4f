"""What doesn't hold on Podman: said by the doctor, and in docs/engines.md. Facts of Podman 4.3.1 with netavark 1.4."""

from __future__ import annotations

from consolidate.doctor.verdict import Check

# Its networks, whose bridges are podman1, podman2 …; on one bridge members are linked. Names are asked at port 53.
CLOSE_SERVERS = ("iptables -I FORWARD -i podman+ -o podman+ -m physdev ! --physdev-is-bridged -j DROP",)
CLOSE_HOST = (
    "iptables -I INPUT -i podman+ -m conntrack --ctstate NEW -j DROP",
    "iptables -I INPUT -i podman+ -p udp --dport 53 -j ACCEPT",
)
# An interface that comes up says whose its address is now. New network namespaces have the host's setting: ip-sysctl of the
# kernel's documentation, `arp_notify` and `devconf_inherit_init_net`.
TELL_ADDRESSES = "sysctl -w net.ipv4.conf.default.arp_notify=1"

PODMAN = (
    Check(
        "podman: servers",
        "warn",
        "servers that publish or have `egress` reach each other: netavark 1.4 drops its own rules when one leaves a network",
        f"To close them to each other (until the next reboot): {'; '.join(CLOSE_SERVERS)}",
    ),
    Check(
        "podman: host",
        "warn",
        "every server reaches what the host serves on all its addresses",
        f"To close it to servers (until the next reboot): {'; '.join(CLOSE_HOST)}",
    ),
    Check(
        "podman: addresses",
        "warn",
        "a container with an address that another one had isn't reached for some ten seconds: netavark 1.4 tells nobody of it",
        f"To have containers tell it themselves (until the next reboot): {TELL_ADDRESSES}",
    ),
    Check(
        "podman: outside",
        "warn",
        "a server that publishes a port reaches the outside, with or without `egress`",
        "Publish nothing but the proxy, or use Docker Engine. A plan says which servers these are.",
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
