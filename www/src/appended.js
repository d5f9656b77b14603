// Where records stand that were appended before, by who sends them again.

import { decodeFrames } from "../frame.js";

/** @typedef {{ id: Uint8Array, sequence: bigint }} Producer */

/** What is read at a time, going back. */
const OFFSETS = 512n;
const READ_BYTES = 256 << 10;
/** What may still be sent again is no further from the end than that. */
const OFFSETS_MAX = 100_000n;

/**
 * The log itself tells of a producer's last few batches. Of a thousand appends that were under way when their leader
 * ended it may have all, so those are looked up here.
 */
export class Appended {
  #readBatch;
  #lowest;
  /** @type {Map<string, { offsets: Map<bigint, bigint>, reached: bigint | undefined, to: bigint }>} */
  #producers = new Map();

  /**
   * @param {(from: bigint, bytesMax: number) => Promise<Uint8Array>} readBatch
   * @param {bigint} lowest offset of the log
   */
  constructor(readBatch, lowest) {
    this.#readBatch = readBatch;
    this.#lowest = lowest;
  }

  /**
   * @param {Producer} producer
   * @param {bigint} lastOffset of that producer's records
   * @returns {Promise<bigint | undefined>} where its record of that sequence is, if it is there
   */
  async find({ id, sequence }, lastOffset) {
    const key = `${id}`;
    const known = this.#producers.get(key) ?? { offsets: new Map(), reached: undefined, to: lastOffset + 1n };
    this.#producers.set(key, known);
    const least = lastOffset > OFFSETS_MAX ? lastOffset - OFFSETS_MAX : 0n;
    const end = least > this.#lowest ? least : this.#lowest;
    // A producer's sequences increase.
    while (known.to > end && (known.reached === undefined || known.reached > sequence)) {
      const from = known.to - OFFSETS > end ? known.to - OFFSETS : end;
      for (let next = from; next < known.to; ) {
        const records = decodeFrames(await this.#readBatch(next, READ_BYTES));
        for (const { offset, producer } of records) {
          if (offset >= known.to || !producer || `${producer.id}` !== key) continue;
          known.offsets.set(producer.sequence, offset);
          if (known.reached === undefined || producer.sequence < known.reached) known.reached = producer.sequence;
        }
        const last = records.at(-1);
        if (!last) break;
        next = last.offset + 1n;
      }
      known.to = from;
    }
    return known.offsets.get(sequence);
  }
}
