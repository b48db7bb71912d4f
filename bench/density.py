"""How much of a machine a server takes: 100 web servers behind one proxy, beside the same site in a virtual machine."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import CACHE, PAGE, Stack, run, seconds

Rows = list[dict[str, Any]]
PORT, MACHINE_PORT = 18484, 18485
MIB = 2**20
CLOUD = "linux-image-cloud-amd64"  # Debian's kernel for virtual machines: a third of the other one
BOOT = 600.0  # seconds that a virtual machine has to answer; it may be emulated, and its machine busy


# Containers


def density(sizes: tuple[int, ...] = (10, 25, 50, 100)) -> Rows:
    """Web servers with a page each, more and more of them, each asked by its own name through the proxy."""
    folder = CACHE / "stacks/bench-density"
    shutil.rmtree(folder, ignore_errors=True)
    for n in range(1, max(sizes) + 1):
        (folder / f"sites/{n}").mkdir(parents=True)
        (folder / f"sites/{n}/index.html").write_text(PAGE.format(name=f"this is web-{n}"))
    stack = Stack(folder / "stack.yml")

    def write(count: int) -> None:
        stack.file.write_text(
            "stack: bench-density\n"
            "servers:\n"
            f'  edge: {{kind: proxy, http: {PORT}, tls: "off"}}\n'
            f"  web-{{i}}: {{for: {{i: 1..{count}}}, kind: web, domains: ['web-{{i}}.bench.test'], content: 'sites/{{i}}'}}\n"
        )

    rows: Rows = []
    try:
        write(1)
        stack.up()  # builds what isn't built, so that the sizes below are of servers alone
        before, last = _used(), _took(1, 0.0, "bench-density")
        for size in sizes:
            write(size)
            took = _took(size, seconds(stack.up), "bench-density")
            took["host_used_mib"] = _used() - before
            took["answering"] = _answering(size)
            took["start_each_s"] = round(took["up_s"] / (size - last["servers"]), 2)
            for key in ("memory", "shim", "disk"):
                each = (took[f"{key}_mib"] - last[f"{key}_mib"]) / (size - last["servers"])
                took[f"{key}_each_mib"] = round(each, 2)
            rows.append(took)
            last = took
            print(f"  {took}", file=sys.stderr)
    finally:
        stack.down()
    return rows


def _took(servers: int, up: float, stack: str) -> dict[str, Any]:
    """What the web servers of a stack take: memory as the engine counts it, their engine's helpers, disk."""
    import docker

    client = docker.APIClient(timeout=300)
    label = f"io.consolidate.stack={stack}"
    found = client.containers(filters={"label": [label, "io.consolidate.kind=web"]})
    ids = [c["Id"] for c in found]
    with ThreadPoolExecutor(16) as pool:
        stats = list(pool.map(lambda i: client.stats(i, stream=False, one_shot=True)["memory_stats"], ids))
    space = client.df()
    written = sum(c.get("SizeRw", 0) for c in space["Containers"] if c["Id"] in ids)
    volumes = [v for v in space["Volumes"] if (v["Labels"] or {}).get("io.consolidate.stack") == stack]
    held = sum(v["UsageData"]["Size"] for v in volumes if v["Labels"].get("io.consolidate.of", "").startswith("web-"))
    kept = Path(client.info()["DockerRootDir"]) / "containers"
    of_the_engine = sum(_size(kept / i) for i in ids)
    return {
        "what": "web servers behind one proxy",
        "servers": servers,
        "up_s": round(up, 1),
        "memory_mib": round(sum(map(_working_set, stats)) / MIB, 1),
        "shim_mib": round(_shims(ids) / MIB, 1),
        "disk_mib": round((written + held + of_the_engine) / MIB, 2),
    }


def _working_set(stats: dict[str, Any]) -> int:
    """Memory without the cache of files that goes when it is needed, as `docker stats` shows it; cgroups 1 and 2."""
    more = stats["stats"]
    return int(stats["usage"]) - int(more.get("total_inactive_file", more.get("inactive_file", 0)))


def _shims(ids: list[str]) -> int:
    """Memory of the process that the engine keeps for each container, what it shares divided; 0 where we may not look."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "shim" in words[0] and set(words) & set(ids):
                total += field(process / "smaps_rollup", "Pss:")
        except OSError:
            continue  # it has ended
    return total


def field(file: Path, name: str) -> int:
    """Bytes of a line of /proc that gives kB."""
    return next(int(line.split()[1]) * 1024 for line in file.read_text().splitlines() if line.startswith(name))


def _size(folder: Path) -> int:
    """Bytes on the disk."""
    return sum(f.lstat().st_blocks * 512 for f in [folder, *folder.rglob("*")] if os.path.lexists(f))


def _used() -> int:
    """MiB of the machine's memory that are in use, whoever uses them."""
    return (field(Path("/proc/meminfo"), "MemTotal:") - field(Path("/proc/meminfo"), "MemAvailable:")) // MIB


def _answering(count: int) -> int:
    """How many of the sites answer by their own names, with their own pages."""
    return sum(f"this is web-{n}<".encode() in _get(PORT, f"web-{n}.bench.test") for n in range(1, count + 1))


def _get(port: int, host: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else b""
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()


# A virtual machine


def vm(sizes: tuple[int, ...] = (96, 128, 192, 256)) -> Rows:
    """The same site in a minimal Debian under qemu, with less and less memory (MiB), as long as it answers."""
    missing = [p for p in ("qemu-system-x86_64", "mmdebstrap", "mkfs.ext4") if not shutil.which(p)]
    if missing:
        raise SystemExit(f"not here: {', '.join(missing)}; apt-get install qemu-system-x86 mmdebstrap e2fsprogs")
    folder = _machine_image()
    disk = sum(_size(folder / name) for name in ("disk.img", "vmlinuz", "initrd"))
    how = "kvm" if os.access("/dev/kvm", os.W_OK) and _boot(folder, max(sizes), "kvm", 40.0) else "tcg"
    rows: Rows = []
    for size in sorted(sizes, reverse=True):
        found = _boot(folder, size, how, BOOT)
        rows.append(
            {
                "what": "the site in a virtual machine",
                "ram_mib": size,
                "accelerator": how,
                "answering": found is not None,
                **(found or {"boot_s": None, "resident_mib": None, "guest_mib": None}),
                "disk_mib": round(disk / MIB),
            }
        )
        print(f"  {rows[-1]}", file=sys.stderr)
        if found is None:
            break
    return rows


def _machine_image() -> Path:
    """A folder with a disk, a kernel and its first file system: Debian's smallest variant, systemd, nginx and a page."""
    folder = CACHE / "vm"
    if (folder / "disk.img").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "root"
    folder.mkdir(parents=True)
    without = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale", "info")]
    include = f"--include={CLOUD},systemd-sysv,nginx-light,zstd"
    run("mmdebstrap", "--variant=minbase", include, *without, "bookworm", root)
    (root / "etc/systemd/network/all.network").write_text("[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "var/www/html/index.html").write_text(PAGE.format(name="this is web-1"))
    run("chroot", root, "systemctl", "enable", "systemd-networkd", "nginx")
    run("chroot", root, "systemctl", "mask", "serial-getty@ttyS0", "getty@tty1")  # nobody logs in
    for name in ("vmlinuz", "initrd"):
        (kernel,) = (root / "boot").glob(f"{name}*")
        shutil.move(kernel, folder / name)
    with (folder / "disk.new").open("wb") as disk:
        disk.truncate(2**30)
    run("mkfs.ext4", "-q", "-m", "0", "-d", root, folder / "disk.new")
    shutil.rmtree(root)
    (folder / "disk.new").rename(folder / "disk.img")
    return folder


def _boot(folder: Path, memory: int, how: str, limit: float) -> dict[str, Any] | None:
    """Start it with so much memory; what it takes once it has answered, None where it doesn't within `limit` seconds.

    `guest_mib` are the pages of its memory that it has touched; `resident_mib` are those of the whole process, in which
    an emulator keeps what it has translated.
    """
    words = [
        "qemu-system-x86_64",
        "-accel",
        how + (",tb-size=64" if how == "tcg" else ""),
        "-m",
        str(memory),
        "-smp",
        "1",
        "-snapshot",
        "-no-reboot",
    ]
    words += ["-kernel", "vmlinuz", "-initrd", "initrd", "-append", "root=/dev/vda rw quiet panic=1"]
    words += ["-drive", "file=disk.img,if=virtio,format=raw", "-device", "virtio-net-pci,netdev=n"]
    words += ["-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{MACHINE_PORT}-:80", "-display", "none", "-monitor", "none"]
    begun = time.monotonic()
    machine = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while machine.poll() is None and time.monotonic() - begun < limit:
            if b"this is web-1<" in _get(MACHINE_PORT, "web-1.bench.test"):
                took = time.monotonic() - begun
                time.sleep(5)  # what starts with it has started
                return {"boot_s": round(took, 1), **_memory_of(machine.pid, memory)}
            time.sleep(0.5)
        return None
    finally:
        machine.kill()
        machine.wait()


def _memory_of(pid: int, memory: int) -> dict[str, int]:
    process = Path(f"/proc/{pid}")
    guest, inside = 0, False
    for line in (process / "smaps").read_text().splitlines():
        if line.startswith("Size:"):
            inside = int(line.split()[1]) == memory * 1024
        elif inside and line.startswith("Rss:"):
            guest = max(guest, int(line.split()[1]) * 1024)
    return {"resident_mib": field(process / "status", "VmRSS:") // MIB, "guest_mib": guest // MIB}


__all__ = ["density", "field", "vm"]
