-- What holds a point, whatever the policy says: operator, or lost.
ALTER TABLE points ADD COLUMN hold TEXT;
-- Whether the side that the machine was last failed over from may have what never
-- arrived: unless it is known to have been planned. Written at each failover.
ALTER TABLE protections ADD COLUMN unsent BOOLEAN NOT NULL DEFAULT TRUE;
