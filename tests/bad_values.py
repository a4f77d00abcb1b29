"""The walk of `test_bad_values.py`, in a process without the type checks that the tests add: as a user meets the library.

`python -W error tests/bad_values.py PART OF` tries every PART-th of OF pairs of an argument and a value, and prints what was found as JSON.
"""
import json
import re
import sys
import time
import traceback
import warnings

import jax
import numpy as np
from public_calls import CHANGES, VALUES, calls, within

import gradstarve as gs

LONGEST = 600


def numbers(result):
    out = []
    for leaf in jax.tree.leaves(result):
        if isinstance(leaf, np.ndarray | jax.Array | float | np.generic) and np.asarray(leaf).dtype.kind == "f":
            out.append(np.asarray(leaf))
    return out


def verdict(function, arguments, name, value):
    try:
        result = function(**{**arguments, name: value})
    except (ValueError, gs.ConvergenceError) as error:
        text = str(error)
        if type(error) not in (ValueError, gs.HypothesisError, gs.ConvergenceError) and not isinstance(error, ValueError):
            return "fault", f"{type(error).__name__}: {text}"
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if "gradstarve" not in where:
            return "fault", f"from {where}: {type(error).__name__}: {text[:200]}"
        if len(text) > LONGEST:
            return "fault", f"{len(text)} characters: {text}"
        return "refused", text
    except Exception as error:
        return "fault", f"{type(error).__name__}: {str(error)[:200]} " + "|".join(f"{f.filename.split('gradstarve/')[-1]}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:])
    if any(np.isnan(n).any() for n in numbers(result)):
        return "fault", f"NaN {result!r:.150}"
    return "taken", f"{result!r:.80}"


def valid():
    for function, (call, arguments) in CALLS.items():
        try: call(**arguments)
        except Exception as e: print("INVALID", function, type(e).__name__, str(e)[:200])


def pairs():
    for function, (call, arguments) in CALLS.items():
        for name in arguments:
            for value, make in VALUES.items():
                yield function, call, arguments, name, value, make()
            for value, change in CHANGES.items():
                changed = within(arguments[name], change)
                if changed is not None:
                    yield function, call, arguments, name, value, changed


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    CALLS = calls()
    if sys.argv[1:2] == ["valid"]: valid(); sys.exit()
    only = sys.argv[1] if len(sys.argv) > 1 else "."
    part, of = (int(a) for a in sys.argv[2:4]) if len(sys.argv) > 3 else (0, 1)
    tally = {"refused": 0, "taken": 0, "fault": 0}
    warnings.simplefilter("error")
    seconds = {}
    for i, (function, call, arguments, name, value, made) in enumerate(pairs()):
        if i % of != part or not re.search(only, function):
            continue
        since = time.process_time()
        kind, text = verdict(call, arguments, name, made)
        seconds[function] = seconds.get(function, 0) + time.process_time() - since
        tally[kind] += 1
        print(json.dumps([kind, function, name, value, text]), flush=True)
    print(json.dumps(tally), file=sys.stderr)
    print(sorted(((round(s, 2), f) for f, s in seconds.items()), reverse=True)[:25], file=sys.stderr)
