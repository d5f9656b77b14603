//! The log as a wasm module.
//!
//! Built for wasm32-wasip1 it keeps logs in the directories its host preopens; built for
//! wasm32-unknown-unknown, in a browser's [origin private file system](opfs) where JavaScript opened a directory of
//! it, and in memory otherwise. Both export the same functions with the same
//! signatures, which [`abi`] describes; the latter also exports classes for JavaScript, `Log` and `Directory`. Natively
//! this crate is what a host needs to call either.

pub mod abi;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
mod bindgen;
mod buffers;
#[cfg(target_arch = "wasm32")]
#[allow(
    unsafe_code,
    reason = "an exported name is unsafe: it could be another library's"
)]
mod exports;
pub mod opfs;
mod session;
mod storage;

pub use buffers::Buffers;
pub use session::{Failure, Input, Session};
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub use storage::Directories;
pub use storage::{Memory, Storage};
