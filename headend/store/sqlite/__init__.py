"""The embedded store: one SQLite file, one writer that commits in groups, one reader beside it."""

from headend.store.sqlite.sealing import seal_store
from headend.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "seal_store"]
