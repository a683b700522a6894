"""What a scrape of `/metrics` says, sample by sample."""

import asyncio
import urllib.request
from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import eventually

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: Mapping[Sample, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float | None:
        """Of one series; None: there is none."""
        return self._samples.get((f"penstock_{name}", frozenset(labels.items())))

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """All series of a metric."""
        return {
            labels: n for (one, labels), n in self._samples.items() if one == f"penstock_{name}"
        }

    def __len__(self) -> int:
        return len(self._samples)


async def scraped(url: str) -> Scrape:
    """A replica's metrics now."""

    def get() -> str:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return Scrape(await asyncio.to_thread(get))


async def scraped_when(
    url: str, is_so: Callable[[Scrape], object], what: str, within_s: float = 10.0
) -> Scrape:
    """The first scrape of which this is so."""

    async def look() -> Scrape | None:
        scrape = await scraped(url)
        return scrape if is_so(scrape) else None

    found = await eventually(look, what, within_s)
    assert found is not None
    return found
