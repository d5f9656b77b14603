//! A thread that waits for what another appends: a program of README.md.

use std::{thread, time::Duration};

use proglog::{Log, Next, Offset, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Log::open("orders", Options::new())?;
    let mut orders = log.subscribe(Offset(0)); // all there are, and then those to come
    let reader = thread::spawn(move || {
        loop {
            match orders.next_timeout(Duration::from_secs(10)) {
                Ok(Next::Record(record)) => println!("{record:?}"),
                Ok(Next::NotYet) => println!("nothing for ten seconds"),
                Ok(Next::Ended) => break, // the log was closed
                Err(proglog::Error::OffsetOutOfRange { lowest, .. }) => orders.seek(lowest), // fell behind retention
                Err(e) => return println!("{e}"),
            }
        }
    });
    log.append("paid")?; // wakes the reader once it is on stable storage
    log.close()?;
    reader.join().unwrap();
    Ok(())
}
