"""A sweep in a process of its own, to be killed or to be one of several; told what to do by a JSON argument.

`problem` are arguments of the sweep, `block` is the size of its blocks (None: as they are), `out` a file for its statistics,
`die_at` the number of a file in whose middle the process kills itself, `processes`, `process` and `port` make it one of
several of `jax.distributed`. With `open` it reads that directory instead.
"""

import json
import os
import signal
import sys

import jax
import numpy as np

import gradstarve as gs
from gradstarve.ground import files
from gradstarve.simulation.sweep import _plan as sweep_plan


def die_in_the_middle(number):
    """The next files but `number` are written; of that one a half reaches the disk."""
    write, count = files.write_through, [0]

    def some(file, content):
        count[0] += 1
        if count[0] <= number:
            return write(file, content)
        write(file, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    files.write_through = some


def run(block, problem, frequencies=(0.8, 0.2), progress=None):
    if block is not None:
        sweep_plan.block_size = lambda *_: block
    data = gs.datasets.antipodal(frequencies=frequencies)
    return gs.sweep(data, progress=progress, **problem)


def main(task):
    if "processes" in task:
        address = f"127.0.0.1:{task['port']}"
        jax.distributed.initialize(address, num_processes=task["processes"], process_id=task["process"])
    if "die_at" in task:
        die_in_the_middle(task["die_at"])
    if "open" in task:
        result = gs.open_sweep(task["open"])
    else:
        result = run(task["block"], task["problem"], progress=lambda done, total: print(done, flush=True))
    if "out" in task:
        kept = {}
        for place, one in enumerate(result.configurations if result.keep == "final" else ()):
            kept |= {f"w{place}": result.final(**one.swept).w, f"logits{place}": result.logits(**one.swept)}
        with files.whole(task["out"]) as part, part.open("wb") as stream:
            np.savez(stream, **result.statistics, **kept)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
