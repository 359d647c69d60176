-- Day blocks keyed by meter, channel and day; everything a meter's restart or ours must not lose.

CREATE TABLE meter (
  meter       BLOB PRIMARY KEY,
  public_key  BLOB NOT NULL,
  state       INTEGER NOT NULL,
  enrolled_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  meter          BLOB PRIMARY KEY,
  recipient_id   BLOB NOT NULL UNIQUE,
  sender_id      BLOB NOT NULL,
  master_secret  BLOB NOT NULL,
  master_salt    BLOB NOT NULL,
  algorithm      INTEGER NOT NULL,
  reserved_until INTEGER NOT NULL,
  window_base    INTEGER NOT NULL,
  window_bitmap  BLOB NOT NULL,
  established_at INTEGER NOT NULL,
  is_window_doubtful INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE location (
  meter        BLOB PRIMARY KEY,
  path         TEXT NOT NULL,
  confirmed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE registration (
  meter               BLOB PRIMARY KEY,
  registered_at       INTEGER NOT NULL,
  reason              INTEGER NOT NULL,
  software            TEXT NOT NULL,
  model_version       INTEGER NOT NULL,
  channel_set         INTEGER NOT NULL,
  standard_offset_min INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Earlier channel sets stay: blocks that were packed under them must remain readable.
CREATE TABLE channel (
  meter         BLOB NOT NULL,
  channel_set   INTEGER NOT NULL,
  channel       INTEGER NOT NULL,
  reading_type  TEXT NOT NULL,
  register_type TEXT NOT NULL,
  multiplier    INTEGER NOT NULL,
  unit          TEXT NOT NULL,
  interval_s    INTEGER NOT NULL,
  PRIMARY KEY (meter, channel_set, channel)
) STRICT, WITHOUT ROWID;

-- One row a report: the provenance of the day's blocks.
CREATE TABLE report (
  meter       BLOB NOT NULL,
  day         INTEGER NOT NULL,
  method      INTEGER NOT NULL,
  path        TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  clock_s     INTEGER NOT NULL,
  clock_state INTEGER NOT NULL,
  -- As declared when it came: a later change must not move days that are stored.
  offset_min  INTEGER NOT NULL,
  PRIMARY KEY (meter, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX report_by_day ON report (day);

CREATE TABLE day_block (
  meter       BLOB NOT NULL,
  channel     INTEGER NOT NULL,
  day         INTEGER NOT NULL,
  channel_set INTEGER NOT NULL,
  interval_s  INTEGER NOT NULL,
  opening     INTEGER NOT NULL,
  advance     INTEGER NOT NULL,
  packed      BLOB NOT NULL,
  qualities   BLOB NOT NULL,
  flags       INTEGER NOT NULL,
  PRIMARY KEY (meter, channel, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_entry (
  meter       BLOB NOT NULL,
  sequence    INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  event_type  TEXT NOT NULL,
  detail      TEXT NOT NULL,
  is_time_doubtful INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  PRIMARY KEY (meter, sequence)
) STRICT, WITHOUT ROWID;

-- The digest makes a repeated delivery harmless here too.
CREATE TABLE quarantine (
  id          INTEGER PRIMARY KEY,
  meter       BLOB NOT NULL,
  reason      TEXT NOT NULL,
  path        TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  payload     BLOB NOT NULL,
  digest      BLOB NOT NULL,
  UNIQUE (meter, reason, digest)
) STRICT;

CREATE TABLE on_demand_read (
  identifier  BLOB PRIMARY KEY,
  meter       BLOB NOT NULL,
  asked_ms    INTEGER NOT NULL,
  answered_ms INTEGER,
  result      INTEGER NOT NULL,
  path        TEXT NOT NULL,
  answer      BLOB,
  detail      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX on_demand_read_by_meter ON on_demand_read (meter, asked_ms);

-- Meters whose reports of past days are to be asked for, after a backup was put back.
CREATE TABLE recall (
  meter BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Counts groups of writes. Beside the file its last value is noted: a store that is behind the note
-- was put back from a backup.
CREATE TABLE beat (
  one   INTEGER PRIMARY KEY CHECK (one = 1),
  count INTEGER NOT NULL
) STRICT;

INSERT INTO beat VALUES (1, 0);
