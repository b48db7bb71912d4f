"""Plan a stack against an engine in memory on which it is up: `python in_memory.py FILE` prints JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from consolidate import naming
from consolidate.execute import Executor
from consolidate.observed import HostFacts
from consolidate.pipeline import Prepared, prepare
from consolidate.source import Source
from tests.memory_engine import MemoryEngine

RUNS = 5


class Vast(MemoryEngine):
    """An engine whose host carries any number of servers, with programs that say yes."""

    def __init__(self) -> None:
        super().__init__(lambda *_: (0, ""))

    def facts(self) -> HostFacts:
        return HostFacts(name="vast", memory=2**50, cpus=2**10)


def timed(action: Callable[[], Prepared]) -> dict[str, float]:
    times, operations = [], 0
    for _ in range(RUNS):
        begun = time.process_time()
        operations = len(action().plan.operations)
        times.append(time.process_time() - begun)
    return {"processor_s": round(min(times), 3), "operations": operations}


def main(file: Path) -> None:
    gc.set_threshold(100_000, 50, 100)  # as the program has it
    engine, source = Vast(), Source(file)
    os.environ["XDG_CACHE_HOME"] = "/dev/null"
    found = {"nothing there": timed(lambda: prepare(source, engine))}
    first = prepare(source, engine)

    def make_base(_: Callable[[str], None]) -> None:
        engine.import_image(None, naming.BASE_IMAGE)  # type: ignore[arg-type]

    report = Executor(engine, first.secrets, lambda _: None, make_base, wait_timeout=5).run(first.plan)
    assert report.ok, report.failed
    found["all there"] = timed(lambda: prepare(source, engine))
    page = file.parent / "site/index.php"
    page.write_text("<h1>There</h1>\n")
    found["all there, another page"] = timed(lambda: prepare(source, engine))
    page.write_text("<h1>Here</h1>\n")
    with TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        time.sleep(2.1)  # a file that has only just changed is not remembered
        prepare(source, engine)
        found["all there, remembered"] = timed(lambda: prepare(source, engine))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
