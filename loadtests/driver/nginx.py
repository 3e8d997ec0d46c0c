"""nginx as a reverse proxy, where it is installed: a floor that others know."""

import os
from pathlib import Path

from .processes import Processes, free_port
from .subjects import Kind, Subject

# `listen ... http2` without TLS takes nothing but HTTP/2 in the versions of Debian.
_CONFIG = """\
daemon off;
{user}
worker_processes auto;
pid {scratch}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/nginx-body;
  proxy_temp_path {scratch}/nginx-proxy;
  fastcgi_temp_path {scratch}/nginx-fastcgi;
  uwsgi_temp_path {scratch}/nginx-uwsgi;
  scgi_temp_path {scratch}/nginx-scgi;
  client_body_buffer_size 256k;
  keepalive_requests 1000000000;
  upstream mcp {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {http1} backlog=4096;
    listen {http2} http2 backlog=4096;
    location / {{
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      # Event streams have to pass at once.
      proxy_buffering off;
    }}
  }}
}}
"""


def start(processes: Processes, scratch: Path, upstream: str) -> Subject:
    http1, http2 = (f"127.0.0.1:{free_port()}" for _ in range(2))
    # Workers of root are somebody else, who may not write to our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    config = scratch / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, scratch=scratch, upstream=upstream, http1=http1, http2=http2))
    master = processes.start("nginx", ["nginx", "-e", "stderr", "-c", str(config), "-p", str(scratch)])
    processes.wait_for_port("nginx", int(http1.rpartition(":")[2]))
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return Subject("nginx", http1, (master, *map(int, workers)), Kind.FLOOR, http2_host=http2)
