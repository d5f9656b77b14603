//! How much a repair reads.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use proglog::{Access, Backend, BackendFile, Log, MemoryBackend, Offset, Options, Result};

/// Counts how many bytes are read of each file.
#[derive(Clone, Debug)]
struct Counting {
    files: MemoryBackend,
    read_bytes: Arc<Mutex<BTreeMap<String, u64>>>,
}

#[derive(Debug)]
struct CountingFile {
    name: String,
    file: <MemoryBackend as Backend>::File,
    counting: Counting,
}

impl Backend for Counting {
    type File = CountingFile;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<CountingFile> {
        Ok(CountingFile {
            name: name.to_owned(),
            file: self.files.open(name, access)?,
            counting: self.clone(),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }
}

impl BackendFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, position)?;
        let mut read_bytes = self.counting.read_bytes.lock().unwrap();
        *read_bytes.entry(self.name.clone()).or_default() += read as u64;
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(bytes, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[test]
fn what_is_sound_is_looked_at_once() -> Result<()> {
    let options = || Options::new().segment_bytes_max(200_000);
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    for _ in 0..1000 {
        log.append(&[7; 1000])?;
    }
    let bases: Vec<Offset> = log.segments().iter().map(|segment| segment.base).collect();
    log.close()?;
    let sealed: Vec<String> = bases.iter().map(|base| format!("{base}.store")).collect();
    let [first, damaged, _, _, ..] = &sealed[..] else {
        panic!("{bases:?}");
    };
    for is_damaged in [false, true] {
        if is_damaged {
            let mut bytes = files.get(damaged).unwrap();
            bytes[5000] ^= 1;
            files.insert(damaged, bytes);
        }
        let counting = Counting {
            files: files.clone(),
            read_bytes: Arc::default(),
        };
        let repair = Log::repair_on(counting.clone(), options())?;
        assert_eq!(repair.rewritten.len(), usize::from(is_damaged));
        let read_bytes = counting.read_bytes.lock().unwrap();
        let sound = sealed[..sealed.len() - 1]
            .iter()
            .filter(|&name| !is_damaged || name != damaged);
        for name in sound {
            let bytes = files.get(name).unwrap().len() as u64;
            let read = read_bytes[name];
            assert!(
                (bytes..bytes * 3 / 2).contains(&read),
                "{read} of {bytes} bytes of {name}, {is_damaged}"
            );
        }
        assert!(read_bytes.contains_key(first));
    }
    Ok(())
}
