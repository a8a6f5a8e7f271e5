"""Compiled programs that outlive the process which made them, so that the next one neither traces nor compiles.

JAX's own cache of compilations is asked with a lowered program: to trace and lower it takes a small model longer than
to fetch what is asked for. Here a program is known before that, by what it is made of: this package's source, JAX, the
device, the settings that a network or sampler was built with, and the shapes and types of its arguments.

    with keeping(folder, "edit nano"):           # a command that ends, and is given again
        unet(latents, …)                         # any `KeptProgram`

A file of the folder is a line of JSON and the executable as XLA writes it: machine code, which is trusted as much as
that of JAX's cache, whose folder is the same user's. One that is damaged or of something else is made anew.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Optional

import jax
import jaxlib
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jaxlib import xla_client

from gen1_jax.files import replacing, write_text
from gen1_jax.result_trees import OTHER, as_numbers, described, generator_of, put_together

LARGEST = 2**30
"""Bytes that a folder may hold; of more, what was not used for the longest time goes."""

PLATFORMS = ("cpu",)
"""Where executables are known to be read as they were written."""

_PROGRAM, _SESSION = ".program", ".session"
_CALLS_HOST = re.compile(r"custom_call @\w*(python|callback)")  # of this process, by an address in it
_CHECKS = ("jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_no_execution")  # of each call, by JAX itself


class KeptProgram:
    """A function that runs compiled, as by `jax.jit`, and whose executables are kept where there is a folder for them.

    Args:
        function: of pytrees of arrays, which returns such: of dicts, lists and (named) tuples.
        identity: gives what tells the function, and what it closes over, from all others of this package: something
            whose `repr` says all of it; or None, and it is never kept.
        static: positions of arguments that are no arrays, but whose `repr` says all of them.
        donated: positions of arguments that are given up.

    Attributes:
        jitted: the function by `jax.jit`, which is what runs in a trace, on several devices, and where nothing is kept.
        lower, trace: of it.
    """

    def __init__(
        self,
        function: Callable,
        identity: Callable[[], Any],
        *,
        static: Sequence[int] = (),
        donated: Sequence[int] = (),
    ):
        self._function, self._identity, self._static, self._donated = function, identity, static, donated
        self.jitted = jax.jit(function, static_argnums=tuple(static), donate_argnums=tuple(donated))
        self.lower, self.trace = self.jitted.lower, self.jitted.trace
        self._store: _Store | None = None
        self._ready: dict[tuple, _Executable | None] = {}  # of that folder

    def __call__(self, *args, **kwargs):
        store = _Store.current
        if store is None or (identity := self._identity()) is None:
            return self.jitted(*args, **kwargs)
        static = {place: args[place] for place in self._static}
        leaves, tree = jax.tree.flatten(([None if place in static else x for place, x in enumerate(args)], kwargs))
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            return self.jitted(*args, **kwargs)
        form = (*static.values(), tree, *map(jax.typeof, leaves))
        if self._store is not store:
            self._store, self._ready = store, {}
        if form not in self._ready:
            types = tuple(map(_Type.of, leaves))
            make = functools.partial(self._make, store, static, tree, types)
            self._ready[form] = store.executable((identity, *static.values(), tree, types), make)
        executable = self._ready[form]
        return self.jitted(*args, **kwargs) if executable is None else executable(leaves)

    def _make(
        self, store: "_Store", static: dict[int, Any], tree: Any, types: Sequence["_Type"]
    ) -> "_Executable | None":
        """What runs leaves of these types; None where it does not last, for it calls the host or gives other types."""
        told: list[Any] = []

        def flat(*numbers):
            args, kwargs = tree.unflatten([kind.of_numbers(x) for kind, x in zip(types, numbers, strict=True)])
            results = self._function(*(static.get(place, x) for place, x in enumerate(args)), **kwargs)
            told.append(described(results))
            return [as_numbers(x) for x in jax.tree.leaves(results)]

        flat.__name__ = getattr(self._function, "__name__", "program")  # of profiles and messages
        args, _ = tree.unflatten(range(len(types)))
        donated = tuple(leaf for place in self._donated for leaf in jax.tree.leaves(args[place]))
        traced = jax.jit(flat, keep_unused=True, donate_argnums=donated).trace(*(kind.abstract() for kind in types))
        if traced.jaxpr.effects or told[0] is OTHER or any(x.weak_type for x in traced.jaxpr.out_avals):
            return None
        lowered = traced.lower()
        return None if _CALLS_HOST.search(lowered.as_text()) else store.compiled(lowered, told[0])


class _Type(NamedTuple):
    """The type of an argument.

    Attributes:
        shape, dtype: of its numbers.
        weak: whether it is a number of Python's.
        keys: the generator whose keys they are; None for numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool
    keys: str | None

    @classmethod
    def of(cls, x: Any) -> "_Type":
        keys = generator_of(x)
        aval = jax.typeof(x if keys is None else jax.random.key_data(x))
        return cls(aval.shape, aval.dtype, aval.weak_type, keys)

    def abstract(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, self.dtype, weak_type=self.weak)

    def of_numbers(self, x: jax.Array) -> jax.Array:
        return x if self.keys is None else jax.random.wrap_key_data(x, impl=self.keys)


class _Executable:
    """A loaded executable: leaves in, results out.

    Args:
        loaded: by XLA.
        results: how they are put together, see `result_trees.described`.
        path: where it is kept, if it is.
    """

    def __init__(self, loaded: Any, results: Any, path: Path | None = None):
        self._loaded, self._results, self.path = loaded, results, path
        self._run = loaded.execute_sharded

    def __call__(self, leaves: Sequence[Any]) -> Any:
        results = self._run(list(map(_buffer, leaves)))
        return put_together(self._results, (x for (x,) in results.disassemble_into_single_device_arrays()))

    def write(self, path: Path) -> None:
        """To a file.

        Raises:
            Exception: of the disk, or where this device's executables cannot be written.
        """
        machine_code = zlib.compress(_client().serialize_executable(self._loaded), 1)
        told = {"results": self._results, "sha256": hashlib.sha256(machine_code).hexdigest()}
        with replacing(path) as beside:
            beside.write_bytes(json.dumps(told).encode() + b"\n" + machine_code)
        self.path = path

    @classmethod
    def read(cls, path: Path) -> Optional["_Executable"]:
        """From a file; None where it is not there, or not whole."""
        try:
            told, _, machine_code = path.read_bytes().partition(b"\n")
            told = json.loads(told)
            if hashlib.sha256(machine_code).hexdigest() != told["sha256"]:
                return None
            devices = xla_client.DeviceList((jax.devices()[0],))
            loaded = _client().deserialize_executable(zlib.decompress(machine_code), devices, None)
            os.utime(path)
            return cls(loaded, told["results"], path)
        except Exception:  # damaged, or of an XLA that reads them otherwise: it is made anew
            return None


def _buffer(x: Any) -> jax.Array:
    """An argument as executables take it."""
    return as_numbers(x) if isinstance(x, jax.Array) else jax.device_put(np.asarray(x, jax.typeof(x).dtype))


def _client() -> Any:
    """Of the device, which loads executables and writes them."""
    return jax.devices()[0].client


class _Store:
    """A folder of programs, and which of them a session is about to use.

    Args:
        folder: that there is.
        session: its name.
    """

    current: ClassVar[Optional["_Store"]] = None

    def __init__(self, folder: Path, session: str):
        self._folder = folder
        self._session = folder / f"{_digest(session)}{_SESSION}"
        self._foreseen, self._used, self._made = self._read_session(), [], 0
        self._loader = ThreadPoolExecutor(1, "programs")
        self._loading: dict[str, Future] = {
            name: self._loader.submit(_Executable.read, self._path(name)) for name in self._foreseen
        }

    def executable(self, known_by: tuple, make: Callable[[], _Executable | None]) -> _Executable | None:
        """The one that is kept, or that `make` makes, which is kept from now on."""
        name = _digest(_settings(), *known_by)
        self._used.append(name)
        loading = self._loading.pop(name, None)
        if loading is None:  # another clip, other settings: what else was foreseen may be of no use
            self._loader.shutdown(wait=False, cancel_futures=True)
        found = _Executable.read(self._path(name)) if loading is None or loading.cancel() else loading.result()
        if found is None and (found := make()) is not None and found.path is not None:
            with contextlib.suppress(OSError), replacing(self._path(name)) as beside:  # without, it is lowered again
                os.link(found.path, beside)
        return found

    def compiled(self, lowered: jax.stages.Lowered, results: Any) -> _Executable | None:
        """The executable of what is lowered: one that was compiled before, by another state of the source, say."""
        path = self._path(_digest(_settings(), lowered.as_text(), results, source=False))
        if (found := _Executable.read(path)) is not None:
            return found
        with _no_other_cache():
            compiled = lowered.compile()
        try:
            loaded = compiled.runtime_executable()
            if len(loaded.get_parameter_layouts()) != lowered.in_tree.num_leaves:
                return None  # JAX hands over constants, too
            made = _Executable(loaded, results)
        except AttributeError:  # a jaxlib whose executables have other methods, which nobody promised to keep
            return None
        with contextlib.suppress(Exception):  # it is only slower the next time
            made.write(path)
            self._made += 1
        return made

    def close(self, *, finished: bool) -> None:
        """Ends what is under way; of a session that finished it is noted what it used."""
        self._loader.shutdown(cancel_futures=True)
        if finished and self._used != self._foreseen:
            with contextlib.suppress(OSError):
                write_text(self._session, json.dumps(self._used))
        if self._made:
            self._tidy()

    def _tidy(self) -> None:
        """Removes what was not used for the longest time, where the folder holds more than it may."""
        with contextlib.suppress(OSError):
            files = [(path, path.stat()) for path in self._folder.iterdir()]
            held = sum(stat.st_size for _, stat in files)
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
                if held <= LARGEST:
                    break
                path.unlink(missing_ok=True)
                held -= stat.st_size

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_PROGRAM}"

    def _read_session(self) -> list[str]:
        try:
            names = json.loads(self._session.read_text())
            return [name for name in names if isinstance(name, str) and name.isalnum()]
        except (OSError, ValueError, TypeError):
            return []


@contextlib.contextmanager
def keeping(folder: str | os.PathLike[str] | None, session: str) -> Iterator[None]:
    """Programs that run in this block are kept in a folder, and what is there already is neither traced nor compiled.

    What a block of this name used the last time is loaded on a thread at once, while this one still imports and reads.
    Nothing is kept on other `PLATFORMS`, where a program may run on several devices, or JAX is to check each call.

    Args:
        folder: which is made; None for none.
        session: what is about to be done, as a name: it should be that of all that use the same programs.
    """
    ordinary = (
        jax.default_backend() not in PLATFORMS
        or jax.device_count() > 1
        or any(getattr(jax.config, name) for name in _CHECKS)
    )
    if folder is None or ordinary or _Store.current is not None:
        yield
        return
    with contextlib.suppress(OSError):  # where no folder can be made nothing is read or written, which does no harm
        Path(folder).mkdir(parents=True, exist_ok=True)
    store = _Store.current = _Store(Path(folder), session)
    finished = False
    try:
        yield
        finished = True
    finally:
        _Store.current = None
        store.close(finished=finished)


@contextlib.contextmanager
def _no_other_cache() -> Iterator[None]:
    """JAX compiles in place of asking its cache: XLA does not write whole what it has read (CPU, jaxlib 0.10)."""
    before = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _digest(*parts: Any, source: bool = True) -> str:
    """Of things whose `repr` says all of them, in the surroundings in which programs are made and run.

    Args:
        parts: such things.
        source: whether this package's source is among them.
    """
    text = repr((_source() if source else "", _surroundings(), *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _settings() -> list[tuple[str, str]]:
    """Of JAX, as far as they change what is compiled: where it is cached does not."""
    values = jax.config.values.items()
    return sorted((name, repr(getattr(jax.config, name, value))) for name, value in values if "cache" not in name)


@functools.cache
def _source() -> str:
    """Of this package, all of it."""
    source, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        source.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return source.hexdigest()


@functools.cache
def _surroundings() -> tuple[str, ...]:
    """JAX and the device: what else is the same for all programs of a process."""
    device = jax.devices()[0]
    versions = (jax.__version__, jaxlib.__version__, device.client.platform_version)
    flags = (os.environ.get("XLA_FLAGS", ""), os.environ.get("LIBTPU_INIT_ARGS", ""))
    return *versions, device.platform, device.device_kind, *flags, _processor()


def _processor() -> str:
    """What the processor can do, for which machine code is made; a home folder may be that of several machines."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read(2**14).split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return " ".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
