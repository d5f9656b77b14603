// What the build makes of the crate `proglog-wasm`, as far as the package uses it.

/** A log's files; see wasm/src/bindgen/directory.rs. */
export class Directory {
  constructor(name: string, copies: FileSystemSyncAccessHandle[], numbers: Uint32Array);
  readonly spares: number;
  nextNumber(): number;
  addSpare(number: number, handle: FileSystemSyncAccessHandle): void;
  takeWanted(): Uint32Array;
  takeLackedSpare(): boolean;
  closedFiles(): Uint32Array;
  addOpen(number: number, handle: FileSystemSyncAccessHandle): void;
  closeLeastUsed(openMax: number): void;
  takeUnneeded(): Uint32Array;
  names(): string[];
  fileBytes(name: string): number;
  readFile(name: string, position: number, bytes: number): Uint8Array<ArrayBuffer>;
  importFile(name: string, bytes: Uint8Array, position: number): void;
  finishImport(): void;
  close(): void;
  free(): void;
}

/** An open log; see wasm/src/bindgen.rs. */
export class Log {
  static open(name: string, options: object): Log;
  appendEntries(request: Uint8Array, promise: number, expected: bigint): bigint;
  producerLast(id: Uint8Array): BigUint64Array;
  readFrame(offset: bigint): Uint8Array<ArrayBuffer>;
  readBatch(from: bigint, bytesMax: number): Uint8Array<ArrayBuffer>;
  locate(offset: bigint): BigUint64Array;
  truncateBefore(offset: bigint): void;
  truncateAfter(offset: bigint): void;
  reset(): void;
  compact(options: object): string;
  enforceRetention(options: object): void;
  sync(): void;
  close(): void;
  readonly lowestOffset: bigint;
  readonly nextOffset: bigint;
  readonly durableOffset: bigint;
  recoveryReport(): string;
  verify(): string;
  segments(): string;
  free(): void;
}
