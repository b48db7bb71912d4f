"""Archives of images without the layers that their reader has: the names that layers have there, and what may be left out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from datetime import timedelta, timezone

import pytest

from consolidate.docker_engine.archives import LAYER, MANIFEST, _old_names, names_of, without_layers
from consolidate.docker_engine.shapes import layer_sizes, machine_of
from consolidate.engine import ImageFacts
from consolidate.errors import OperationFailed

UTC_3 = timezone(timedelta(hours=3))


def layer(number: int) -> str:
    return f"sha256:{number:064x}"


def image(*layers: int) -> ImageFacts:
    return ImageFacts(layer(99), {}, tuple(map(layer, layers)))


def pack(files: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def in_pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def old(of: ImageFacts, zone: timezone = UTC_3) -> bytes:
    """As engines before 25 make it: the uppermost layer has a name that can't be known, and the manifest comes late."""
    names = [*_old_names(of.chains[:-1], zone), "f" * 64]
    files = sorted((f"{n}{LAYER}", n[:1].encode() * 2000) for n in names)
    return pack([*files, (MANIFEST, b"[]")])


def new(of: ImageFacts) -> bytes:
    """As engines from 25 on make it."""
    files = sorted({f"blobs/{li.replace(':', '/')}": b"x" * 2000 for li in of.layers}.items())
    return pack([*files, (MANIFEST, b"[]")])


def names(archive: Iterable[bytes]) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
        return tar.getnames()


def test_a_chain_tells_a_layer_with_all_that_are_below_it() -> None:
    """As the image specification computes it: the lowest is its own, each other a hash of what is below and itself."""
    below = "sha256:e0213565073dd272477933ef550455db21856966e444074f1492aef0939305ac"  # of "LAYER LAYER"
    assert image(1, 2).chains == (layer(1), below)
    assert image(3, 2).chains[1] != below
    assert image(1, 2, 3).chains[:2] == image(1, 2).chains


@pytest.mark.parametrize("make", [old, new])
def test_the_lowest_layers_are_left_out_wherever_they_stand(make: object) -> None:
    """All else is passed on as it is, in its order."""
    of = image(1, 2, 3, 4)
    archive = make(of)  # type: ignore[operator]
    before = names([archive])
    for count in range(5):
        left = names(without_layers(in_pieces(archive), of, count))
        assert len(left) == len(before) - count
        assert [n for n in before if n in left] == left
        assert left[-1] == MANIFEST


def test_what_is_passed_on_is_as_it_was() -> None:
    archive = pack([("a", b"1" * 1000), ("empty", b""), ("b" * 90, b"2" * 512), (MANIFEST, b"[]")])
    with tarfile.open(fileobj=io.BytesIO(b"".join(without_layers(in_pieces(archive), image(1), 0)))) as tar:
        read = {m.name: f.read() for m in tar if (f := tar.extractfile(m))}
    assert read == {"a": b"1" * 1000, "empty": b"", "b" * 90: b"2" * 512, MANIFEST: b"[]"}


def test_files_that_a_further_layer_has_as_well_stay() -> None:
    """Of two layers with the same files an archive has one: that of the lower."""
    of = image(1, 2, 1, 3)
    found = names_of(of, 2)
    assert f"blobs/sha256/{1:064x}" not in found
    assert f"blobs/sha256/{2:064x}" in found
    lowest, second = _old_names(of.chains, UTC_3)[:2]
    assert f"{lowest}{LAYER}" not in found
    assert f"{second}{LAYER}" in found


@pytest.mark.parametrize("cut", [0, 300, 2500, -1400])
def test_an_archive_that_breaks_off_is_no_archive(cut: int) -> None:
    """Also where it ends between two files, or in what the engine says of its error: the manifest comes last."""
    of = image(1, 2)
    for tail in (b"", b'{"error":"no space left on device"}\n'):
        with pytest.raises(OperationFailed, match="breaks off"):
            list(without_layers(in_pieces(new(of)[:-10240][:cut] + tail), of, 1))


HISTORY = [
    {"Size": 0, "CreatedBy": '/bin/sh -c #(nop)  CMD ["cat"]'},
    {"Size": 0, "CreatedBy": "/bin/sh -c true"},
    {"Size": 20, "CreatedBy": "RUN /bin/sh -c apt-get install x # buildkit"},
    {"Size": 0, "CreatedBy": "ENV A=b"},
    {"Size": 100, "CreatedBy": ""},
]


def test_the_sizes_of_layers_are_read_from_the_history() -> None:
    """The lowest first. Steps that only set something have none; one that changed no file has one of no size."""
    assert layer_sizes(HISTORY, 3) == (100, 20, 0)
    assert layer_sizes(HISTORY, 2) == (100, 20)
    assert layer_sizes(HISTORY[4:], 1) == (100,)
    assert sum(layer_sizes(HISTORY, 1)) == 120, "an image whose layers were joined"
    assert layer_sizes(HISTORY, 4) == (0, 100, 20, 0), "where it can't be told, rather too much lies above"


def test_who_keeps_images_how() -> None:
    """By layers, unless the engine is Podman or keeps them in containerd's store."""
    info = {"ID": "one", "OSType": "linux", "Architecture": "x86_64", "DriverStatus": [["Backing Filesystem", "extfs"]]}
    assert machine_of(info, {"Components": [{"Name": "Engine"}]}).store == "layers"
    assert machine_of(info, {"Components": [{"Name": "Podman Engine"}]}).store == "podman"
    kept = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert machine_of(info | kept, {"Components": [{"Name": "Engine"}]}).store == "containerd"
