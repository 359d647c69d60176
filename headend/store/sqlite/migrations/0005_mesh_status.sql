-- How communication with each node of the mesh stands, and why it registered last.

-- One row a node; times in UTC seconds, NULL for never.
-- state: 0 never heard, 1 reachable, 2 late, 3 silent, 4 unreachable.
-- reason: 0 cold boot, 1 power restored, 2 parent changed, 3 address changed.
CREATE TABLE mesh_status (
  node          BLOB PRIMARY KEY,
  state         INTEGER NOT NULL,
  since         INTEGER NOT NULL,
  heard_at      INTEGER,
  registered_at INTEGER,
  reason        INTEGER
) STRICT, WITHOUT ROWID;
