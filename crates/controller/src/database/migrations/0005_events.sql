-- What changed about protected machines, by the machine's name of that time.
CREATE TABLE events (
    number        INTEGER PRIMARY KEY,
    at_us         BIGINT NOT NULL,
    protection_id TEXT NOT NULL,
    machine_name  TEXT NOT NULL,
    -- state, replication or health.
    aspect        TEXT NOT NULL,
    before        TEXT,
    after         TEXT NOT NULL,
    detail        TEXT NOT NULL
);
CREATE INDEX events_by_protection ON events (protection_id, aspect, number);
