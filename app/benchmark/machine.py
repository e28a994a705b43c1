"""Where a benchmark ran: the machine, and the versions of what took part."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from app.benchmark.ground import Ground
from app.benchmark.tables import connect
from app.broker import create_celery

_PACKAGES = ("candlefleet", "celery", "kombu", "redis", "psycopg", "SQLAlchemy", "pydantic", "numpy", "TA-Lib")


def describe_machine() -> dict[str, Any]:
    """Return the facts of this machine that figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def describe_versions(ground: Ground) -> dict[str, str]:
    """Return the versions of Python, the packages and the servers."""
    with connect(ground.settings.database_dsn, "bench") as connection:
        postgres = connection.info.parameter_status("server_version") or "unknown"
    with create_celery(ground.settings).connection_for_read() as broker:
        redis = broker.default_channel.client.info("server")["redis_version"]
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "postgres": postgres, "redis-server": redis, **packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
