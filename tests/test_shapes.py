"""The API's shapes: a container that takes the place of one that can't be started is made as that one was."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate.docker_engine.shapes import made_again

ID, OLD, NEW = "0123456789abcdef", "sha256:old", "sha256:new"


def inspected(hostname: str) -> dict[str, Any]:
    """What the engine tells of a container of redis:7 on two networks."""
    return {
        "Id": ID,
        "Image": OLD,
        "Config": {"Image": "redis:7", "Hostname": hostname, "Labels": {"a": "b"}},
        "HostConfig": {"NetworkMode": "front"},
        "NetworkSettings": {"Networks": {"front": {"Aliases": ["cache", ID[:12]]}, "back": {"Aliases": None}}},
    }


@pytest.mark.parametrize(("named", "image"), [(OLD, "redis:7"), (NEW, OLD), ("", OLD)])
def test_the_like_of_a_container_has_its_image(named: str, image: str) -> None:
    """It is made of the same image, whatever has the image's name by now; by that name where it is the same."""
    found = inspected("cache")
    body, names = made_again(found, named)
    assert (body["Image"], body["Hostname"], body["Labels"]) == (image, "cache", {"a": "b"})
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"front": {"Aliases": ["cache"]}}}
    assert names == {"back": []}
    assert found == inspected("cache")


def test_the_like_of_a_container_has_a_name_of_its_own() -> None:
    """The engine gave the first one its id as the host's name; the like gets its own."""
    assert "Hostname" not in made_again(inspected(ID[:12]), OLD)[0]
