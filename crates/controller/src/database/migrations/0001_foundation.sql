-- Times are microseconds since 1970 in UTC, ids are UUIDs as text, documents
-- are JSON in the format that their row names (see wire::inventory).

CREATE TABLE sites (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    description TEXT NOT NULL,
    created_us  BIGINT NOT NULL
);

CREATE TABLE clouds (
    id          TEXT PRIMARY KEY,
    site_id     TEXT NOT NULL REFERENCES sites (id),
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    created_us  BIGINT NOT NULL,
    UNIQUE (site_id, name)
);

CREATE TABLE hosts (
    id                     TEXT PRIMARY KEY,
    site_id                TEXT NOT NULL REFERENCES sites (id),
    cloud_id               TEXT REFERENCES clouds (id),
    name                   TEXT NOT NULL,
    enrolled_us            BIGINT NOT NULL,
    last_heard_us          BIGINT,
    revoked_us             BIGINT,
    certificate_serial     TEXT NOT NULL,
    -- Still good until the agent shows that it has kept the renewed one.
    previous_serial        TEXT,
    certificate_expires_us BIGINT NOT NULL,
    agent_version          TEXT,
    format                 INTEGER,
    facts                  TEXT,
    inventory_seen_us      BIGINT,
    hypervisor_lost_us     BIGINT,
    hypervisor_lost_reason TEXT,
    UNIQUE (site_id, name)
);
CREATE INDEX hosts_by_cloud ON hosts (cloud_id);

CREATE TABLE machines (
    id       TEXT PRIMARY KEY,
    host_id  TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    format   INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX machines_by_host ON machines (host_id);

CREATE TABLE networks (
    id       TEXT PRIMARY KEY,
    host_id  TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    format   INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX networks_by_host ON networks (host_id);

CREATE TABLE pools (
    id       TEXT PRIMARY KEY,
    host_id  TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    format   INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX pools_by_host ON pools (host_id);

-- Only digests of secrets are here.
CREATE TABLE api_tokens (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    role         TEXT NOT NULL,
    digest       BLOB NOT NULL,
    created_us   BIGINT NOT NULL,
    expires_us   BIGINT,
    last_used_us BIGINT,
    withdrawn_us BIGINT
);

CREATE TABLE enrolment_tokens (
    id           TEXT PRIMARY KEY,
    site_id      TEXT NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    cloud_id     TEXT REFERENCES clouds (id) ON DELETE CASCADE,
    replaces     TEXT REFERENCES hosts (id) ON DELETE CASCADE,
    digest       BLOB NOT NULL,
    created_us   BIGINT NOT NULL,
    expires_us   BIGINT NOT NULL,
    used_us      BIGINT,
    withdrawn_us BIGINT
);

CREATE TABLE audit (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us   BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
);
