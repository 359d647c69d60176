-- Where meters stand and why; what manufacturers say of them; which head-end key each one trusts.

-- One row a step, numbered for each meter from 1. Nothing here is ever changed.
CREATE TABLE standing_change (
  meter  BLOB NOT NULL,
  number INTEGER NOT NULL,
  at_ms  INTEGER NOT NULL,
  step   INTEGER NOT NULL,
  state  INTEGER NOT NULL,
  actor  TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (meter, number)
) STRICT, WITHOUT ROWID;

-- As the newest shipment file says it.
CREATE TABLE device (
  meter        BLOB PRIMARY KEY,
  manufacturer TEXT NOT NULL,
  model        TEXT NOT NULL,
  serial       TEXT NOT NULL,
  hardware     TEXT NOT NULL,
  firmware     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which head-end key a meter has confirmed to trust; a meter without a row has confirmed none.
CREATE TABLE trust (
  meter        BLOB PRIMARY KEY,
  kid          BLOB NOT NULL,
  confirmed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the key that seals secrets at rest opens, so that a wrong one is found out at the start.
CREATE TABLE seal (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  sealed BLOB NOT NULL
) STRICT;
