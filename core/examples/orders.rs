//! A log of orders: the first program of README.md.

use proglog::{Log, NewRecord, Offset, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Log::open("orders", Options::new())?;
    let offset = log.append(NewRecord::new("paid").key("order-7"))?; // on stable storage when it returns
    println!("{:?}", log.read(offset)?);

    log.append_batch(["picked", "packed", "sent"])?; // all or nothing, also in a crash
    for record in log.scan(Offset(1)..) {
        println!("{:?}", record?); // to keep; Scan::next_borrowed is faster where they need not be
    }
    log.close()?;
    Ok(())
}
