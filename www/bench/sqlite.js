// How SQLite is set up.

/** Every commit syncs. Of the journals that do, this was the fastest here; without shared memory it takes the lock. */
export const SQLITE_PRAGMAS = ["locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"];

/** The key of the last row, which is how many there are, and its value. */
export const ROWS_LAST = "SELECT id, value FROM records ORDER BY id DESC LIMIT 1";
