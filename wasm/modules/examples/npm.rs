//! Writes the modules of the npm package into a directory, the browser's with the JavaScript that loads it:
//! `cargo run --package proglog-modules --example npm -- DIRECTORY`

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("name a directory to write to"))?;
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("proglog.js"), proglog_modules::browser_js())?;
    fs::write(
        directory.join("proglog_bg.wasm"),
        proglog_modules::browser_wasm(),
    )?;
    // For Node.js, which has files as a host has.
    fs::write(
        directory.join("proglog_wasi.wasm"),
        proglog_modules::guest_wasm(),
    )
}
