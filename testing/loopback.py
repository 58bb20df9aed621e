"""A raw HTTP server on loopback whose responses are written as bytes, so that they can be invalid, slow or endless."""

from __future__ import annotations

import contextlib
import datetime
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Write = Callable[[bytes], None]
Respond = Callable[["Request", Write], None]


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: Callable[[int], bytes] = field(repr=False, default=lambda size: b"")

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class LoopbackServer:
    """A running server: its port and the requests that it received."""

    port: int
    requests: list[Request] = field(default_factory=list)

    def url(self, path: str = "/", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


def respond_with(body: bytes, *, status: str = "200 OK", headers: str = "") -> Respond:
    """A valid response with `body`."""

    def respond(request: Request, write: Write) -> None:
        # The connection ends after one request; without the header a client would now and then reuse it and fail.
        fields = f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}"
        write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + body)

    return respond


def redirect_to(location: str, status: str = "302 Found") -> Respond:
    return respond_with(b"", status=status, headers=f"Location: {location}\r\n")


@contextlib.contextmanager
def serve(respond: Respond, *, tls: ssl.SSLContext | None = None) -> Iterator[LoopbackServer]:
    """Serves on a free port of 127.0.0.1, one thread for each connection; a client that hangs up is not an error."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                line = self.rfile.readline().decode("latin-1").strip()
                pairs = (part.decode("latin-1").partition(":") for part in iter(self.rfile.readline, b"\r\n") if part)
                request = Request(line, {name.lower(): value.strip() for name, _, value in pairs}, self.rfile.read)
                running.requests.append(request)
                respond(request, self._write)

        def _write(self, data: bytes) -> None:
            self.wfile.write(data)
            self.wfile.flush()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignores clients that reject the certificate, which some tests want."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        running = LoopbackServer(port=int(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def make_certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server with a self-signed certificate for `names`, and of a client that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + built.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=built.public_bytes(serialization.Encoding.PEM).decode())
