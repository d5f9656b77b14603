//! The modules that `proglog-wasm` is compiled to: one for WASI hosts, and one for browsers with the JavaScript that
//! loads it. Apart from the host, so that who packs them for npm need not compile wasmtime.
//!
//! ```
//! assert_eq!(&proglog_modules::guest_wasm()[..4], b"\0asm");
//! ```

/// The module for WASI hosts: wasm32-wasip1, with the exports of `proglog_wasm::abi`.
#[must_use]
pub fn guest_wasm() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/proglog.wasm"))
}

/// The module for browsers, with the same exports and wasm-bindgen's; [`browser_js`] loads it.
#[must_use]
pub fn browser_wasm() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/pkg/proglog_bg.wasm"))
}

/// The JavaScript that loads [`browser_wasm`], an ES module. It expects it beside itself as
/// `proglog_bg.wasm`.
#[must_use]
pub fn browser_js() -> &'static str {
    include_str!(concat!(env!("OUT_DIR"), "/pkg/proglog.js"))
}
