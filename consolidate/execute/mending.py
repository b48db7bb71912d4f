"""What restic 0.14 does not give back as it was, listed before and mended after: holes in files, links to what isn't UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute import restic
from consolidate.execute.commands import LOG_LINES

# restic fills holes, and writes a mark for each byte of a link's target that is no UTF-8. Of each such file: what is to be
# mended, its path, and for a link where it leads; each ends with a zero.
LISTED = f"{restic.PRIVATE}/mend"
# Files may go meanwhile. Perl tells for many links at once what is UTF-8 as restic knows it.
LINKS = r"""find "$@" -type l -printf '%p\0%l\0' | perl -0 -e 'while (defined(my $path = <>)) {
    my $target = <>;
    my $text = $target;
    print "link\0$path$target" if !utf8::decode($text) or $text =~ /[\x{d800}-\x{dfff}]|[^\x{0}-\x{10ffff}]/;
}'"""
LIST = f"""\
find "$@" -type f -size +64k -printf '%b\t%s\t%p\\0' | while IFS=$'\t' read -r -d '' blocks size path; do
    ((blocks * 512 >= size)) || printf 'holes\\0%s\\0\\0' "$path"
done > {LISTED}
{LINKS} >> {LISTED}
"""
# What was listed of a link last is first: once it is mended, it has no mark any more.
AGAIN = f"""\
{LINKS} > {LISTED}.links || exit
if [ -s {LISTED}.links ]; then
    cat {LISTED} >> {LISTED}.links && mv {LISTED}.links {LISTED}
else
    rm {LISTED}.links
fi
"""
MARK = r"\xef\xbf\xbd"  # U+FFFD
# To make holes changes a file's time, and another link that of its folder. A link without a mark has become another since
# it was listed, and is as it was saved.
MEND = f"""\
set -euo pipefail
time=$(mktemp)
while IFS= read -r -d '' what && IFS= read -r -d '' path && IFS= read -r -d '' target; do
    for folder in "$@"; do
        [[ $path == "$folder"/* ]] || continue
        if [[ $what = holes && -f $path && ! -L $path ]]; then
            touch --reference="$path" "$time"
            fallocate --dig-holes "$path"
            touch --reference="$time" "$path"
        elif [[ $what = link && -L $path ]]; then
            [[ $(readlink "$path") == *$'{MARK}'* ]] || continue
            parent=${{path%/*}}
            owner=$(stat --format=%u:%g "$path") when=$(stat --format=%y "$path")
            touch --reference="$parent" "$time"
            ln --symbolic --force --no-target-directory -- "$target" "$path"
            chown --no-dereference "$owner" "$path"
            touch --no-dereference --date="$when" "$path"
            touch --reference="$time" "$parent"
        fi
    done
done
"""


def list_to_mend(engine: Engine, session: str, folders: Sequence[str]) -> None:
    """List what is to be mended after a restore of these folders. Raises OperationFailed."""
    code, said = engine.run(session, ["bash", "-c", LIST, "list", *folders])
    if code:
        raise OperationFailed("the files with holes can't be listed", log=said.splitlines()[-LOG_LINES:])


def list_links_again(engine: Engine, session: str, folders: Sequence[str]) -> None:
    """List links anew that may have changed since the rest was listed. Raises OperationFailed."""
    code, said = engine.run(session, ["bash", "-c", AGAIN, "list", *folders])
    if code:
        raise OperationFailed("the links can't be listed", log=said.splitlines()[-LOG_LINES:])


def mend(engine: Engine, session: str, folders: Sequence[str], listed: Iterable[bytes]) -> None:
    """Mend what is in these folders of what was listed. Raises OperationFailed."""
    code, said = engine.feed(session, ["bash", "-c", MEND, "mend", *folders], listed)
    if code:
        raise OperationFailed("holes and links can't be made as they were", log=said.splitlines()[-LOG_LINES:])


__all__ = ["LISTED", "list_links_again", "list_to_mend", "mend"]
