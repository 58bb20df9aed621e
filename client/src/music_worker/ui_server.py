"""`music-worker ui`: serves the page on this machine only.

The server talks to the endpoint, so that the API key never reaches the browser.
"""

from __future__ import annotations

import tempfile
import threading
import webbrowser
from pathlib import Path
from types import TracebackType
from typing import Self

from music_worker.errors import ConfigurationError
from music_worker.ui.connection import Connection
from music_worker.ui.files import FileStore, Limits
from music_worker.ui.http import PageHandler, PageHttpServer, PageHttpServer6
from music_worker.ui.jobs import JobTable, PageClient
from music_worker.ui.site import Site

DEFAULT_PORT = 7861
"""The same at each start, because browsers keep the history by address."""
HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def serve(client: PageClient, *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = True) -> None:
    """Serves the page until Ctrl-C.

    Args:
        client: talks to the endpoint.
        host: an address of this machine for itself: 127.0.0.1, localhost or ::1.
        port: None: 7861, or any free one if that is taken; 0: any free one.
        open_browser: open the page in the user's browser.

    Raises:
        ConfigurationError: the host is not of this machine alone, or the port is taken.
    """
    with PageServer(client, host=host, port=port) as server:
        print(f"The page is at {server.url}\nCtrl-C ends it. Jobs that are running go on at the endpoint.", flush=True)
        if open_browser:
            webbrowser.open(server.make_start_url())
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("Stopped.", flush=True)


class PageServer:
    """The page's server, which runs in a thread of its own inside a `with` block. Its files are deleted at the end."""

    def __init__(
        self, client: PageClient, *, host: str = "127.0.0.1", port: int | None = None, limits: Limits | None = None
    ) -> None:
        if host not in HOSTS:
            raise ConfigurationError(
                f"The page is served on this machine only: '{host}' is not 127.0.0.1, localhost or ::1. To use it from "
                "another machine, forward the port with ssh."
            )
        self._client = client
        self._host = host
        self._port = port
        self._limits = limits

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="music-worker-ui-", ignore_cleanup_errors=True)
        try:
            self._http = _bind(self._host, self._port)
        except BaseException:
            self._folder.cleanup()
            raise
        files = FileStore(Path(self._folder.name), self._limits)
        connection = Connection(self._client)
        address = f"[{self._host}]" if ":" in self._host else self._host
        self._http.site = Site(
            host=f"{address}:{self._http.server_port}",
            client=self._client,
            files=files,
            jobs=JobTable(self._client, files),
            connection=connection,
        )
        connection.connect()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="page", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """The address of the page. Whoever knows it can use the endpoint through it."""
        return f"http://{self._http.site.host}/{self._http.site.token}/"

    def make_start_url(self) -> str:
        """An address that leads to the page once: other users of this machine can see the arguments of a browser."""
        return f"http://{self._http.site.host}/start/{self._http.site.make_start_code()}"


def _bind(host: str, port: int | None) -> PageHttpServer:
    kind = PageHttpServer6 if ":" in host else PageHttpServer
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            return kind((host, candidate), PageHandler)
        except OSError as error:
            reason = error.strerror
    raise ConfigurationError(f"Port {port} cannot be used: {reason}. Choose another one, or leave it out.")
