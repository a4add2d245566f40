"""The management application around the parts that a test has."""

from collections.abc import Callable, Mapping

from fastapi import FastAPI
from tests.rigs.fake_detector import FakeDetector

from ai_proxy.api import application
from ai_proxy.api.deps import Context, ControlPlane, MetricsRenderer, Requests, StoredState
from ai_proxy.core.errors import StoreError, StoreUnavailableError
from ai_proxy.core.ports import EngineDetector
from ai_proxy.platform.addresses import Addresses
from ai_proxy.platform.tasks import Restarts

NO_STATE = StoreUnavailableError("this proxy runs without a store")


def create_app(
    plane: ControlPlane,
    metrics: MetricsRenderer,
    version: str,
    *,
    requests: Requests | None = None,
    detector: EngineDetector | None = None,
    state: StoredState | StoreError = NO_STATE,
    restarts: Callable[[], Mapping[str, Restarts]] = dict,
) -> FastAPI:
    """Build the application; what a test leaves out is empty."""
    requests, detector = requests or Requests(), detector or FakeDetector()
    context = Context(plane, metrics, version, Addresses(), requests, detector, lambda: state, restarts)
    return application.create_app(context)
