//! A browser's `FileSystemSyncAccessHandle`, <https://fs.spec.whatwg.org/#api-filesystemsyncaccesshandle>; or what
//! else JavaScript gives that has its methods.

use std::{fmt, io};

use js_sys::{JsString, Object, Reflect};
use wasm_bindgen::{
    JsCast,
    prelude::{JsValue, wasm_bindgen},
};

use super::Handle;

#[wasm_bindgen]
extern "C" {
    /// An open file of the origin private file system.
    #[wasm_bindgen(typescript_type = "FileSystemSyncAccessHandle")]
    pub type SyncAccessHandle;

    #[wasm_bindgen(method, catch, js_name = getSize)]
    fn js_size(this: &SyncAccessHandle) -> Result<f64, JsValue>;

    #[wasm_bindgen(method, catch, js_name = read)]
    fn js_read(this: &SyncAccessHandle, buffer: &mut [u8], options: &At) -> Result<f64, JsValue>;

    #[wasm_bindgen(method, catch, js_name = write)]
    fn js_write(this: &SyncAccessHandle, bytes: &[u8], options: &At) -> Result<f64, JsValue>;

    #[wasm_bindgen(method, catch, js_name = truncate)]
    fn js_truncate(this: &SyncAccessHandle, bytes: f64) -> Result<(), JsValue>;

    #[wasm_bindgen(method, catch, js_name = flush)]
    fn js_flush(this: &SyncAccessHandle) -> Result<(), JsValue>;

    #[wasm_bindgen(method, catch, js_name = close)]
    fn js_close(this: &SyncAccessHandle) -> Result<(), JsValue>;

    /// Where to read or write.
    type At;

    #[wasm_bindgen(method, setter)]
    fn set_at(this: &At, position: f64);
}

thread_local! {
    /// One for all calls, none of which is under way during another.
    static AT: At = Object::new().unchecked_into();
}

impl fmt::Debug for SyncAccessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncAccessHandle")
    }
}

impl Handle for SyncAccessHandle {
    fn len(&self) -> io::Result<u64> {
        self.js_size().map(whole).map_err(failed)
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let asked = buffer.len();
        counted(at(position, |at| self.js_read(buffer, at))?, asked)
    }

    fn write(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        counted(at(position, |at| self.js_write(bytes, at))?, bytes.len())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.js_truncate(number(bytes)?).map_err(failed)
    }

    fn flush(&self) -> io::Result<()> {
        self.js_flush().map_err(failed)
    }

    fn close(&self) {
        // It has no error but that of a handle that is closed.
        let _ = self.js_close();
    }
}

fn at(position: u64, call: impl FnOnce(&At) -> Result<f64, JsValue>) -> io::Result<f64> {
    let position = number(position)?;
    AT.with(|at| {
        at.set_at(position);
        call(at).map_err(failed)
    })
}

/// How many bytes of those asked for were read or written. Chromium throws nothing where the quota ends within a write,
/// but gives the number of its error, which is negative, as if it had no sign.
fn counted(bytes: f64, asked: usize) -> io::Result<usize> {
    /// `base::File::FILE_ERROR_NO_SPACE`.
    const NO_SPACE: i32 = -8;
    let bytes = whole(bytes);
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= asked => Ok(bytes),
        _ if bytes == u64::from(NO_SPACE.cast_unsigned()) => Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            "the browser gives no more space",
        )),
        _ => Err(io::Error::other(format!(
            "the browser tells of {bytes} bytes and was asked for {asked}"
        ))),
    }
}

/// A number as JavaScript has it, which holds every integer up to 2^53.
fn number(number: u64) -> io::Result<f64> {
    if number > 1 << 53 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    #[allow(clippy::cast_precision_loss, reason = "it is no larger than 2^53")]
    Ok(number as f64)
}

/// What JavaScript counted.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a whole number, and what is none becomes the next one"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

fn failed(thrown: JsValue) -> io::Error {
    let text = |name: &str| {
        let text = Reflect::get(&thrown, &name.into()).ok()?;
        text.dyn_ref::<JsString>().map(String::from)
    };
    let name = text("name").unwrap_or_default();
    let kind = match name.as_str() {
        "QuotaExceededError" => io::ErrorKind::QuotaExceeded,
        "NoModificationAllowedError" => io::ErrorKind::ResourceBusy,
        _ => io::ErrorKind::Other,
    };
    let message = text("message").unwrap_or_default();
    io::Error::new(kind, format!("{name}: {message}"))
}
