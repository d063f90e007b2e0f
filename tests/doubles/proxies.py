"""nginx and HAProxy in front of a host, in two ways.

- On a Unix socket: of everything there they let one path through, and offers of other protocols with it.
- On a port (`front_nginx`, `front_haproxy`): they let everything through, keep connections on both sides, and say whose
  the requests are.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.processes import PATIENCE_S, running

#: The lines for WebSocket are those of nginx's own manual; connections behind are kept.
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr notice;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream host {{ server 127.0.0.1:{port}; keepalive 1; }}
  server {{
    listen unix:{address};
    location = {path} {{
      proxy_pass http://host;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      {bodies};
    }}
    location / {{ return 403; }}
  }}
}}
"""
_HAPROXY = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend front
  bind unix@{address}
  http-request deny unless {{ path {path} }}
  default_backend host
backend host
  server host 127.0.0.1:{port} pool-max-conn 1
"""
#: Beside what it says: so many connections that none is refused here, and none is closed because of its requests.
_NGINX_FRONT = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr notice;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  upstream host {{ server 127.0.0.1:{port}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{front};
    location / {{
      proxy_pass http://host;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
_HAPROXY_FRONT = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend front
  bind 127.0.0.1:{front}
  option forwardfor
  default_backend host
backend host
  server host 127.0.0.1:{port}
"""


@contextmanager
def running_nginx(folder: Path, port: int, path: str, *, bodies: str) -> Iterator[Path]:
    """Run nginx in front of a port; gives the Unix socket that it listens on.

    Args:
        folder: Its own; short, as the path of a socket is.
        port: Of the host.
        path: All that it lets through.
        bodies: A directive that says what becomes of them.
    """
    address = folder / "front"
    with _nginx(folder, _NGINX.format(folder=folder, address=address, port=port, path=path, bodies=bodies)):
        yield address


@contextmanager
def front_nginx(folder: Path, port: int) -> Iterator[int]:
    """Run nginx in front of a port, for everything; gives the port that it listens on."""
    front = _free_port()
    with _nginx(folder, _NGINX_FRONT.format(folder=folder, front=front, port=port)):
        yield front


@contextmanager
def _nginx(folder: Path, text: str) -> Iterator[None]:
    config = folder / "nginx.conf"
    config.write_text(text)
    with running(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)]) as nginx:
        # It listens before it says so.
        nginx.wait_for("event method")
        yield


@contextmanager
def running_haproxy(folder: Path, port: int, path: str) -> Iterator[Path]:
    """Run HAProxy in front of a port, in the same way."""
    address = folder / "front"
    with _haproxy(folder, _HAPROXY.format(address=address, port=port, path=path)):
        yield address


@contextmanager
def front_haproxy(folder: Path, port: int) -> Iterator[int]:
    """Run HAProxy in front of a port, for everything; gives the port that it listens on."""
    front = _free_port()
    with _haproxy(folder, _HAPROXY_FRONT.format(front=front, port=port)):
        yield front


@contextmanager
def _haproxy(folder: Path, text: str) -> Iterator[None]:
    config, notes = folder / "haproxy.cfg", folder / "notes"
    config.write_text(text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(notes))
        ready.settimeout(PATIENCE_S)
        # As under systemd, which it tells when it listens.
        with running(["haproxy", "-Ws", "-f", str(config)], {**os.environ, "NOTIFY_SOCKET": str(notes)}):
            while b"READY=1" not in ready.recv(4096):
                pass
            yield


def _free_port() -> int:
    """Return a port that no one listens on: neither proxy says which one it was given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
