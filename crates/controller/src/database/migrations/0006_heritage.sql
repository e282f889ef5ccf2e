-- Whether the host came from a controller that is lost, and what that left with
-- it is not yet adopted or renounced: until then it is told no duties.
ALTER TABLE hosts ADD COLUMN inherits BOOLEAN NOT NULL DEFAULT FALSE;
-- Whether it has told since it was enrolled: before, nobody knows that it has
-- nothing to tell.
ALTER TABLE hosts ADD COLUMN heritage_told BOOLEAN NOT NULL DEFAULT FALSE;
-- What hosts told of protections of a lost controller, as wire::heritage has it.
CREATE TABLE heritage (
    host_id       TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
    protection_id TEXT NOT NULL,
    format        INTEGER NOT NULL,
    document      TEXT NOT NULL,
    PRIMARY KEY (host_id, protection_id)
);
-- Protections that an operator does not want to be gone on with, by whichever
-- host they are told of later.
CREATE TABLE renounced (
    protection_id TEXT PRIMARY KEY
);
