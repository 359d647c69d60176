-- What tells a copied meter from the one it was copied from.

-- UTC seconds of the newest delivery, one that came late not counted.
ALTER TABLE session ADD COLUMN heard_at INTEGER NOT NULL DEFAULT 0;

-- Sender sequence numbers that were reserved in all; jumps of the line are not among them.
ALTER TABLE session ADD COLUMN reserved_count INTEGER NOT NULL DEFAULT 0;

-- The session that each meter had before: who still speaks in it is not who opened the newer one.
CREATE TABLE former_session (
  meter         BLOB PRIMARY KEY,
  recipient_id  BLOB NOT NULL UNIQUE,
  sender_id     BLOB NOT NULL,
  master_secret BLOB NOT NULL,
  master_salt   BLOB NOT NULL,
  algorithm     INTEGER NOT NULL,
  window_base   INTEGER NOT NULL,
  window_bitmap BLOB NOT NULL,
  replaced_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX former_session_by_age ON former_session (replaced_at);

CREATE TABLE suspicion (
  meter      BLOB PRIMARY KEY,
  reason     TEXT NOT NULL,
  first_at   INTEGER NOT NULL,
  last_at    INTEGER NOT NULL,
  count      INTEGER NOT NULL,
  path       TEXT NOT NULL,
  other_path TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- UTC seconds when a backup was last put back, 0 if never: meters that are enrolled after that
-- may have been enrolled before.
ALTER TABLE beat ADD COLUMN restored_at INTEGER NOT NULL DEFAULT 0;
