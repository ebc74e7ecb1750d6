"""`zodworker run --metrics-port`: what is served, and what can be wrong."""

import re
import signal
import socket
from urllib.request import urlopen

import psycopg
import pytest

SHOP = """
from zodworker_compat import ZodWorker

worker = ZodWorker(name="shop")
other = ZodWorker(name="other")

@worker.task("greet", schema=True)
def greet(payload):
    print("greeted", flush=True)

@other.task("other", schema=True)
def run(payload): ...
"""
ADDRESS = re.compile(r"Metrics and health are on (http://127\.0\.0\.1:\d+)\n")


@pytest.fixture
def start(start_zodworker, database, tmp_path):
    """Start `zodworker run` with the module `shop` on a database in which one job waits."""
    (tmp_path / "shop.py").write_text(SHOP)
    with psycopg.connect(database) as connection:
        connection.execute("select graphile_worker.add_job('greet', '{}')")

    def run(*arguments, **env):
        more = {"ZODWORKER_DATABASE_URL": database, **env}
        return start_zodworker("run", "--app", "shop:worker", *arguments, env=more)

    return run


def jobs_left(database):
    with psycopg.connect(database) as connection:
        return connection.execute("select count(*) from graphile_worker.jobs").fetchone()[0]


def read(url):
    with urlopen(url, timeout=60) as answer:  # noqa: S310 - our own
        return answer.read().decode()


async def test_metrics_and_health_are_served_until_the_end(start, eventually):
    running = start("--metrics-port", "0", "--app", "shop:other")
    await eventually(lambda: "greeted" in running.output, timeout=60)
    [url] = ADDRESS.findall(running.errors)

    succeeded = 'zodworker_jobs_succeeded_total{task="greet",worker="shop"} 1.0'
    await eventually(lambda: succeeded in read(f"{url}/metrics"), timeout=60)
    assert 'zodworker_jobs_succeeded_total{task="other",worker="other"} 0.0' in read(
        f"{url}/metrics"
    )
    assert '"live": true' in read(f"{url}/live")
    assert '"ready": true' in read(f"{url}/ready")
    running.send(signal.SIGTERM)
    assert running.wait(60) == 0, running.errors


async def test_each_process_serves_its_own(start, eventually):
    running = start("--metrics-port", "0", "--processes", "2")
    urls = await eventually(
        lambda: len(found := ADDRESS.findall(running.errors)) == 2 and found, timeout=60
    )

    assert len({*urls}) == 2
    for url in urls:
        assert '"live": true' in read(f"{url}/live")
    running.send(signal.SIGTERM)
    assert running.wait(60) == 0, running.errors


def test_a_port_that_is_taken_is_an_error_before_a_job_is_claimed(start, database):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start("--metrics-port", str(port))
        assert running.wait(60) == 1

    assert f"Metrics cannot be served on 127.0.0.1, port {port}: " in running.errors
    assert "--metrics-port" in running.errors
    assert "Traceback" not in running.errors
    assert jobs_left(database) == 1


def test_an_address_of_another_machine_is_an_error(start, database):
    running = start("--metrics-port", "0", "--metrics-host", "192.0.2.1")

    assert running.wait(60) == 1
    assert "Metrics cannot be served on 192.0.2.1" in running.errors
    assert jobs_left(database) == 1


def test_without_prometheus_client_it_says_what_to_install(start, database, tmp_path):
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError('no prometheus_client', name='prometheus_client')"
    )
    running = start("--metrics-port", "0", PYTHONPATH=str(tmp_path))

    assert running.wait(60) == 1
    assert "pip install 'zodworker-compat[metrics]'" in running.errors
    assert "Traceback" not in running.errors
    assert jobs_left(database) == 1
