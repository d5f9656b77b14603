// What is sent of a log in one go: its frames as they stand in the stores, in whole batches.

import { decodeFrame, LENGTH_BYTES } from "../frame.js";

/**
 * @typedef {object} Shipment
 * @property {Uint8Array} frames whole batches; none if there is nothing to send yet
 * @property {number} batches how many
 * @property {bigint} next the offset after them
 * @property {bigint | undefined} last the last record's offset, if there is one
 * @property {boolean} isLast whether there is no more of this source, now or ever
 */

/**
 * The frames of whole batches at the beginning of these. Where it cannot be told yet whether a batch has more records, it
 * is left for the next time.
 *
 * @param {Uint8Array} frames
 * @param {bigint} from the first one's offset
 * @param {bigint} end the offset before which they end
 * @returns {Omit<Shipment, "isLast"> & { reached: bigint }} and the offset after all of the frames
 */
export function wholeBatches(frames, from, end) {
  let whole = { bytes: 0, batches: 0, next: from, last: /** @type {bigint | undefined} */ (undefined) };
  let batches = 0;
  let reached = from;
  let last = whole.last;
  // Of the batch that began.
  let batchLast = -1n;
  const view = new DataView(frames.buffer, frames.byteOffset, frames.byteLength);
  for (let at = 0; at < frames.length; ) {
    const bytes = LENGTH_BYTES + Number(view.getBigUint64(at));
    const { offset, batchRemaining, isGap } = decodeFrame(frames.subarray(at, at + bytes));
    if (offset >= end) {
      reached = end;
      break;
    }
    reached = offset + 1n;
    if (!isGap) {
      if (offset > batchLast) {
        // The one before has no more: what followed is not there.
        if (last !== undefined) whole = { bytes: at, batches, next: offset, last };
        batches += 1;
        batchLast = offset + BigInt(batchRemaining);
      }
      last = offset;
    }
    at += bytes;
    if (offset >= batchLast) whole = { bytes: at, batches, next: offset + 1n, last };
  }
  const { bytes, ...rest } = whole;
  return { frames: frames.slice(0, bytes), ...rest, reached };
}
