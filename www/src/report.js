// What opening, verifying and compacting a log tell of it, as the module writes it: types alone.

/** @typedef {{ segments: SegmentReport[] }} Report of the segments looked at, lowest first */

/**
 * @typedef {object} SegmentReport
 * @property {number} base its first offset, which names its files
 * @property {number} next the offset after its last record
 * @property {number} store_bytes
 * @property {number} records how many sound ones
 * @property {number} unchecked_records how many of them have no checksum: the book's program wrote them
 * @property {"sound" | "unfinished" | "missing" | "disagrees"} index how it was found; it is derived, and nothing is lost by it
 * @property {TornTail | null} torn_tail what an unclean stop left, none of which was acknowledged
 * @property {Damage[]} damage
 * @property {Gaps} gaps the offsets that are not there, and are not to be
 */

/**
 * @typedef {object} TornTail
 * @property {number} segment
 * @property {number} position
 * @property {number} bytes
 * @property {number} records how many whole ones in it were dropped
 * @property {boolean} zeros whether it is space that was never written
 * @property {boolean} sealed whether its bytes are left where they are
 */

/**
 * @typedef {object} Damage
 * @property {number} segment
 * @property {number} first the first offset lost
 * @property {number} last
 * @property {number} position
 * @property {number} bytes 0 where they are missing
 * @property {"length" | "checksum" | "malformed" | "misplaced" | "missing"} reason
 * @property {boolean} [bytes_only] whether no record is lost
 */

/**
 * @typedef {object} Gaps
 * @property {number} compacted
 * @property {number} skipped
 * @property {number} lost
 * @property {{ first: number, last: number, cause: string | number }[]} lost_stretches
 * @property {number} other
 */

/** @typedef {{ base: number, next: number, store_bytes: number }} SegmentSummary */

/**
 * @typedef {object} Compacted
 * @property {number} records_removed
 * @property {number} bytes_removed
 * @property {number} store_bytes_before
 * @property {number} store_bytes_after
 * @property {{ base: number, records_removed: number, store_bytes_before: number, store_bytes_after: number }[]} segments
 * @property {{ base: number, reason: string }[]} left_alone
 */

export {};
