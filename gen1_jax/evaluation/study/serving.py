"""`gen1 study serve`: the page and its clips, and answers appended as they come. Nothing else is served."""

import json
import os
import re
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gen1_jax.errors import UserError
from gen1_jax.evaluation.study.answers import checked, read_key
from gen1_jax.evaluation.study.making import ANSWERS, CLIPS, PAGE

_CLIP = re.compile(r"/clips/([0-9a-f]+)\.mp4$")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_LONGEST = 4096  # bytes of an answer


def make_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server of a study; `serve_forever` runs it.

    Args:
        folder: that `make_study` wrote.
        host: that it listens to; 127.0.0.1 for this machine alone.
        port: 0 for any that is free.

    Raises:
        UserError: no study there, or the port is taken.
    """
    store = AnswerStore(folder)
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, folder / PAGE, store))
    except OSError as error:
        raise UserError(f"--port {port} of {host} cannot be listened to: {error.strerror}") from None


class AnswerStore:
    """Answers on the disk: a file a rater, a line an answer; a line is on the disk before it is acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._key, self._folder, self._lock = read_key(folder), folder / ANSWERS, threading.Lock()
        self._folder.mkdir(exist_ok=True)

    def add(self, answer: Any) -> None:
        """Appends one.

        Raises:
            UserError: it is no answer of this study.
        """
        known = checked(answer, self._key)
        line = (json.dumps(known) + "\n").encode()
        with self._lock, open(self._folder / f"{known['rater']}.jsonl", "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line  # the last one was cut off
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for which a connection may say nothing

    def __init__(self, page: Path, store: AnswerStore, *given: Any) -> None:
        self._page, self._store = page, store
        super().__init__(*given)

    def do_GET(self) -> None:
        """The page or a clip."""
        path = self.path.partition("?")[0]
        if path in ("/", "/index.html"):
            self._file(self._page / "index.html", "text/html; charset=utf-8")
        elif (clip := _CLIP.match(path)) and (file := self._page / CLIPS / f"{clip[1]}.mp4").is_file():
            self._file(file, "video/mp4")
        else:
            self._reply(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An answer."""
        length = self.headers.get("Content-Length", "")
        if self.path != "/answers" or not length.isdigit() or int(length) > _LONGEST:
            self.close_connection = True  # what it sends is not read
            return self._reply(HTTPStatus.BAD_REQUEST)
        try:
            self._store.add(json.loads(self.rfile.read(int(length))))
        except (ValueError, UserError):
            return self._reply(HTTPStatus.BAD_REQUEST)
        except OSError:  # a full disk: the page keeps the answer and tries again
            return self._reply(HTTPStatus.INSUFFICIENT_STORAGE)
        return self._reply(HTTPStatus.NO_CONTENT)

    def _file(self, path: Path, kind: str) -> None:
        """A file, or the part of it that is asked for, as some browsers ask for videos."""
        data, headers = path.read_bytes(), {"Content-Type": kind, "Accept-Ranges": "bytes"}
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if not wanted:
            return self._reply(HTTPStatus.OK, data, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if first > last:
            beyond = {"Content-Range": f"bytes */{len(data)}"}
            return self._reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", beyond)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._reply(HTTPStatus.PARTIAL_CONTENT, data[first : last + 1], headers)

    def _reply(self, status: HTTPStatus, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told of."""
