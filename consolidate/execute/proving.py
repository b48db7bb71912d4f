"""Looking at what a drill has brought back: files beside those of a backup, records, a page. Nothing is changed here."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from consolidate import counting, naming
from consolidate.counting import DumpedRecords, Page
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute import restic
from consolidate.execute.commands import LOG_LINES, last_words
from consolidate.execute.helping import helper_container
from consolidate.execute.mending import LISTED
from consolidate.execute.paths import FOUND, printable
from consolidate.files import lines
from consolidate.observed import ObservedContainer
from consolidate.resolved import Limits

TYPES = {"file": "f", "dir": "d", "symlink": "l", "fifo": "p", "chardev": "c", "dev": "b"}  # restic's words, find's
# Go's bits for what stands before the permissions.
GO_SETUID, GO_SETGID, GO_STICKY = 1 << 23, 1 << 22, 1 << 20
TOLD = r"%y %m %U:%G %s %T@ %p\0"
# Links that were mended lead elsewhere in an archive of restic's: they are compared with what was listed of them, and what
# tar would say of each goes to a file, its path written as tar writes it.
LINKS = r"""
my $folder = shift;
my %letters = ("\a" => "a", "\b" => "b", "\f" => "f", "\n" => "n", "\r" => "r", "\t" => "t", "\x0b" => "v");
open my $said, ">", "/tmp/listed" or die "/tmp/listed: $!\n";
while (defined(my $what = <STDIN>)) {
    my ($path, $target) = (scalar <STDIN>, scalar <STDIN>);
    chomp($what, $path, $target);
    next if $what ne "link" or index($path, "$folder/");
    my $differs = substr($path, 1);
    $differs =~ s/([\\:])/\\$1/g;
    $differs =~ s/([\a\b\f\n\r\t\x0b])/\\$letters{$1}/g;
    $differs =~ s/([^ -~])/sprintf "\\%03o", ord $1/ge;
    $differs .= ": Symlink differs\n";
    print $said $differs;
    print $differs if -l $path and readlink($path) ne $target;
}
"""
# Each byte of a snapshot's files beside what is there. The rest is told by the list: such an archive is not precise in it.
COMPARE = """\
export LC_ALL=C
restic --no-cache --no-lock dump --archive tar "$1" "$2" 2> /tmp/said |
    { tar --compare --directory=/ --file=- 2>&1 || true; cat > /dev/null; } |
    { grep -aE ': (Contents differ|Size differs|Symlink differs)$|: Warning: Cannot|Unexpected EOF|Skipping to next header' || true; } |
    { grep -avxFf /tmp/listed || true; } |
    { head -n 100; cat > /dev/null; }
[ "${PIPESTATUS[0]}" -eq 0 ] || { echo "restic: $(tail -n 5 /tmp/said)"; exit 1; }
"""
ASK = """\
exec 3<> "/dev/tcp/$1/$2" || exit 1
printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' "$3" "$4" >&3
read -r _ status _ <&3 || { echo "it says nothing"; exit 1; }
echo "answer ${status//[^0-9]/} $(perl -e "$6" "$5" <&3)"
"""
# A page may be one long line. Of what came before a piece as much is kept as the text may begin in.
BODY = r"""
my ($text, $size, $holds, $seen) = (shift, 0, 0, "");
while (<STDIN>) { last if /^\r?$/ }
while (my $length = read STDIN, my $piece, 65536) {
    $size += $length;
    $seen .= $piece;
    $holds = 1 if index($seen, $text) >= 0;
    $seen = length $text > 1 ? substr $seen, 1 - length $text : "";
}
print "$size $holds";
"""
ANSWERED = re.compile(r"answer (\d*) (\d+) ([01])")
PATIENCE, PAUSE = 60, 0.1  # seconds that a page may take
PRUNED = "a backup has removed older ones meanwhile, and nothing may be damaged"


class Pruned(OperationFailed):
    """What was to be read has gone, as it may while nobody has the repository's lock."""


class Answer(Struct, frozen=True):
    """What a page was answered with; `size` in bytes of its body, which holds the text that was looked for or not."""

    status: str
    size: int
    holds: bool


class Node(Struct, frozen=True):
    """A line of `restic ls --json`."""

    struct_type: str = ""
    type: str = ""
    path: str = ""
    uid: int = 0
    gid: int = 0
    size: int = 0
    mode: int = 0
    mtime: str = ""


class File(Struct, frozen=True, order=True):
    """What is told of a file beside its content; `time` in microseconds."""

    type: str
    mode: int
    owner: str
    size: int
    time: int


def stored_files(engine: Engine, session: str, snapshot: str, folders: Sequence[str]) -> dict[str, File]:
    """The files that a snapshot has below `folders`, by their paths, but for sockets, which nothing brings back.

    Raises OperationFailed.
    """
    decode, below = msgspec.json.Decoder(Node).decode, tuple(f"{f}/" for f in folders)
    found = {}
    for line in lines(engine.output(session, [*restic.LOOK, "ls", "--json", snapshot])):
        node = decode(line)
        if node.path.startswith(below) and (kind := TYPES.get(node.type)):
            found[printable(node.path)] = _file(
                kind, go_mode(node.mode), f"{node.uid}:{node.gid}", node.size, go_time(node.mtime)
            )
    return found


def found_files(engine: Engine, session: str, folders: Sequence[str]) -> dict[str, File]:
    """The files that are below `folders` now, likewise."""
    found = {}
    for line in lines(engine.output(session, ["find", *folders, *FOUND, TOLD]), b"\0"):
        kind, mode, owner, size, time_, path = line.decode(errors="replace").split(" ", 5)
        found[printable(path)] = _file(kind, int(mode, 8), owner, int(size), find_time(time_))
    return found


def _file(kind: str, mode: int, owner: str, size: int, time_: int) -> File:
    """A link's mode says nothing, and a folder's size is its file system's matter."""
    return File(kind, 0 if kind == "l" else mode, owner, size if kind == "f" else 0, time_)


def go_mode(mode: int) -> int:
    """A file's permissions as others number them."""
    bits = ((GO_SETUID, 0o4000), (GO_SETGID, 0o2000), (GO_STICKY, 0o1000))
    return (mode & 0o777) | sum(ours for theirs, ours in bits if mode & theirs)


def go_time(text: str) -> int:
    """Microseconds since the epoch, of a time with up to nine digits of a second."""
    from datetime import datetime

    stamp = datetime.fromisoformat(text)
    return int(stamp.replace(microsecond=0).timestamp()) * 1_000_000 + stamp.microsecond


def find_time(text: str) -> int:
    """The same of find's: seconds, rounded down, and what of a second is to be added to them, also before 1970."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000 + int(f"{fraction:0<6}"[:6])


@contextlib.contextmanager
def beside_backups(
    engine: Engine, session: str, *also: type[Exception], last: Callable[[str], None] | None = None
) -> Iterator[None]:
    """A backup may remove older ones while a repository is read without a lock. Where that fails then, say so.

    Raises Pruned, and whatever else is raised within; to whoever reads it for the `last` time that is told as a warning, and
    what was raised within is raised as it is.
    """
    told: tuple[type[Exception], ...] = (OperationFailed, *also)
    before = _ids(engine, session)
    try:
        yield
    except told as error:
        try:
            removed = before - _ids(engine, session)
        except ConsolidateError:
            removed = frozenset()
        if removed and last:
            last(f"warning: {PRUNED}")
        if last or not removed:
            raise
        if isinstance(error, OperationFailed):
            raise Pruned(f"{error.what}; {PRUNED}", hint=error.hint, log=error.log) from None
        raise Pruned(PRUNED) from None


def _ids(engine: Engine, session: str) -> frozenset[str]:
    return frozenset(str(row["id"]) for row in restic.snapshots(engine, session))


def differing_bytes(engine: Engine, session: str, snapshot: str, folder: str, manifest: str) -> list[str]:
    """Files below `folder` whose bytes are not those of the snapshot, with what differs. The snapshot `manifest` lists what
    a restore has mended.

    Raises OperationFailed where the repository can't be read.
    """
    listed = restic.dumped(engine, session, manifest, LISTED, restic.LOOK)
    code, links = engine.feed(session, ["perl", "-0", "-e", LINKS, folder], listed)
    if code:
        raise OperationFailed(f"the links of {folder} can't be compared", log=links.splitlines()[-LOG_LINES:])
    code, said = engine.run(session, ["bash", "-c", COMPARE, "compare", snapshot, folder])
    if code:
        hint = "`consolidate backup check` says what is damaged; other backups may be whole"
        raise OperationFailed(
            f"{folder} can't be read from the repository", hint=hint, log=said.splitlines()[-LOG_LINES:]
        )
    return [*links.splitlines(), *(line.removeprefix("tar: ") for line in said.splitlines())]


def records_dumped(engine: Engine, session: str, snapshot: str, server: str, how: DumpedRecords) -> dict[str, int]:
    """What is in a dump, of a backup whose manifest doesn't tell. Raises OperationFailed."""
    counter = counting.DumpCounter(how)
    for part in restic.dumped(engine, session, snapshot, f"{restic.DUMPS}/{server}", restic.LOOK):
        counter.feed(part)
    return counter.counts()


def records_there(engine: Engine, container: str, command: Sequence[str]) -> dict[str, int]:
    """What a server that was brought back says of its records. Raises OperationFailed."""
    said = b"".join(engine.output(container, command)).decode(errors="replace")
    try:
        return counting.in_words(said)
    except ValueError as error:
        raise OperationFailed(f"the records can't be counted: {error}") from None


def page_text(engine: Engine, container: str, command: Sequence[str]) -> str:
    """What a server that was brought back says that its page has to hold. Raises OperationFailed."""
    said = b"".join(engine.output(container, command)).decode(errors="replace").splitlines()
    return said[-1].strip() if said else ""


def page_answer(
    engine: Engine,
    container: ObservedContainer,
    network: str,
    host: str,
    page: Page,
    text: str,
    labels: Mapping[str, str],
) -> Answer:
    """What a server answers who asks for its page on one of its own networks, and whether `text` is in it.

    Raises OperationFailed where nobody answers.
    """
    stack, server = container.labels.get(naming.STACK, ""), container.server or ""
    address = engine.state(container.name).addresses.get(network, "")
    name = naming.helper(stack, server, "page")
    creation = helper_container(
        name,
        stack,
        server,
        "page",
        ("timeout", str(PATIENCE), "bash", "-c"),
        (ASK, "ask", address, str(page.port), page.path, host, text, BODY),
        limits=Limits(memory=32 * 2**20, cpus=1.0, pids=10),
    )
    told = (*creation.labels, *labels.items())
    engine.create(replace(creation, networks=(network,), nameless=(network,), labels=told))
    try:
        engine.start(name, new=True)
        end = time.monotonic() + PATIENCE + 5
        while engine.state(name).running and time.monotonic() < end:
            time.sleep(PAUSE)
        said = last_words(engine, name)
    finally:
        engine.remove(name)
    return answered(said, f"{server}:{page.port}")


def answered(said: Sequence[str], where: str) -> Answer:
    """The answer that lines tell of. Raises OperationFailed where none came, or where it could not be read to its end."""
    for line in said:
        if found := ANSWERED.fullmatch(line):
            return Answer(found[1], int(found[2]), found[3] == "1")
    if any(line.startswith("answer ") for line in said):
        raise OperationFailed(f"what {where} answers can't be read to its end", log=said)
    raise OperationFailed(f"nobody answers at {where}", log=said)


def free_memory(engine: Engine, session: str) -> int:
    """Bytes that programs may still take on the engine's host without others having to give way. Raises OperationFailed."""
    _, said = engine.run(session, ["cat", "/proc/meminfo"])
    if found := re.search(r"^MemAvailable: *(\d+) kB$", said, re.MULTILINE):
        return int(found[1]) * 1024
    raise OperationFailed("the host doesn't say how much memory it has left", log=said.splitlines()[:3])
