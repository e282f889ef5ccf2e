-- The host on which a machine is made when it fails over, where that is not the one
-- that keeps its points: from the order of the failover until it has returned, or
-- the direction is turned.
ALTER TABLE protections ADD COLUMN compute_host_id TEXT REFERENCES hosts (id);
