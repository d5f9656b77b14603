//! Writes the browser's module and the JavaScript that loads it into a directory, for the npm package:
//! `cargo run --package proglog-host --example browser_package -- DIRECTORY`

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("name a directory to write to"))?;
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("proglog.js"), proglog_host::browser_js())?;
    fs::write(
        directory.join("proglog_bg.wasm"),
        proglog_host::browser_wasm(),
    )
}
