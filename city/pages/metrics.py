"""The city's metrics as Prometheus text. Each scrape reads the counters in the store, which survive a restart."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from city.server import City


class _CityFigures(Collector):
    def __init__(self, city: City) -> None:
        self._city = city

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


def metrics_of(city: City) -> bytes:
    """Return the text of one scrape."""
    registry = CollectorRegistry()
    registry.register(_CityFigures(city))
    return generate_latest(registry)
