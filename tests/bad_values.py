"""The walk of `test_bad_values.py`, in a process without the type checks that tests add: as a user meets the library.

`python tests/bad_values.py PATTERN PART OF` tries every OF-th pair of an argument and a value, from number PART on, and one
pair at least of each function, where the function's name matches PATTERN. It prints one line of JSON for each: the outcome
("refused", "taken" or "fault"), the function, the argument, the value, and what was said. On the standard error: how many of
each, and where the time went.
"""

import json
import os
import re
import sys
import time
import traceback
import warnings
from functools import partial

import jax
import numpy as np
from public_calls import CHANGES, VALUES, calls, folder, within

import gradstarve as gs
from gradstarve.ground import shown
from gradstarve.theory._jacobian import LinearRegimeWarning

LONGEST = 600
SLOWEST = 30  # seconds of the processor for one call, what it compiles included: a refusal that comes late is none
# What comes in as NaN goes out as NaN: the logits of a run that diverged, the outputs of a model of the user's own.
NAN_GOES_THROUGH = {("Dataset.margins", "outputs")}
NAN_GOES_THROUGH |= {("theory.jacobian.margins", "params"), ("theory.jacobian.margins", "x")}
# Other words for an argument in a message.
WORDS = {"times": "t", "params": "parameters", "t": "steps", "step": "steps", "x": "input", "x1": "input", "x2": "input"}
WORDS |= {"y": "labels", "y1": "labels", "y2": "labels"}
# Callables of the user's own, which Python refuses to call with (done, total), or without an argument as data.
OWN_CALLABLE = {"class", "function", "network"}


def has_nan(result):
    """Whether a number of the result is NaN."""
    leaves = (leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, np.ndarray | jax.Array | float))
    return any(np.isnan(np.asarray(leaf)).any() for leaf in leaves if np.asarray(leaf).dtype.kind == "f")


def verdict(function, arguments, name, value):
    """What the function makes of `value` in place of the argument `name`."""
    try:
        result = function(**{**arguments, name: value})
    except (ValueError, gs.ConvergenceError, FileNotFoundError) as error:
        return judged(error, name, value)
    except Exception as error:
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
        return "fault", f"{type(error).__name__}: {str(error)[:200]} {' '.join(places)}"
    return ("fault", f"NaN in {result!r:.150}") if has_nan(result) else ("taken", f"{result!r:.80}")


def judged(error, name, value):
    """A refusal has to come from the library, to be short, and to name the argument or what came."""
    text, where = str(error), traceback.extract_tb(error.__traceback__)[-1].filename
    if "gradstarve" not in where:
        return "fault", f"from {where}: {type(error).__name__}: {text[:200]}"
    if len(text) > (LONGEST if name != "names" else 1500):  # all theorems by name
        return "fault", f"{len(text)} characters: {text[:200]}"
    # A hypothesis or an iteration that fails tells where. Sets of samples x1, x2 are named x.
    names = {name, name.rstrip("012"), WORDS.get(name, name)}
    told = any(re.search(rf"\b{one}\b", text) for one in names) or shown(value) in text or ", got " in text
    if type(error) is ValueError and not told:
        return "fault", f"does not name {name}: {text}"
    return "refused", text


def pairs():
    """For every function, every argument with every value."""
    for function, (call, arguments) in CALLS.items():
        of_function = []
        for name in arguments:
            for value, make in VALUES.items():
                of_function.append((function, call, arguments, name, value, make))
            for value, change in CHANGES.items():
                if within(arguments[name], change) is not None:
                    of_function.append((function, call, arguments, name, value, partial(within, arguments[name], change)))
        yield of_function


def sample(part, of):
    """Every `of`-th pair, from number `part` on, and a pair of each function that would have none."""
    seen = 0
    for of_function in pairs():
        taken = [pair for i, pair in enumerate(of_function, seen) if i % of == part]
        yield from taken or [of_function[seen % len(of_function)]]
        seen += len(of_function)


def excused(function, name, value, text):
    """Outcomes that are right although they look like faults."""
    if text.startswith("NaN") and (function, name) in NAN_GOES_THROUGH:
        return True
    own = name == "progress" or (function, name) == ("sweep", "data")
    return own and value in OWN_CALLABLE and text.startswith("TypeError")


if __name__ == "__main__":
    # Values that are taken for paths are paths in a directory that goes, and the user's folder for caches is another one.
    os.chdir(folder())
    os.environ["XDG_CACHE_HOME"] = folder()
    jax.config.update("jax_enable_x64", True)
    CALLS = calls()
    only = sys.argv[1] if len(sys.argv) > 1 else "."
    part, of = (int(a) for a in sys.argv[2:4]) if len(sys.argv) > 3 else (0, 1)
    tally, seconds = {"refused": 0, "taken": 0, "fault": 0}, {}
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", LinearRegimeWarning)
    warnings.filterwarnings("ignore", message=".* networks diverged and are left out")
    for function, call, arguments, name, value, make in sample(part, of):
        if not re.search(only, function):
            continue
        since = time.process_time()
        kind, text = verdict(call, arguments, name, make())
        spent = time.process_time() - since
        seconds[function] = seconds.get(function, 0) + spent
        kind = "taken" if kind == "fault" and excused(function, name, value, text) else kind
        kind, text = ("fault", f"took {spent:.0f} s: {text}") if spent > SLOWEST else (kind, text)
        tally[kind] += 1
        print(json.dumps([kind, function, name, value, text]), flush=True)
    print(json.dumps(tally), file=sys.stderr)
    print(json.dumps({function: list(arguments) for function, (_, arguments) in CALLS.items()}), file=sys.stderr)
    print(sorted(((round(s, 1), f) for f, s in seconds.items()), reverse=True)[:30], file=sys.stderr)
