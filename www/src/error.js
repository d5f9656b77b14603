/**
 * Why something failed. Each is something that a caller would act on in its own way.
 *
 * @typedef {"InvalidArgument" | "OffsetOutOfRange" | "Corrupt" | "Poisoned" | "Locked" | "ReadOnly" | "Closed"
 *   | "TooLarge" | "IndexFull" | "Io" | "OutOfMemory" | "Conflict" | "SequenceConflict" | "Gap" | "StorageFull"
 *   | "Unsupported" | "Unavailable" | "Refused"} Kind
 */

/**
 * What stood in the way of an append: the next offset was another than expected, or a producer's last record has a
 * sequence that is not lower.
 *
 * @typedef {{ expected: bigint, nextOffset: bigint } | { lastSequence: bigint, lastOffset: bigint }} Conflict
 */

/** An option as the core calls it, whose messages tell which to raise. */
const CORE_OPTION = /\b((segment|index|record|memory)_bytes_max|initial_offset|tombstones_kept_ms)\b/g;

/** What cannot be done. Decide by `kind`; the message is for people, and says what to do. */
export class ProglogError extends Error {
  /**
   * @param {Kind} kind
   * @param {string} message
   * @param {Conflict} [conflict]
   */
  constructor(kind, message, conflict) {
    super(message.replace(CORE_OPTION, camelCase));
    this.name = "ProglogError";
    this.kind = kind;
    /** With the kinds "Conflict" and "SequenceConflict". */
    this.conflict = conflict;
  }
}

/**
 * An error as it goes through a message, which would make a plain one of it.
 *
 * @typedef {{ kind: Kind, message: string, conflict?: Conflict | undefined }} SentError
 */

/**
 * @param {unknown} error
 * @returns {SentError}
 */
export function sendError(error) {
  const { kind, message, conflict } = /** @type {{ kind?: Kind, message?: string, conflict?: unknown }} */ (error ?? {});
  /** @type {SentError} */
  const sent = { kind: kind ?? "Io", message: message ?? `${error}` };
  if (Array.isArray(conflict)) {
    const [first, second] = conflict;
    sent.conflict =
      kind === "Conflict" ? { expected: first, nextOffset: second } : { lastSequence: first, lastOffset: second };
  } else if (conflict) {
    sent.conflict = /** @type {Conflict} */ (conflict);
  }
  return sent;
}

/** @param {SentError} sent */
export function receiveError({ kind, message, conflict }) {
  return new ProglogError(kind, message, conflict);
}

/** A name as JavaScript has it. @param {string} name of the core's */
export function camelCase(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}
