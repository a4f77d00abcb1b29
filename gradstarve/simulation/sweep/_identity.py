"""What a loss or a function is made of, as plain JSON: two values with equal identities train the same networks.

`str(loss)` hides numbers (`penalty=f64[]`), and the repr of a function or of a user's own class hides everything. An
identity has every field of an object, every number of an array, and of user-written code the bytecode with its
constants, names, defaults, closure values and the globals that it reads, with the functions and classes among them.

Code of the libraries below is named and not read: its version belongs to the environment of a sweep.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import json
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gradstarve.ground import is_concrete

LIBRARIES = frozenset(sys.stdlib_module_names) | {
    *("gradstarve", "jax", "jaxlib", "numpy", "scipy", "equinox", "jaxtyping", "beartype", "optax", "ml_dtypes"),
    *("typing_extensions", "wadler_lindig"),
}
# What a class has besides the code that computes: how it is built, printed, compared and pickled.
_LEFT_OUT = {
    *("__init__", "__new__", "__post_init__", "__check_init__", "__repr__", "__str__", "__eq__", "__hash__", "__ne__"),
    *("__init_subclass__", "__class_getitem__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
    *("__setattr__", "__delattr__", "__replace__", "__annotate__", "__annotate_func__", "__dir__", "__format__"),
}
_LABELS = {"__module__", "__name__", "__qualname__", "__doc__", "__annotations__"}
_SHORT = 8  # entries of an array that are written out
_MOST_NAMED = 12  # simple values that are told beside the digest of a piece of code


def identity(value: Any, name: str = "value") -> Any:
    """The JSON value (dicts, lists, strings, numbers) that says all that `value`, called `name` in errors, is made of.

    Taken are numbers, strings, arrays, containers of them, dataclasses and equinox modules, functions, classes, and objects
    that keep everything in their attributes. `ValueError` names the part whose content cannot be told, such as a
    generator or an open file.

    >>> from gradstarve.problem import SpectralDecoupling
    >>> identity("hinge"), identity(SpectralDecoupling("hinge", 0.5))["penalty"]
    ('hinge', 'float32 0.5')
    >>> def power(exponent):
    ...     return lambda x: x**exponent
    >>> identity(power(2)) == identity(power(2)), identity(power(2)) == identity(power(3))
    (True, False)
    """
    try:
        return _Reader().read(value, name)
    except RecursionError:
        raise _unknown(value, name, "it is nested too deeply") from None


def digest(value: Any) -> str:
    """The first 16 digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _unknown(value: Any, name: str, why: str) -> ValueError:
    return ValueError(
        f"cannot tell what {name} is made of ({type(value).__qualname__}): {why}. A directory has to remember everything "
        "that decides the result of its sweep: give it as an equinox module whose fields are numbers, arrays and functions, "
        "or sweep without a directory"
    )


def _home(module: Any) -> str:
    """The module by which a function of a library is told: of this one only the name, as its inner files may move."""
    return "gradstarve" if str(module).partition(".")[0] == "gradstarve" else str(module)


def _is_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | np.number) or (
        isinstance(value, np.ndarray | jax.Array) and value.size == 1
    )


class _Reader:
    """One walk; what was met before is told by its number, so that cycles end."""

    def __init__(self):
        self._met: dict[int, int] = {}
        self._held: list[Any] = []  # an id stays taken as long as its object is there
        self._classes: list[type] = []
        self._named: dict[str, Any] | None = None

    def read(self, value: Any, name: str) -> Any:
        if value is None or type(value) in (bool, str):
            return value
        if type(value) in (int, float):
            # JSON has neither NaN nor infinities.
            return value if type(value) is int or np.isfinite(value) else str(value)
        if isinstance(value, enum.Enum):
            return {"enum": type(value).__qualname__, "name": value.name, "value": self.read(value.value, name)}
        if isinstance(value, complex | bytes | bytearray | range | slice | type(Ellipsis) | pathlib.PurePath | np.dtype):
            return {type(value).__name__: repr(value)}
        if not is_concrete(value):
            raise _unknown(value, name, "it is traced, as inside jit or grad")
        if isinstance(value, np.generic | np.ndarray | jax.Array):
            return self._array(value, name)
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if isinstance(value, types.CodeType):
            return self._code(value, name)
        if isinstance(value, type):
            return self._class(value, name)
        if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections", "types"):
            return {"dict": [[self.read(key, name), self.read(entry, f"{name}[{key!r}]")] for key, entry in value.items()]}
        if type(value) in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields")):
            return [self.read(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
        if isinstance(value, set | frozenset):
            return {"set": sorted(json.dumps(_Reader().read(entry, name), sort_keys=True) for entry in value)}
        # Constants are shared or not as the compiler likes; what is compared by identity here is not among them.
        met = self._met.get(id(value))
        if met is not None:
            return {"met": met}
        self._met[id(value)] = len(self._met)
        self._held.append(value)
        return self._object(value, name)

    def _array(self, value: Any, name: str) -> Any:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return {"key": str(jax.random.key_impl(value)), "words": np.asarray(jax.random.key_data(value)).tolist()}
        array = np.asarray(value)
        if array.dtype.hasobject:
            return {"objects": [self.read(entry, name) for entry in array.ravel()], "shape": list(array.shape)}
        weak = " weak" if getattr(value, "weak_type", False) else ""
        if array.ndim == 0:
            return f"{array.dtype}{weak} {array.item()!r}"
        kind = f"{array.dtype}{weak}{list(array.shape)}"
        if array.size <= _SHORT:
            return f"{kind} {array.ravel().tolist()}"
        return f"{kind} sha256 {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"

    def _object(self, value: Any, name: str) -> Any:
        if isinstance(value, types.FunctionType):
            return self._function(value, name)
        if isinstance(value, types.MethodType):
            return {"method": self.read(value.__func__, name), "of": self.read(value.__self__, name)}
        if isinstance(value, functools.partial):
            given = [list(value.args), dict(value.keywords)]
            return {"partial": self.read(value.func, name), "given": self.read(given, name)}
        if isinstance(value, staticmethod | classmethod):
            return self.read(value.__func__, name)
        if isinstance(value, property | functools.cached_property):
            return self.read(getattr(value, "fget", None) or getattr(value, "func", None), name)
        if type(value) is object:  # a mark for "nothing given", without a content
            return "object()"
        if isinstance(value, jax.tree_util.PyTreeDef):
            return {"tree": [self.read(entry, name) for entry in (value.node_data(), value.children())]}
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | np.ufunc):
            owner = getattr(value, "__self__", None)
            told = {"function": f"{getattr(value, '__module__', None)}.{value.__name__}"}
            return told if owner is None or isinstance(owner, types.ModuleType) else told | {"of": self.read(owner, name)}
        if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType | types.GetSetDescriptorType):
            return {"function": f"{value.__objclass__.__qualname__}.{value.__name__}"}
        kind = type(value)
        if _is_library(kind.__module__):
            wrapped = getattr(value, "__wrapped__", None)
            if callable(wrapped) and kind.__module__.partition(".")[0] in ("jaxlib", "functools"):  # jit, lru_cache
                return {kind.__name__: self.read(wrapped, name)}
            module, label = getattr(value, "__module__", None), getattr(value, "__name__", None)
            if isinstance(label, str) and getattr(sys.modules.get(str(module)), label, None) is value:
                return {"function": f"{_home(module)}.{label}"}
        fields = self._fields(value, name)
        if not fields and _is_library(kind.__module__):
            return f"{kind.__name__}()"
        told = {"type": kind.__qualname__ if _is_library(kind.__module__) else self._class(kind, name)}
        return told | {field: self.read(entry, f"{name}.{field}") for field, entry in fields.items()}

    def _fields(self, value: Any, name: str) -> dict[str, Any]:
        """What an object holds, by name; an error where it may hold more than can be seen."""
        found = {key: entry for key, entry in getattr(value, "__dict__", {}).items() if key not in _LABELS}
        slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
        for slot in (slot for of_kind in slots for slot in ([of_kind] if isinstance(of_kind, str) else of_kind)):
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
        seen = hasattr(value, "__dict__") or any(slots)
        native = [kind for kind in type(value).__mro__ if kind is not object and not _is_python(kind)]
        if not seen or native:
            what = f"what a {native[0].__qualname__} holds cannot be seen" if native else "it has no attributes"
            raise _unknown(value, name, what)
        if dataclasses.is_dataclass(value):
            hidden = [field.name for field in dataclasses.fields(value) if field.name not in found]
            found |= {field: getattr(value, field) for field in hidden if hasattr(value, field)}
        return found

    def _function(self, function: types.FunctionType, name: str) -> Any:
        # Where its code lies: functools.wraps lends a function the module and the name of another.
        module, label = function.__globals__.get("__name__"), function.__code__.co_qualname
        if _is_library(module):
            told: dict[str, Any] = {"function": f"{_home(module)}.{label}"}
            if "<lambda>" in label:  # one of several of that name
                told["code"] = hashlib.sha256(function.__code__.co_code).hexdigest()[:16]
            if "<locals>" in label:  # made by jax.grad and its like
                with _naming(self):
                    told["given"] = self._given(function, name)
            return told
        with _naming(self) as named:
            parts = self._parts(function, name)
        return {"function": function.__name__, "code": digest(parts)} | named

    def _parts(self, function: types.FunctionType, name: str) -> list[Any]:
        code = function.__code__
        parts = [self._code(code, name, function.__doc__), self._given(function, name)]
        for variable, attributes in _globals_of(code):
            if variable in function.__globals__:
                content = function.__globals__[variable]
                parts.append(self._variable(variable, content, f"the global {variable!r} that {name} reads"))
                if isinstance(content, types.ModuleType) and not _is_library(content.__name__):
                    for attribute in sorted(attributes & set(vars(content))):
                        what = f"{variable}.{attribute} that {name} reads"
                        parts.append(self._variable(f"{variable}.{attribute}", vars(content)[attribute], what))
        return parts

    def _given(self, function: types.FunctionType, name: str) -> list[Any]:
        """Defaults, attributes, and the values that a function closes over."""
        defaults = dict(enumerate(function.__defaults__ or ())) | dict(function.__kwdefaults__ or {})
        parts = [self.read(defaults, f"a default of {name}"), self.read(dict(vars(function)), f"an attribute of {name}")]
        for cell, variable in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not bound yet
                content = None
            parts.append(self._variable(variable, content, f"the variable {variable!r} that {name} closes over"))
        return parts

    def _variable(self, variable: str, content: Any, name: str) -> list[Any]:
        told = self.read(content, name)
        if self._named is not None and len(self._named) < _MOST_NAMED and _simple(content):
            self._named.setdefault(variable, told)
        return [variable, told]

    def _code(self, code: types.CodeType, name: str, doc: Any = None) -> Any:
        constants = [None if entry is doc and isinstance(doc, str) else entry for entry in code.co_consts]
        return [
            hashlib.sha256(code.co_code).hexdigest(),
            getattr(code, "co_exceptiontable", b"").hex(),
            [self.read(entry, name) for entry in constants],
            [list(code.co_names), list(code.co_varnames), list(code.co_freevars), list(code.co_cellvars)],
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
        ]

    def _class(self, kind: type, name: str) -> Any:
        """A class by its name where a library has it, else by its own code and that of the classes above it."""
        if _is_library(kind.__module__):
            return {"class": f"{_home(kind.__module__)}.{kind.__qualname__}"}
        if kind in self._classes:
            return {"class": kind.__name__, "met": self._classes.index(kind)}
        self._classes.append(kind)
        parts: list[Any] = []
        with _naming(self) as named:
            for one in kind.__mro__:
                if _is_library(one.__module__):
                    parts.append(f"{_home(one.__module__)}.{one.__qualname__}")
                    continue
                for key, entry in sorted(vars(one).items()):
                    if key in _LEFT_OUT or key == "_abc_impl" or (key.startswith("__") and not callable(entry)):
                        continue
                    if isinstance(entry, types.MemberDescriptorType | types.GetSetDescriptorType):
                        continue  # a slot: what is in it is a field of the object
                    parts.append(self._variable(key, entry, f"{name}.{key}"))
        return {"class": kind.__name__, "code": digest(parts)} | named


class _naming:
    """Collects the simple values that a piece of code reads, to be told by name; the outermost piece collects."""

    def __init__(self, reader: _Reader):
        self.reader = reader

    def __enter__(self) -> dict[str, Any]:
        self.outer = self.reader._named is not None
        if self.outer:
            return {}
        self.reader._named = {}
        return self.reader._named

    def __exit__(self, *_: object) -> None:
        if not self.outer:
            self.reader._named = None


def _is_python(kind: type) -> bool:
    """Whether a class is written in Python, so that its objects hold nothing but their attributes."""
    return bool(kind.__flags__ & (1 << 9))  # Py_TPFLAGS_HEAPTYPE


def _globals_of(code: types.CodeType) -> Iterator[tuple[str, set[str]]]:
    """The global names that code reads, with that of functions inside it, each once; and the attributes it asks for."""
    names: dict[str, None] = {}
    attributes: set[str] = set()
    waiting = [code]
    while waiting:
        one = waiting.pop(0)
        waiting += [entry for entry in one.co_consts if isinstance(entry, types.CodeType)]
        for step in dis.get_instructions(one):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                names[step.argval] = None
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(step.argval)
    return ((name, attributes) for name in sorted(names))
