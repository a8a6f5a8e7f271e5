"""What may end a command, and whose doing it is: the one thing that every room may import.

UserError      what a person gave is wrong: exit code 2, one line
Failure        nobody's mistake, and no way on: exit code 1, one line
PassingFault   storage or network did not answer: in training exit code 75, start it again
anything else  a fault of this program: exit code 1, one line that names the file with the traceback
"""

import errno
import os
import re

START_AGAIN = 75
"""Exit code of a training that was told to end, or whose storage did not answer: sysexits' EX_TEMPFAIL."""


class UserError(ValueError):
    """What a person gave is wrong. The message is one line: the file or the option, what is wrong with it, the mend."""


class Failure(RuntimeError):
    """The work cannot go on, by nobody's mistake: a training that diverged. The message is one line."""


class PassingFault(OSError):
    """Storage or network did not answer, and may do so again. The message is one line: what it was about, and why."""


_OF_A_PATH = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
    errno.ETXTBSY,
}
"""What the system says of a path that is not there, not allowed, of another kind, or for which there is no room."""

_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ETIME,
    errno.ETIMEDOUT,
}
"""What the system says of a disk or a network that does not answer."""

_STATUS = re.compile(r"\b(UNAVAILABLE|DEADLINE_EXCEEDED)\b")  # of TensorStore and gRPC, which raise ValueErrors
_HTTP = {408, 429, 500, 502, 503, 504}  # that clients of Google Cloud Storage give up on in the end
_CLIENTS = ("aiohttp", "gcsfs", "google", "requests", "urllib3", "tensorstore")
_THEIR_WORDS = ("Timeout", "Connection", "Transport", "ServiceUnavailable", "TooManyRequests", "GatewayTimeout")


_BACKENDS = "xla_bridge.py"
_MEMORY = re.compile(r"\bRESOURCE_EXHAUSTED\b")

_FULL = {errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EROFS}
"""Those of writing, which comes without the name of the file."""


def is_about_a_path(error: BaseException) -> bool:
    """Whether the system refuses a path: a person's doing, for those that it names were given, or lie in such."""
    named = isinstance(error, OSError) and error.filename is not None and error.errno in _OF_A_PATH
    return named or (isinstance(error, OSError) and error.errno in _FULL)


def is_passing(error: BaseException) -> bool:
    """Whether storage or network not answering began it: the error itself, or what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if _did_not_answer(cause):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def _did_not_answer(error: BaseException) -> bool:
    if isinstance(error, PassingFault | ConnectionError | TimeoutError):
        return not isinstance(error, BrokenPipeError)  # nobody reads what is printed
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    kind = type(error)
    if kind.__module__.partition(".")[0] in _CLIENTS:
        code = getattr(error, "code", None) or getattr(error, "status", None)
        return (str(code).isdigit() and int(code) in _HTTP) or any(word in kind.__name__ for word in _THEIR_WORDS)
    return isinstance(error, ValueError | RuntimeError) and _STATUS.search(str(error)) is not None


def of_devices(error: BaseException) -> Exception | None:
    """What JAX says of devices in words that help: a UserError where there are none, a Failure where memory ran out."""
    text, trace = str(error), error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Asked for CUDA alone and without its plugin, JAX 0.10 fails an assertion.
    asserted = isinstance(error, AssertionError) and trace and trace.tb_frame.f_code.co_filename.endswith(_BACKENDS)
    if asserted or (isinstance(error, RuntimeError) and "Unable to initialize backend" in text):
        asked = os.environ.get("JAX_PLATFORMS", "")
        found = f"JAX_PLATFORMS={asked}: there is no such device here" if asked else in_one_line(error, 200)
        return UserError(
            f"{found}; look at the driver, install gen1-jax[cuda] or gen1-jax[tpu], or set JAX_PLATFORMS=cpu"
        )
    if isinstance(error, RuntimeError) and _MEMORY.search(text):
        return Failure(
            f"the device has too little memory for this ({in_one_line(error, 200)}); choose fewer frames, a smaller"
            " size or batch, or share the work with --mesh: gen1 plan tells what fits"
        )
    return None


def in_one_line(error: BaseException, longest: int = 600) -> str:
    """The message without line breaks, its middle left out where it is long; the name of its kind if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def counted(count: int, what: str, several: str = "") -> str:
    """A number and what there are so many of, as messages say it: "1 clip", "2 clips".

    Args:
        count: how many.
        what: one of them.
        several: more of them, where "s" does not make it: "batches".
    """
    return f"{count} {what if count == 1 else several or what + 's'}"
