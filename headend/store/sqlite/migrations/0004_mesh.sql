-- Areas of the mesh, the short addresses in them, and what their nodes last said of their links.

-- next_short: an address is not given out again before all the others were.
CREATE TABLE mesh_area (
  area       INTEGER PRIMARY KEY,
  profile    TEXT NOT NULL,
  dodag_id   BLOB NOT NULL,
  next_short INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE mesh_node (
  node         BLOB PRIMARY KEY,
  area         INTEGER NOT NULL REFERENCES mesh_area (area),
  short        INTEGER NOT NULL,
  is_collector INTEGER NOT NULL,
  key_hash     BLOB,
  certificate  BLOB,
  UNIQUE (area, short)
) STRICT, WITHOUT ROWID;

-- One row a node; received_at in UTC seconds.
CREATE TABLE mesh_report (
  node        BLOB PRIMARY KEY,
  received_at INTEGER NOT NULL,
  octets      BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- At a start they are read in the order in which they came.
CREATE INDEX mesh_report_by_age ON mesh_report (received_at, node);

CREATE TABLE mesh_denied (
  area INTEGER NOT NULL,
  node BLOB NOT NULL,
  PRIMARY KEY (area, node)
) STRICT, WITHOUT ROWID;
