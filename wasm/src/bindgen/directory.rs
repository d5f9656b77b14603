//! The class `Directory` for JavaScript: a log's files in the origin private file system.

use std::io;

use js_sys::Uint8Array;
use proglog::{Access, Backend, BackendFile};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use super::{Result, invalid};
use crate::{
    Failure,
    abi::{self, Status},
    exports::with_session,
    opfs::{COPIES, Opfs, SyncAccessHandle},
};

/// The files of a log, each of which is one of the browser's that has a number. As long as there is one, the log of its
/// name is opened in it. Files are opened, made and deleted by JavaScript, between calls; what fails throws as the class
/// `Log` does.
#[wasm_bindgen]
pub struct Directory {
    name: String,
    files: Opfs<SyncAccessHandle>,
}

#[wasm_bindgen]
impl Directory {
    /// The directory whose manifest is in these three files, which are open. `numbers` are those of all others.
    ///
    /// # Errors
    ///
    /// The kind "Corrupt" where no copy of the manifest is whole, "Locked" where there is one of this name already.
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str, copies: Vec<SyncAccessHandle>, numbers: &[u32]) -> Result<Directory> {
        let copies: [SyncAccessHandle; COPIES] = copies
            .try_into()
            .map_err(|_| JsValue::from(invalid("a manifest has three copies")))?;
        let files = Opfs::open(name, copies, numbers).map_err(|e| failed(name, &e))?;
        let shared = files.clone();
        let added = with_session(|session| session.storage().add(name, shared));
        if added != Some(true) {
            let message = format!("the log \"{name}\" is open here already; close that one");
            return Err(JsValue::from(Failure::new(Status::Locked, message)));
        }
        let name = name.to_owned();
        Ok(Self { name, files })
    }

    /// How many files can be made before others have to be added.
    #[wasm_bindgen(getter)]
    pub fn spares(&self) -> usize {
        self.files.spares()
    }

    /// The number of a file to be made, and added as a spare.
    ///
    /// # Errors
    ///
    /// None is left.
    #[wasm_bindgen(js_name = nextNumber)]
    pub fn next_number(&self) -> Result<u32> {
        self.files.next_number().map_err(|e| self.failed(&e))
    }

    /// Adds a file that can be given a name. What it holds goes.
    ///
    /// # Errors
    ///
    /// The browser's.
    #[wasm_bindgen(js_name = addSpare)]
    pub fn add_spare(&self, number: u32, handle: SyncAccessHandle) -> Result<()> {
        let added = self.files.add_spare(number, handle);
        added.map_err(|e| self.failed(&e))
    }

    /// The files that calls needed and that were not open, since this was last called.
    #[wasm_bindgen(js_name = takeWanted)]
    pub fn take_wanted(&self) -> Vec<u32> {
        self.files.take_wanted()
    }

    /// Whether a call needed a spare and there was none, since this was last called.
    #[wasm_bindgen(js_name = takeLackedSpare)]
    pub fn take_lacked_spare(&self) -> bool {
        self.files.take_lacked_spare()
    }

    /// The files that are not open.
    #[wasm_bindgen(js_name = closedFiles)]
    pub fn closed_files(&self) -> Vec<u32> {
        self.files.closed_files()
    }

    /// Adds a file that was opened.
    #[wasm_bindgen(js_name = addOpen)]
    pub fn add_open(&self, number: u32, handle: SyncAccessHandle) {
        self.files.add_open(number, handle);
    }

    /// Closes files that no one reads until so many are open.
    #[wasm_bindgen(js_name = closeLeastUsed)]
    pub fn close_least_used(&self, open_max: usize) {
        self.files.close_least_used(open_max);
    }

    /// The files that are to be deleted.
    #[wasm_bindgen(js_name = takeUnneeded)]
    pub fn take_unneeded(&self) -> Vec<u32> {
        self.files.take_unneeded()
    }

    /// The names of the log's files.
    ///
    /// # Errors
    ///
    /// None.
    pub fn names(&self) -> Result<Vec<String>> {
        self.files.list().map_err(|e| self.failed(&e))
    }

    /// How many bytes a file has, which is open.
    ///
    /// # Errors
    ///
    /// It is not open, or the browser's.
    #[wasm_bindgen(js_name = fileBytes)]
    pub fn file_bytes(&self, name: &str) -> Result<f64> {
        let bytes = self.files.file_bytes(name).map_err(|e| self.failed(&e))?;
        #[allow(
            clippy::cast_precision_loss,
            reason = "a browser has no file of 2^53 bytes"
        )]
        Ok(bytes as f64)
    }

    /// Bytes of a file, which is open: fewer only at its end.
    ///
    /// # Errors
    ///
    /// It is not open, or the browser's.
    #[wasm_bindgen(js_name = readFile)]
    pub fn read_file(&self, name: &str, position: f64, bytes: usize) -> Result<Uint8Array> {
        let position = super::whole("position", position)?.cast_unsigned();
        let read = || -> io::Result<Uint8Array> {
            let file = self.files.open(name, Access::Read)?;
            let left = usize::try_from(file.len()?.saturating_sub(position)).unwrap_or(usize::MAX);
            let mut buffer = vec![0; bytes.min(left)];
            let mut read = 0;
            while read < buffer.len() {
                match file.read_at(&mut buffer[read..], position + read as u64)? {
                    0 => break,
                    part => read += part,
                }
            }
            Ok(Uint8Array::from(&buffer[..read]))
        };
        read().map_err(|e| self.failed(&e))
    }

    /// Writes to a file that gets its name with others, by `finishImport`.
    ///
    /// # Errors
    ///
    /// There is no spare, or one of this name, or the browser's.
    #[wasm_bindgen(js_name = importFile)]
    pub fn import_file(&self, name: &str, bytes: &[u8], position: f64) -> Result<()> {
        let position = super::whole("position", position)?.cast_unsigned();
        let file = self.files.import(name);
        let written = file.and_then(|file| file.write_at(bytes, position));
        written.map_err(|e| self.failed(&e))
    }

    /// Gives the files that were imported their names, all or none, durably.
    ///
    /// # Errors
    ///
    /// The browser's.
    #[wasm_bindgen(js_name = finishImport)]
    pub fn finish_import(&self) -> Result<()> {
        self.files.finish_import().map_err(|e| self.failed(&e))
    }

    /// Closes all files. The log is to be closed before.
    pub fn close(&self) {
        with_session(|session| session.storage().remove(&self.name));
        self.files.close();
    }

    fn failed(&self, error: &io::Error) -> JsValue {
        failed(&self.name, error)
    }
}

fn failed(name: &str, error: &io::Error) -> JsValue {
    let status = match error.kind() {
        io::ErrorKind::InvalidData => Status::Corrupt,
        io::ErrorKind::InvalidInput => Status::InvalidArgument,
        _ if abi::is_for_want_of_space(error) => Status::StorageFull,
        _ => Status::Io,
    };
    let message = format!("the files of \"{name}\": {error}");
    JsValue::from(Failure::new(status, message))
}
