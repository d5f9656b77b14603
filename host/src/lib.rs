//! The log outside its core: in a wasm module under wasmtime, on the command line, and over HTTP.
//!
//! [`WasmLog`] runs the log in a sandbox that sees one directory and nothing else; [`Engine`] is what it
//! and the native [`proglog::Log`] have in common.
//!
//! ```
//! use proglog::{NewRecord, Offset, Options};
//! use proglog_host::{EngineKind, Mode};
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! let log = proglog_host::open(EngineKind::Wasm, directory, Mode::Write, Options::new())?;
//! log.append_batch(&[NewRecord::new("hello"), NewRecord::new("world")])?;
//! assert_eq!(log.read(Offset(1))?.value(), b"world");
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod engine;
mod error;
pub mod http;
mod native;
mod page;
mod wasm_log;

pub use engine::{Engine, EngineKind, Mode, Records, Subscription, open};
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use proglog_modules::{browser_js, browser_wasm, guest_wasm};
pub use proglog_wasm::abi::Conflict;
pub use wasm_log::{Limits, WasmLog};
