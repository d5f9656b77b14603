//! Gives a program a log that runs in a sandbox: it sees this one directory, and nothing else of the machine.
//!
//! ```sh
//! cargo run --example embed -- ./events "plugin started"
//! ```

use std::{env, error::Error};

use proglog::{NewRecord, Options};
use proglog_host::{Engine, Mode, WasmLog};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(directory), Some(event)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed DIRECTORY EVENT".into());
    };
    let log = WasmLog::open(directory, Mode::Write, Options::new())?;
    log.append_batch(&[NewRecord::new(&event)])?; // on stable storage when it returns
    for record in log.scan(log.lowest_offset()?) {
        let record = record?;
        let value = String::from_utf8_lossy(record.value());
        println!("{} {value}", record.offset());
    }
    Box::new(log).close()?;
    Ok(())
}
