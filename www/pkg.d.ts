// The module and its glue are made by the build, so there is no file here to take the types from.
declare module "*/pkg/proglog.js" {
  /** Loads and instantiates the module, and gives its raw exports. */
  export default function init(options: {
    module_or_path: URL | string | BufferSource | WebAssembly.Module;
  }): Promise<import("./log.js").Exports>;
}
