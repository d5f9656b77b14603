// What opening, verifying and compacting a log tell of it.

import { camelCase } from "./error.js";

/** @typedef {{ segments: SegmentReport[] }} Report of the segments looked at, lowest first */

/**
 * @typedef {object} SegmentReport
 * @property {bigint} base its first offset, which names its files
 * @property {bigint} next the offset after its last record
 * @property {number} storeBytes
 * @property {number} records how many sound ones
 * @property {number} uncheckedRecords how many of them have no checksum: the book's program wrote them
 * @property {"sound" | "unfinished" | "missing" | "disagrees"} index how it was found; it is derived, and nothing is lost by it
 * @property {TornTail | null} tornTail what an unclean stop left, none of which was acknowledged
 * @property {Damage[]} damage
 * @property {Gaps} gaps the offsets that are not there, and are not to be
 */

/**
 * @typedef {object} TornTail
 * @property {bigint} segment
 * @property {number} position
 * @property {number} bytes
 * @property {number} records how many whole ones in it were dropped
 * @property {boolean} zeros whether it is space that was never written
 * @property {boolean} sealed whether its bytes are left where they are
 */

/**
 * @typedef {object} Damage
 * @property {bigint} segment
 * @property {bigint} first the first offset lost
 * @property {bigint} last
 * @property {number} position
 * @property {number} bytes 0 where they are missing
 * @property {"length" | "checksum" | "malformed" | "misplaced" | "missing"} reason
 * @property {boolean} [bytesOnly] whether no record is lost
 */

/**
 * @typedef {object} Gaps
 * @property {number} compacted
 * @property {number} skipped
 * @property {number} lost
 * @property {{ first: bigint, last: bigint, cause: string | number }[]} lostStretches
 * @property {number} other
 */

/** @typedef {{ base: bigint, next: bigint, storeBytes: number }} SegmentSummary */

/**
 * @typedef {object} Compacted
 * @property {number} recordsRemoved
 * @property {number} bytesRemoved
 * @property {number} storeBytesBefore
 * @property {number} storeBytesAfter
 * @property {{ base: bigint, recordsRemoved: number, storeBytesBefore: number, storeBytesAfter: number }[]} segments
 * @property {{ base: bigint, reason: string }[]} leftAlone
 */

/** The members that are offsets, which may be beyond what a number holds. */
const OFFSETS = ["base", "next", "segment", "first", "last"];
/** One of them: quotes within a text are escaped. */
const OFFSET = new RegExp(`([{,]"(?:${OFFSETS.join("|")})":)(\\d+)`, "g");

/**
 * What the module wrote as JSON, with `bigint`s for offsets and the names of JavaScript.
 *
 * @param {string} json
 * @returns {any}
 */
export function reported(json) {
  return JSON.parse(json.replace(OFFSET, '$1"$2"'), (name, value) => {
    if (OFFSETS.includes(name)) return BigInt(value);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, value]) => [camelCase(name), value]));
  });
}
