// How SQLite is set up.

/**
 * Every commit syncs. Of the journals this was the fastest here: DELETE, TRUNCATE and PERSIST took 1.2 to 3 times as long
 * for a row by itself, and about as long for a thousand. Without shared memory it takes the lock.
 */
export const SQLITE_PRAGMAS = ["locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"];

/** The key of the last row, which is how many there are, and its value. */
export const ROWS_LAST = "SELECT id, value FROM records ORDER BY id DESC LIMIT 1";
