"""nginx and HAProxy in front of a host: of everything there they let one path through, and offers of other protocols with it."""

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


@contextmanager
def running_nginx(folder: Path, port: int, path: str, *, bodies: str) -> Iterator[Path]:
    """Run nginx in front of a port; gives the Unix socket that it listens on.

    Args:
        folder: Its own; short, as the path of a socket is.
        port: Of the host.
        path: All that it lets through.
        bodies: A directive that says what becomes of them.
    """
    address, config = folder / "front", folder / "nginx.conf"
    words = {
        "folder": folder,
        "address": address,
        "port": port,
        "path": path,
        "bodies": bodies,
    }
    config.write_text(_NGINX.format(**words))
    with running(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)]) as nginx:
        # It listens before it says so.
        nginx.wait_for("event method")
        yield address


@contextmanager
def running_haproxy(folder: Path, port: int, path: str) -> Iterator[Path]:
    """Run HAProxy in front of a port, in the same way."""
    address, config, notes = folder / "front", folder / "haproxy.cfg", folder / "notes"
    config.write_text(_HAPROXY.format(address=address, port=port, path=path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(notes))
        ready.settimeout(PATIENCE_S)
        # As under systemd, which it tells when it listens.
        with running(["haproxy", "-Ws", "-f", str(config)], {**os.environ, "NOTIFY_SOCKET": str(notes)}):
            while b"READY=1" not in ready.recv(4096):
                pass
            yield address
