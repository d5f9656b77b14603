// One writer a directory: the lock that the native log takes, so that the two exclude each other, and that the kernel
// releases however a process ends. Node has no call for it; a program that is given the open directory takes it for both,
// as a lock of flock is that of the open file, and not of the process.

import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { join } from "node:path";

import { ProglogError } from "../error.js";

/** The number by which the program has the directory. */
const GIVEN = 3;
/** What there is on nearly every Linux, and on macOS. They end with 0, and with 1 if another has the lock. */
const PROGRAMS = [
  ["flock", "-x", "-n", `${GIVEN}`],
  ["perl", "-e", `open(my $directory, "<&=", ${GIVEN}) or exit 2; exit(flock($directory, 6) ? 0 : 1)`],
];
/** libuv's `UV_FS_O_EXLOCK`: no one else opens the file. */
const WINDOWS_ALONE = 0x1000_0000;

/**
 * Takes the lock of an existing directory, until the file is closed that this gives.
 *
 * @param {string} directory
 * @returns {number}
 * @throws {ProglogError} "Locked" if another has it, "Unsupported" if it cannot be taken here
 */
export function lock(directory) {
  if (process.platform === "win32") return lockOnWindows(directory);
  // Anything else would be opened too, and a pipe would wait for a writer.
  const fd = openDirectory(directory);
  for (const [program = "", ...args] of PROGRAMS) {
    const { status } = spawnSync(program, args, { stdio: ["ignore", "ignore", "ignore", fd] });
    if (status === 0) return fd;
    if (status === 1) {
      closeSync(fd);
      throw locked(directory);
    }
  }
  closeSync(fd);
  throw new ProglogError(
    "Unsupported",
    `the directory ${directory} cannot be locked, for there is neither a program \`flock\` (of util-linux) nor \`perl\`; ` +
      "install one, or open it with { lock: false } where nothing else ever opens it",
  );
}

/** @param {string} directory */
function openDirectory(directory) {
  try {
    return openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ENOTDIR") throw error;
    throw new ProglogError("Io", `${directory} is no directory, and a log is one; give another path, or move it away`);
  }
}

/**
 * A directory cannot be locked there, so a file in it is, which stays.
 *
 * @param {string} directory
 */
function lockOnWindows(directory) {
  try {
    return openSync(join(directory, "proglog.lock"), constants.O_RDWR | constants.O_CREAT | WINDOWS_ALONE);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "EBUSY") throw locked(directory);
    throw error;
  }
}

/** @param {string} directory */
function locked(directory) {
  const message = `the log ${directory} is open for writing, in another process or in this one; close it there`;
  return new ProglogError("Locked", message);
}
