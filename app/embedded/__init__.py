"""Real PostgreSQL and real Redis for one machine, from the binaries in their Python wheels.

    with embedded.start(Path(".candlefleet")) as servers:
        ... servers.database_url, servers.broker_url

usage.py is what a user sees, keeper.py the process that outlives single users, servers.py, postgres_server.py and
redis_server.py one server process, privileges.py and launch.py who it runs as, files.py the locks. Why it is built
like this: docs/adr/0004-embedded-servers.md. Knows nothing of settings: it is told a directory.
"""

from app.embedded.postgres_server import PostgresServer
from app.embedded.redis_server import RedisServer
from app.embedded.usage import KeptServer, Servers, start

__all__ = ["KeptServer", "PostgresServer", "RedisServer", "Servers", "start"]
