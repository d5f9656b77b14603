//! An outbox: orders are taken into a log of their own at once, and each is shipped to another log once, whenever this is
//! stopped and however often it is begun again.
//!
//! The offset of an order in the outbox is its sequence in the other log, whose records tell which one came last. What
//! was shipped is removed from the outbox, so that it does not come again where the other log has forgotten it, after a
//! million records of others.
//!
//! ```sh
//! cargo run --example outbox -- ./outbox take "2 apples"
//! cargo run --example outbox -- ./outbox ship ./orders
//! ```

use std::{env, error::Error};

use proglog::{Log, NewRecord, Offset, Options};

/// Whose records the shipped ones are.
const PRODUCER: &str = "outbox";

/// Takes an order: it will be shipped, for it is on stable storage when this returns.
fn take(outbox: &Log, order: &str) -> proglog::Result<Offset> {
    outbox.append(order)
}

/// Ships the orders that were not shipped yet, and gives how many they were.
fn ship(outbox: &Log, to: &Log) -> proglog::Result<u64> {
    let next = match to.producer_last(PRODUCER)? {
        Some(last) => Offset(last.sequence + 1),
        None => outbox.lowest_offset(),
    };
    let mut shipped = 0;
    let mut orders = outbox.scan(next..);
    while let Some(order) = orders.next_borrowed() {
        let order = order?;
        // Stopped before this returns, it is there or not, and the next run asks.
        to.append(NewRecord::new(order.value()).producer(PRODUCER, order.offset().0))?;
        shipped += 1;
    }
    drop(orders);
    // Offsets go on where they were.
    outbox.truncate_before(outbox.next_offset())?;
    Ok(shipped)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [directory, command, what] = arguments[..] else {
        return Err("usage: outbox DIRECTORY take ORDER | ship DIRECTORY".into());
    };
    let outbox = Log::open(directory, Options::new())?;
    match command {
        "take" => println!("took order {}", take(&outbox, what)?),
        "ship" => {
            let to = Log::open(what, Options::new())?;
            println!("shipped {}", ship(&outbox, &to)?);
            to.close()?;
        }
        _ => return Err("the command is take or ship".into()),
    }
    outbox.close()?;
    Ok(())
}
