"""`enclave-host serve` that writes down, at SIGUSR2, in which modules its main thread was since it was last asked.

`python -m benchmarks.sampled_host serve …` is started by `benchmarks.stages`, and writes to the file in its environment.
The kernel sends a signal after each few milliseconds of the processor, whichever thread took them; the main thread then
looks which of our modules it is in, with what that module has called. Samples in the event loop, in C, fall to the next
module that runs.
"""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks.turns import ROOT
from host_backend import app
from host_backend.cli.commands import main

#: The variable of the environment that names the file.
SAMPLES = "SAMPLED_HOST_FILE"
#: Seconds of the processor between two samples; the kernel may make it some more.
INTERVAL_S = 0.001
_PACKAGES = tuple(f"{ROOT / package}{os.sep}" for package in ("host_backend", "enclave_signer"))

_samples: Counter[str] = Counter()


def _module(frame: FrameType | None) -> str:
    while frame is not None:
        name = frame.f_code.co_filename
        if name == app.__file__:
            break
        if name.startswith(_PACKAGES):
            return str(Path(name).relative_to(ROOT))
        frame = frame.f_back
    return "the event loop and other threads"


def _sample(_number: int, frame: FrameType | None) -> None:
    _samples[_module(frame)] += 1


def _write(_number: int, _frame: FrameType | None) -> None:
    path = Path(os.environ[SAMPLES])
    new = path.with_suffix(".new")
    new.write_text(json.dumps(_samples))
    new.replace(path)
    _samples.clear()


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR2, _write)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    main()
