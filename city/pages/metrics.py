"""The city's metrics as Prometheus text. Each scrape reads the counters in the store, which survive a restart."""

import socket
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from city.pages.connections import Connections
from city.server import City


class _CityFigures(Collector):
    def __init__(self, city: City, connections: Connections | None) -> None:
        self._city, self._connections = city, connections

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        stats = self._city.stats()
        stored = CounterMetricFamily("ansim_city_stored", "Events stored, by type", labels=["type"])
        for kind, n in stats["stored"].items():
            stored.add_metric([kind], n)
        yield stored
        for name, help_ in (
            ("duplicates", "Rows refused as already stored"),
            ("gaps", "Messages that came after a gap"),
        ):
            family = CounterMetricFamily(f"ansim_city_{name}", help_, labels=["lane"])
            for lane, n in stats[name].items():
                family.add_metric([lane], n)
            yield family
        others = CounterMetricFamily("ansim_city_count", "Other counters of the store", labels=["name"])
        for name, n in stats["counters"].items():
            if not name.startswith("stored."):
                others.add_metric([name], n)
        yield others
        up = GaugeMetricFamily("ansim_city_lane_up", "1 while the lane is subscribed", labels=["lane"])
        failures = CounterMetricFamily(
            "ansim_city_store_failures", "Messages given back to the broker", labels=["lane"]
        )
        for lane, of in stats["lanes"].items():
            up.add_metric([lane], float(of["connected"]))
            failures.add_metric([lane], of["store_failures"])
        yield up
        yield failures
        yield GaugeMetricFamily("ansim_city_streams", "Open event streams", value=stats["streams"])
        restarts = CounterMetricFamily(
            "ansim_city_restarts", "Threads and connections that an error ended", labels=["part"]
        )
        for part, n in stats["restarts"].items():
            restarts.add_metric([part], n)
        yield restarts
        held = GaugeMetricFamily("ansim_city_held", "What is only in memory, because the store fails", labels=["kind"])
        for kind, n in stats["held"].items():
            held.add_metric([kind], n)
        yield held
        not_held = CounterMetricFamily("ansim_city_not_held", "What not even memory could take", labels=["kind"])
        for kind, n in stats["not_held"].items():
            not_held.add_metric([kind], n)
        yield not_held
        forged = CounterMetricFamily(
            "ansim_city_forged", "Messages that no key of their gateway has sealed", labels=["topic", "reason"]
        )
        for name, n in stats["forged"].items():
            forged.add_metric(name.split("."), n)
        yield forged
        yield CounterMetricFamily("ansim_city_log_lost", "Lines that the log could not write", value=stats["log_lost"])
        if self._connections is not None:
            strangers = self._connections.strangers
            opened = GaugeMetricFamily("ansim_city_connections", "Open HTTP connections", labels=["of"])
            opened.add_metric(["strangers"], strangers)
            opened.add_metric(["proven"], len(self._connections) - strangers)
            yield opened
            closed = CounterMetricFamily(
                "ansim_city_connections_closed", "HTTP connections that the city closed", labels=["reason"]
            )
            for reason, n in sorted(self._connections.closed.items()):
                closed.add_metric([reason], n)
            yield closed


def registry_of(city: City, connections: Connections | None = None) -> CollectorRegistry:
    """Return the figures as a registry: each scrape reads them anew."""
    registry = CollectorRegistry()
    registry.register(_CityFigures(city, connections))
    return registry


def metrics_of(city: City, connections: Connections | None = None) -> bytes:
    """Return the text of one scrape."""
    return generate_latest(registry_of(city, connections))


class _Scraped(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a scrape comes every few seconds."""


def serve_metrics(registry: CollectorRegistry, one: socket.socket) -> WSGIServer:
    """Answer every scrape on a listening socket, in threads, from now on. Return the server, which `shutdown` ends."""
    server = _Scraped(one.getsockname()[:2], _Silent, bind_and_activate=False)
    server.socket.close()
    server.socket = one
    host, port = one.getsockname()[:2]
    server.server_name, server.server_port = host, port
    server.setup_environ()
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
