"""WordPress's timer, whether or not anybody visits. Last of all, since it comes once a minute."""

from __future__ import annotations

import pytest

from tests.engine.support import wait_until
from tests.wordpress_client import WordPress

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_timer_fires(ticking: WordPress) -> None:
    wait_until(lambda: ticking.page("/?tick").text == "ticked: by the timer", "the timer", within=90, pause=1)
