-- Hosts that the machine has left for good, and that may still have it: it stays
-- fenced there as long as it is protected. A JSON array of ids.
ALTER TABLE protections ADD COLUMN former_hosts TEXT NOT NULL DEFAULT '[]';
