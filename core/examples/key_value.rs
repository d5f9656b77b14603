//! A map from keys to values that keeps nothing but its write-ahead log: each change is a record, the latest of a key
//! is its value, and a record without a value removes it.
//!
//! ```sh
//! cargo run --example key_value -- ./colours set sky blue
//! cargo run --example key_value -- ./colours get sky
//! cargo run --example key_value -- ./colours remove sky
//! cargo run --example key_value -- ./colours compact
//! ```

use std::{collections::BTreeMap, env, error::Error, path::Path, process::ExitCode};

use proglog::{Compaction, Log, NewRecord, Offset, Options};

/// The map in memory, and the log that brings it back.
struct Map {
    log: Log,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Map {
    /// Opens the log and goes through it once. What a crash interrupted is there as a whole, or not at all.
    fn open(directory: &Path) -> proglog::Result<Self> {
        let log = Log::open(directory, Options::new())?;
        let mut values = BTreeMap::new();
        let mut changes = log.scan(Offset(0)..);
        while let Some(change) = changes.next_borrowed() {
            let change = change?;
            let key = change.key().unwrap_or_default().to_vec();
            match change.value() {
                [] => values.remove(&key),
                value => values.insert(key, value.to_vec()),
            };
        }
        drop(changes);
        Ok(Self { log, values })
    }

    /// Sets several at once: all of them or none, whatever happens. On stable storage when it returns.
    fn set(&mut self, changes: &[(&str, &str)]) -> proglog::Result<()> {
        let records = changes
            .iter()
            .map(|(key, value)| NewRecord::new(*value).key(*key));
        self.log.append_batch(records)?;
        for (key, value) in changes {
            match value.as_bytes() {
                [] => self.values.remove(key.as_bytes()),
                value => self.values.insert(key.as_bytes().to_vec(), value.to_vec()),
            };
        }
        Ok(())
    }

    /// Removes the changes that later ones made obsolete, and gives how many they were. Those in the last segment stay.
    fn compact(&self) -> proglog::Result<u64> {
        Ok(self.log.compact(&Compaction::new())?.records_removed)
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice)
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [directory, command, rest @ ..] = &arguments[..] else {
        return Err(
            "usage: key_value DIRECTORY set KEY VALUE [KEY VALUE]… | get KEY | remove KEY | compact"
                .into(),
        );
    };
    let mut map = Map::open(Path::new(directory))?;
    match (*command, rest) {
        ("set", [_, ..]) if rest.len() % 2 == 0 => {
            let changes: Vec<_> = rest.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            map.set(&changes)?;
        }
        ("remove", [key]) => map.set(&[(key, "")])?,
        ("get", [key]) => match map.get(key) {
            Some(value) => println!("{}", String::from_utf8_lossy(value)),
            None => return Ok(ExitCode::FAILURE),
        },
        ("compact", []) => println!("removed {}", map.compact()?),
        _ => return Err("what is given to the command makes no sense".into()),
    }
    map.log.close()?;
    Ok(ExitCode::SUCCESS)
}
