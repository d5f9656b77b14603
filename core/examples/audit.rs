//! An audit log: each record carries the SHA-256 of the one before it, so that whoever rewrites the past has to
//! rewrite everything after it, and the last hash, told to someone else, proves all.
//!
//! The log's own checksums find what breaks; the chain finds what someone changed and gave a new checksum.
//!
//! ```sh
//! cargo run --example audit -- ./audit add "alice read file 7"
//! cargo run --example audit -- ./audit check
//! ```

use std::{env, error::Error, path::Path};

use proglog::{Header, Log, NewRecord, Offset, Options, Record};
use sha2::{Digest, Sha256};

/// The header that holds the hash of the record before.
const PREVIOUS: &str = "previous-sha256";

type Hash = [u8; 32];

/// Of the whole frame: value, offset, timestamp and the link to the record before it.
fn hash<F: AsRef<[u8]>>(record: &Record<F>) -> Hash {
    Sha256::digest(record.frame()).into()
}

/// Appends an entry. There is one writer a log, so no other entry can come between the hash and the record.
fn add(log: &Log, entry: &str) -> proglog::Result<Hash> {
    let previous = match log.next_offset().0.checked_sub(1) {
        Some(last) => hash(&log.read(Offset(last))?),
        None => Hash::default(),
    };
    let headers = [Header::new(PREVIOUS, previous.to_vec())];
    let offset = log.append(NewRecord::new(entry).headers(&headers))?;
    Ok(hash(&log.read(offset)?))
}

/// Follows the chain from the first record to the last, and gives the last one's hash.
fn check(log: &Log) -> Result<Hash, Box<dyn Error>> {
    let mut expected = Hash::default();
    let mut entries = log.scan(Offset(0)..);
    while let Some(entry) = entries.next_borrowed() {
        let entry = entry?;
        let linked = entry
            .headers()
            .any(|(name, value)| name == PREVIOUS && value == expected);
        if !linked {
            return Err(format!(
                "entry {} does not follow on the one before it",
                entry.offset()
            )
            .into());
        }
        expected = hash(&entry);
    }
    Ok(expected)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let last = match arguments[..] {
        [directory, "add", entry] => {
            let log = Log::open(directory, Options::new())?;
            let last = add(&log, entry)?;
            log.close()?;
            last
        }
        [directory, "check"] => check(&Log::open_read_only(Path::new(directory), Options::new())?)?,
        _ => return Err("usage: audit DIRECTORY add ENTRY | check".into()),
    };
    println!("{}", last.map(|byte| format!("{byte:02x}")).concat());
    Ok(())
}
