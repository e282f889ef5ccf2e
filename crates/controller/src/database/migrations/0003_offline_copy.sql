-- The first copy is carried: in which folder at the source, and the wish to take
-- it in from a folder at the target until that is done or has failed.
ALTER TABLE protections ADD COLUMN offline_wish TEXT;
ALTER TABLE protections ADD COLUMN offline_folder TEXT;
ALTER TABLE protections ADD COLUMN import_wish TEXT;
ALTER TABLE protections ADD COLUMN import_folder TEXT;
