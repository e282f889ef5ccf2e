-- Where a host's agent takes data from others, HOST:PORT, and the version of
-- the control protocol that was last agreed on with it.
ALTER TABLE hosts ADD COLUMN peer_address TEXT;
ALTER TABLE hosts ADD COLUMN protocol INTEGER;

-- Documents in the format of database::policies.
CREATE TABLE policies (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    format     INTEGER NOT NULL,
    document   TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
INSERT INTO policies (id, name, format, document, created_us) VALUES (
    '00000000-0000-7000-8000-000000000001', 'default', 1,
    '{"every_seconds":30,"all_hours":24,"tiers":[[1,48],[24,720]],"app_extra_hours":24,"app_consistent_seconds":null,"freeze_seconds":10,"compression":"fast","bytes_per_second":null}',
    0
);

CREATE TABLE protections (
    id             TEXT PRIMARY KEY,
    -- The hypervisor's UUID: no machine is protected twice, wherever it is.
    machine_uuid   TEXT NOT NULL UNIQUE,
    machine_name   TEXT NOT NULL,
    source_host_id TEXT NOT NULL REFERENCES hosts (id),
    target_host_id TEXT NOT NULL REFERENCES hosts (id),
    policy_id      TEXT NOT NULL REFERENCES policies (id),
    -- A JSON array of the hypervisor's names.
    excluded_disks TEXT NOT NULL,
    generation     BIGINT NOT NULL,
    paused         BOOLEAN NOT NULL,
    not_before_us  BIGINT,
    -- Wishes that are not yet answered.
    resynchronise  TEXT,
    verify         TEXT,
    created_us     BIGINT NOT NULL,
    disabling_us   BIGINT,
    source_ended   BOOLEAN NOT NULL,
    target_ended   BOOLEAN NOT NULL
);
CREATE INDEX protections_by_source ON protections (source_host_id);
CREATE INDEX protections_by_target ON protections (target_host_id);
CREATE INDEX protections_by_policy ON protections (policy_id);

-- The last generation of each machine that was ever protected: a store may be
-- older than the protection that goes on with it.
CREATE TABLE generations (
    machine_uuid TEXT PRIMARY KEY,
    generation   BIGINT NOT NULL
);

-- What agents last told, as wire::replication has it.
CREATE TABLE shipping_reports (
    protection_id TEXT PRIMARY KEY REFERENCES protections (id) ON DELETE CASCADE,
    format        INTEGER NOT NULL,
    document      TEXT NOT NULL,
    received_us   BIGINT NOT NULL
);
CREATE TABLE keeping_reports (
    protection_id TEXT PRIMARY KEY REFERENCES protections (id) ON DELETE CASCADE,
    format        INTEGER NOT NULL,
    -- Without its points, which are rows below.
    document      TEXT NOT NULL,
    received_us   BIGINT NOT NULL
);
CREATE TABLE points (
    protection_id  TEXT NOT NULL REFERENCES protections (id) ON DELETE CASCADE,
    point          BIGINT NOT NULL,
    instant_us     BIGINT NOT NULL,
    app_consistent BOOLEAN NOT NULL,
    stored_bytes   BIGINT NOT NULL,
    PRIMARY KEY (protection_id, point)
);

-- Outlives the protection: it is evidence. Names are those of its time.
CREATE TABLE verifications (
    wish          TEXT PRIMARY KEY,
    protection_id TEXT NOT NULL,
    machine_uuid  TEXT NOT NULL,
    machine_name  TEXT NOT NULL,
    source_name   TEXT NOT NULL,
    target_name   TEXT NOT NULL,
    asked_us      BIGINT NOT NULL,
    asked_by      TEXT NOT NULL,
    finished_us   BIGINT,
    format        INTEGER,
    document      TEXT
);
CREATE INDEX verifications_by_protection ON verifications (protection_id, asked_us);
CREATE INDEX verifications_by_machine ON verifications (machine_uuid, asked_us);

-- The worst RPO of each minute in which it was measured.
CREATE TABLE rpo_history (
    protection_id TEXT NOT NULL REFERENCES protections (id) ON DELETE CASCADE,
    minute        BIGINT NOT NULL,
    worst_ms      BIGINT NOT NULL,
    PRIMARY KEY (protection_id, minute)
);
