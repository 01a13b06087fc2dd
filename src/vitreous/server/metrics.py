"""What a server counts, in Prometheus' words; nothing of a picture or an answer is in it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

#: In seconds: from a fast GPU to a picture that waited long.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one server.

    Attributes:
        requests: answered, by route and status.
        pictures: by what became of them: "answered", "unreadable", "late" or "failed".
        explanations: likewise.
        pending: pictures that wait or are being classified.
        seconds: a picture spent, by stage: "wait", "read" or "classify".
        reloads: by result: "done" or "failed".
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "vitreous_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self.pictures = Counter(
            "vitreous_pictures", "Pictures worked on.", ("result",), registry=registry
        )
        self.explanations = Counter(
            "vitreous_explanations", "Explanations worked on.", ("result",), registry=registry
        )
        self.pending = Gauge(
            "vitreous_pending_pictures", "Pictures waiting or being classified.", registry=registry
        )
        self.seconds = Histogram(
            "vitreous_picture_seconds",
            "Seconds of a picture in each stage.",
            ("stage",),
            registry=registry,
            buckets=_BUCKETS,
        )
        self.reloads = Counter(
            "vitreous_reloads", "Times the model was opened anew.", ("result",), registry=registry
        )

    def text(self) -> tuple[bytes, str]:
        """All numbers, and the content type of the text."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
