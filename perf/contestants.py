"""The proxies that are compared and the origin behind them: each one pinned, on a port of the
kernel, with what it has used so far readable from /proc."""

import glob
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
SMALL = "x" * 128
FILES = {"16k": 16 << 10, "1m": 1 << 20}
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"

NGINX_HEAD = """
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile {nofile};
pid {name}.pid; error_log {name}.log error;
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    access_log off; server_tokens off; sendfile on; tcp_nopush on; client_max_body_size 0;
    keepalive_timeout 300s; keepalive_requests 1000000000;
"""

ORIGIN = NGINX_HEAD + """
    root www; default_type application/octet-stream;
    open_file_cache max=16; open_file_cache_valid 1h;
    server {{ listen 127.0.0.1:{port} backlog=4096; location = /small {{ return 200 {small}; }} }}
}}
"""

NGINX = NGINX_HEAD + """
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port}{nginx_tls} backlog=4096; {nginx_pair}
        location / {{ proxy_pass http://origin; }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn {connections}
    no strict-limits
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    http-reuse always
listen edge
    bind 127.0.0.1:{port}{haproxy_tls} backlog 4096
    server origin 127.0.0.1:{origin}
"""

CORELANE = """
cores = 1
[metrics]
enabled = false
[admin]
enabled = false
[logging.access]
enabled = false
[[listeners]]
name = "edge"
bind = "127.0.0.1:{port}"
{corelane_tls}
[[routes]]
name = "all"
paths = ["/*"]
cluster = "origin"
[clusters.origin]
endpoints = [{{ address = "127.0.0.1:{origin}" }}]
"""

CONFIGURATIONS = {"origin": ORIGIN, "nginx": NGINX, "haproxy": HAPROXY, "corelane": CORELANE}


# What turns a proxy's port into one that speaks TLS, with the certificate and key in one file. All
# have the same cipher, since each would choose another: what is compared is the proxies.
PLAIN = {"nginx_tls": "", "nginx_pair": "", "haproxy_tls": "", "corelane_tls": ""}
TLS = {
    "nginx_tls": " ssl http2",
    "nginx_pair": "ssl_certificate {pair}; ssl_certificate_key {pair}; "
                  "ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; "
                  "ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;",
    "haproxy_tls": " ssl crt {pair} alpn h2,http/1.1 ciphersuites TLS_AES_128_GCM_SHA256 "
                   "ciphers ECDHE-ECDSA-AES128-GCM-SHA256",
    "corelane_tls": 'tls = {{ certificates = [{{ cert = "{pair}", key = "{pair}" }}], cipher_suites = ['
                    '"TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"] }}',
}

RUNNING = []


class Server:
    """One process (and its children) on the given CPUs."""

    def __init__(self, name, binary, directory, cpus, origin=None, pair=None):
        self.name = name
        self.scheme = "https" if pair else "http"
        self.directory = os.path.join(directory, name)
        os.makedirs(os.path.join(self.directory, "www"), exist_ok=True)
        nofile = raise_file_limit()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        connections = nofile // 2 - 200
        config = CONFIGURATIONS[name].format(
            name=name, port=self.port, origin=origin and origin.port, small=SMALL, nofile=nofile,
            connections=connections,
            **{key: text.format(pair=pair)
               for key, text in (TLS if pair else PLAIN).items()})
        for file, size in FILES.items():
            self.write(f"www/{file}", "y" * size)
        path = self.write(f"{name}.conf", config)
        arguments = {"haproxy": ["-db", "-f", path], "corelane": ["run", "--config", path]}
        nginx = ["-p", self.directory, "-e", f"{name}.log", "-c", path]
        with open(os.path.join(self.directory, "stderr"), "w") as stderr:
            self.process = subprocess.Popen(
                [binary] + arguments.get(name, nginx), stdin=subprocess.DEVNULL, stdout=stderr,
                stderr=stderr, cwd=self.directory,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        RUNNING.append(self)
        self.wait_until_answering()

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def wait_until_answering(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.fetch("/small")
            except OSError as error:
                if self.process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                with open(os.path.join(self.directory, "stderr")) as log:
                    raise SystemExit(f"{self.name} does not answer ({error}):\n{log.read()}")

    def fetch(self, path):
        anybody = ssl._create_unverified_context()
        with urllib.request.urlopen(self.url(path), timeout=10, context=anybody) as reply:
            return reply.read()

    def pids(self):
        """The process and its descendants."""
        parents = {}
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(stat) as file:
                    text = file.read()
            except OSError:
                continue
            parents[int(text.split(" ", 1)[0])] = int(text.rsplit(")", 1)[1].split()[1])
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def cpu_seconds(self):
        """utime + stime of all threads of all its processes."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def rss_kb(self):
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * PAGE_KB
        return total

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def make_pair(directory):
    """A certificate for localhost and its key, in one file."""
    pair = os.path.join(directory, "pair.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", pair, "-out", pair + ".crt"],
        check=True, stderr=subprocess.DEVNULL)
    with open(pair + ".crt") as certificate, open(pair, "a") as file:
        file.write(certificate.read())
    return pair


def start(names, binaries, directory, proxy_cpu, pair=None):
    """The origin and the contestants, answering, with the origin's bytes: the contestants. With a
    certificate and its key, in one file, they speak TLS."""
    load = load_cpus(proxy_cpu)
    origin = Server("origin", required("nginx"), directory, load)
    servers = []
    for name in names:
        binary = shutil.which(binaries.get(name, name))
        if binary is None:
            raise SystemExit(f"{name}: not found: scripts/test installs it, or leave it out")
        servers.append(
            Server(name, os.path.abspath(binary), directory, {proxy_cpu}, origin, pair))
    for server in servers:
        for path in ["/small"] + [f"/{file}" for file in FILES]:
            if server.fetch(path) != origin.fetch(path):
                raise SystemExit(f"{server.name} changes the body of {path}")
    return servers


def stop_all():
    while RUNNING:
        RUNNING.pop().stop()


def load_cpus(proxy_cpu):
    cpus = os.sched_getaffinity(0) - {proxy_cpu}
    if not cpus or proxy_cpu not in os.sched_getaffinity(0):
        raise SystemExit("two CPUs are needed: one for the proxy alone, one for the load")
    return cpus


def raise_file_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def required(program):
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} is not installed: scripts/test installs it")
    return path


def machine(binaries):
    """What a reader needs to know to compare two files of results."""
    def output(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return (done.stdout + done.stderr).strip().split("\n")[0]

    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    here = os.path.dirname(os.path.abspath(__file__))
    corelane = binaries["corelane"]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": os.uname().release.split("-")[0],
        "cpu": model.group(1) if model else os.uname().machine,
        "cpus": os.cpu_count(),
        "commit": output("git", "-c", "safe.directory=*", "-C", here, "describe", "--always",
                         "--dirty", "--abbrev=12"),
        "versions": {
            "corelane": output(corelane, "version") if os.path.exists(corelane) else "",
            "nginx": output("nginx", "-v"),
            "haproxy": output("haproxy", "-v"),
            "wrk": output("wrk", "-v"),
        },
    }
