"""Files of a stranger: each ends in a UserError, soon and within a gigabyte."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import mrda_arch  # noqa: F401
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_metric  # noqa: F401
import mrda_model  # noqa: F401

GIB = 1 << 30
_SAME = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
SHORT, LONG = settings(max_examples=60, **_SAME), settings(max_examples=5000, **_SAME)


@contextlib.contextmanager
def memory_limit(more: int = GIB):
    """Let this process map no more than `more` bytes beyond what it has; asking for more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def little_memory():
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    with memory_limit():
        yield


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """These bytes with some of them changed, put in or cut off."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        new = draw(st.binary(max_size=8))
        content[at : at + draw(st.sampled_from([0, len(new), 64]))] = new
    return bytes(content[: draw(st.sampled_from([len(content), draw(st.integers(0, len(content)))]))])
