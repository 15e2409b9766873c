"""What was generated, in use: the demo, a resource more, the removal of the example, the containers.

The suite of the generated service is not run here: `make test` does that after these tests, in the open.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from generated import LEFT_BY_RUNNING, TEMPLATE, Service, environment, run, uv
from links import dead_links

pytestmark = pytest.mark.slow

START_SECONDS = 300
STOP_SECONDS = 30
COUNTRIES = 249


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


def request(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        payload = None if body is None else json.dumps(body)
        if payload:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        text = response.read()
        lower = {name.lower(): value for name, value in response.getheaders()}
        is_json = lower.get("content-type", "").split(";")[0].endswith("json")
        return Answer(response.status, lower, json.loads(text) if is_json else text)
    finally:
        connection.close()


def assert_a_miss_then_a_hit(port: int, name: str) -> None:
    miss = request(port, "GET", "/countries?limit=20")
    hit = request(port, "GET", "/countries?limit=20")
    assert (miss.status, hit.status) == (200, 200), (miss, hit)
    assert miss.headers["cache-status"] == f"{name}; fwd=uri-miss; stored"
    assert hit.headers["cache-status"].startswith(f"{name}; hit; ttl=")
    assert miss.body == hit.body
    assert (miss.body["total"], len(miss.body["items"])) == (COUNTRIES, 20)


def test_the_demo_serves_from_a_fresh_checkout_and_ends_without_a_trace(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    generated = {*LEFT_BY_RUNNING, ".git", ".baked", "demo", "uv.lock"}
    shutil.copytree(TEMPLATE, checkout, ignore=lambda _folder, names: generated & set(names))

    port = free_port()
    with started("make", f"UV={uv()}", "demo", cwd=checkout, port=port) as output:
        assert_a_miss_then_a_hit(port, "country-service")
        assert request(port, "GET", "/docs").status == 200
        assert f":{port}/docs" in output.read_text()
        assert output.read_text().count("curl") == 2


def test_the_example_goes_with_the_commands_of_the_readme_and_leaves_nothing_dead(
    generate: Callable[..., Service],
) -> None:
    service = generate()
    run("sh", "-ec", removal(service), cwd=service.root, UV=uv())

    assert [file for file in service.files("*.md") if [*dead_links(service.root / file)]] == []
    readme, makefile = service.text("README.md"), service.text("Makefile")
    paths = re.findall(r"`((?:app|benchmarks|docs|examples|migrations|tests)/[^`*]*)`", readme)
    assert [path for path in paths if not (service.root / path).exists()] == []
    assert set(re.findall(r"`make ([a-z]+)", readme)) <= set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert not re.search(
        "the example(:| -->)|bench|torture", readme + makefile + service.text("pyproject.toml")
    )
    assert [
        file for file in service.files() if re.search("countr|currenc|bench|tortur|bak$", str(file))
    ] == []
    migrations = [service.text(file) for file in service.files("migrations/versions/*.py")]
    assert len(migrations) == 1
    assert " FUNCTION notify_cache_tags()" in migrations[0]

    service.make("check")
    assert "GET /" not in service.text("docs/dependencies.md")
    service.make("test")

    port = free_port()
    with started("make", f"UV={uv()}", "run", cwd=service.root, port=port):
        assert request(port, "GET", "/health/ready").status == 200
        assert request(port, "GET", "/countries").status == 404
        assert not [path for path in request(port, "GET", "/openapi.json").body["paths"] if "/countr" in path]


def test_the_page_of_dependencies_is_what_the_command_writes(generate: Callable[..., Service]) -> None:
    service = generate()
    page = service.text("docs/dependencies.md")
    service.remove("docs/dependencies.md")
    service.make("dependencies")
    assert service.text("docs/dependencies.md") == page


def removal(service: Service) -> str:
    found = re.search(r"^### Removing the example\n\n```\n(.*?)^```$", service.text("README.md"), re.M | re.S)
    assert found
    return found[1]


def test_the_resource_that_the_readme_adds_works_as_it_stands_there(
    generate: Callable[..., Service],
) -> None:
    service = generate()
    readme = service.text("README.md")
    files = re.findall(r"^```python\n# ((?:app|tests)/\S+)\n(.*?)^```$", readme, re.M | re.S)
    for path, code in files:
        (service.root / path).parent.mkdir(parents=True, exist_ok=True)
        (service.root / path).write_text(code, encoding="utf-8")
    folder = Path(files[0][0]).parent
    assert {Path(path).name for path, _ in files} >= {"models.py", "schemas.py", "repository.py", "router.py"}

    message = re.search(r'^`make migration m="(.*?)"` writes', readme, re.M)
    assert message
    service.make("migration", f"m={message[1]}")
    service.make("check")
    about = f"tests/integration/{folder.name} tests/integration/test_migrations.py tests/unit/test_openapi.py"
    assert " passed" in service.make("test", PYTEST_ARGS=about)


@pytest.mark.usefixtures("docker")
def test_the_containers_serve_cached_countries_and_keep_what_was_written(
    generate: Callable[..., Service],
) -> None:
    service = generate(project_slug=f"smoke-{secrets.token_hex(4)}")
    port, token = free_port(), secrets.token_hex()
    country = {"alpha_2": "ZZ", "alpha_3": "ZZZ", "numeric": "999", "name": "Zedland"}

    with containers(service, API_PORT=str(port), API_TOKEN=token) as compose:
        compose("up", "--wait")
        assert_a_miss_then_a_hit(port, service.root.name)
        assert request(port, "GET", "/health/ready").status == 200

        created = request(port, "POST", "/countries", country, Authorization=f"Bearer {token}")
        assert created.status == 201, created
        assert request(port, "GET", "/countries?limit=20").body["total"] == COUNTRIES + 1

        # Not root, and nothing to build programs with.
        assert compose("exec", "-T", "api", "id", "-u").split()[-1] != "0"
        compose("exec", "-T", "api", "python", "-c", "import shutil; assert not shutil.which('gcc')")

        compose("down")
        compose("up", "--wait")
        assert request(port, "GET", "/countries/ZZ").body["name"] == "Zedland"
        assert request(port, "GET", "/countries?limit=20").body["total"] == COUNTRIES + 1


@contextmanager
def started(*command: str, cwd: Path, port: int) -> Iterator[Path]:
    """The command, once its service answers; ended as by Ctrl-C, after which nothing may be left."""
    output = cwd.parent / "output.txt"
    with output.open("w") as stdout:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(PORT=str(port)),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        wait_until_ready(process, port, output)
        family = psutil.Process(process.pid).children(recursive=True)
        yield output
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOP_SECONDS)
        psutil.wait_procs(family, timeout=STOP_SECONDS)
        left = [member for member in processes_of(cwd, family) if member.is_running()]
        assert left == [], f"still running: {left}\n{output.read_text()}"
    finally:
        for member in {*family, *processes_of(cwd, family)}:
            if member.is_running():
                member.kill()


def wait_until_ready(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    for _ in range(START_SECONDS * 2):
        try:
            if request(port, "GET", "/health/ready").status == 200:
                return
        except OSError:
            pass
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        break
    process.kill()
    pytest.fail(f"{process.args!r} does not serve\n{output.read_text()}")


def processes_of(folder: Path, family: list[psutil.Process]) -> set[psutil.Process]:
    """Those that descend from the command, and those that work in its folder."""
    found = set(family)
    for process in psutil.process_iter(["cwd", "cmdline"]):
        place = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
        if any(str(folder) in part for part in place) and process.pid != os.getpid():
            found.add(process)
    return found


@contextmanager
def containers(service: Service, **variables: str) -> Iterator[Callable[..., str]]:
    """`docker compose` for this service; afterwards no container, volume or image of it is left."""
    # A build needs what the host needs to reach a package index: its network, and its certificates.
    variables["BUILD_NETWORK"] = os.environ.get("BUILD_NETWORK", "default")
    certificates = os.environ.get("BUILD_CA_FILE") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        variables["BUILD_CA_FILE"] = certificates

    def compose(*arguments: str) -> str:
        return run("docker", "compose", *arguments, cwd=service.root, **variables)

    try:
        yield compose
    except AssertionError:
        print(compose("logs", "--no-color", "--tail", "50"))
        raise
    finally:
        compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        ours = f"label=org.opencontainers.image.title={service.root.name}"
        run("docker", "image", "prune", "--all", "--force", "--filter", ours, cwd=service.root)


def free_port() -> int:
    """Below the ports that the system gives to clients: none takes it meanwhile."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")
