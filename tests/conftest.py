"""What every test has: profiles of hypothesis, loops, and a mark for tests that take long."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# No deadline anywhere: a shared machine is slow at times, and that is no property of the code.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "both_loops: run this asynchronous test on asyncio's loop and on uvloop's"
    )
    config.addinivalue_line(
        "markers", "soak: takes minutes or hours; runs with AMISTACK_SOAK=1 alone (`make soak`)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long ones where nobody asked for them."""
    if os.environ.get("AMISTACK_SOAK") == "1":
        return
    left_out = [item for item in items if item.get_closest_marker("soak") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asyncio's loop for all; uvloop's as well for tests that ask, where it can be had."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.get_closest_marker("both_loops") is not None:
        try:
            import uvloop
        except ImportError:  # 32-bit ARM has none
            return factories
        factories["uvloop"] = uvloop.new_event_loop
    return factories


_STRUCTLOG = structlog.get_config()
_PROCESSORS = list(_STRUCTLOG["processors"])


@pytest.fixture(autouse=True)
def logging_is_for_one_test() -> Iterator[None]:
    """What a test, or a fixture of many, configures of logging ends with the test: others look at
    what is logged.
    """
    root = logging.root
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**{**_STRUCTLOG, "processors": list(_PROCESSORS)})
    root.handlers[:] = handlers
    root.setLevel(level)
