//! The same log in a sandbox: the second program of README.md.

use proglog::{NewRecord, Options};
use proglog_host::{Engine, Mode, WasmLog};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = WasmLog::open("orders", Mode::Write, Options::new())?;
    let offsets = log.append_batch(&[NewRecord::new("paid").key("order-7")])?;
    println!("{:?}", log.read(offsets.start)?);
    Ok(())
}
