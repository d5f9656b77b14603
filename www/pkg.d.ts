// The module and its glue are made by the build, so there is no file here to take the types from.
declare module "*/dist/proglog.js" {
  export const Directory: typeof import("./src/module.js").Directory;
  export const Log: typeof import("./src/module.js").Log;
  export default function init(options?: { module_or_path?: URL | string | Response | undefined }): Promise<unknown>;
}

// Of dedicated workers alone, so that the page's types do not have them.

/** https://fs.spec.whatwg.org/#api-filesystemsyncaccesshandle */
interface FileSystemSyncAccessHandle {
  read(buffer: Uint8Array, options: { at: number }): number;
  write(buffer: Uint8Array, options: { at: number }): number;
  truncate(bytes: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<FileSystemSyncAccessHandle>;
}

// What build.js puts into dist/inline.js.
declare module "proglog:*" {
  const text: string;
  export default text;
}
