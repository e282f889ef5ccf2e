-- The machine's epoch, raised with each change of the side that may run it;
-- whether the direction is turned; and where a failover stands, as
-- database::failover has it: nothing while the machine is only replicated.
ALTER TABLE protections ADD COLUMN epoch BIGINT NOT NULL DEFAULT 1;
ALTER TABLE protections ADD COLUMN reversed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE protections ADD COLUMN failover_format INTEGER;
ALTER TABLE protections ADD COLUMN failover TEXT;
-- What the machine was made of at the target, by the id that its job drew.
ALTER TABLE protections ADD COLUMN recovery TEXT;
-- Whether shipping waits until a job lets it go on.
ALTER TABLE protections ADD COLUMN held BOOLEAN NOT NULL DEFAULT FALSE;

-- What jobs did; see docs/formats/jobs.md.
CREATE TABLE jobs (
    id            TEXT PRIMARY KEY,
    -- Of the order: what is listed without reading the log.
    runbook       TEXT NOT NULL,
    target        TEXT NOT NULL,
    ordered_us    BIGINT NOT NULL,
    ended_us      BIGINT
);
CREATE INDEX jobs_by_end ON jobs (ended_us, ordered_us);
CREATE TABLE job_entries (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    line   TEXT NOT NULL,
    PRIMARY KEY (job_id, number)
);
