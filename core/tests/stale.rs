//! Readers that looked at the log just before it was truncated, and go on just after.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use proglog::{
    Access, Backend, BackendFile, Durability, Error, Log, MemoryBackend, Offset, Options,
};

/// Ten records of a segment.
fn options() -> Options {
    Options::new().index_bytes_max(12 * 10)
}

/// Stops threads, by their names, where they do something to a file, until they may go on.
#[derive(Clone, Default)]
struct Gates {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    /// Thread and operation that is to stop.
    closed: BTreeSet<(String, &'static str)>,
    /// Those that did.
    stopped: BTreeSet<(String, &'static str)>,
    /// Thread, operation and file of all there were.
    seen: Vec<(String, &'static str, String)>,
}

impl Gates {
    fn pass(&self, operation: &'static str, file: &str) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        state
            .seen
            .push((thread.clone(), operation, file.to_owned()));
        let gate = (thread, operation);
        while state.closed.contains(&gate) {
            state.stopped.insert(gate.clone());
            changed.notify_all();
            state = changed.wait(state).unwrap();
        }
    }

    fn close(&self, thread: &str, operation: &'static str) {
        let mut state = self.shared.0.lock().unwrap();
        state.closed.insert((thread.to_owned(), operation));
    }

    /// Lets a thread go on, once it stopped there.
    fn open(&self, thread: &str, operation: &'static str) {
        let gate = (thread.to_owned(), operation);
        self.shared.0.lock().unwrap().closed.remove(&gate);
        self.shared.1.notify_all();
    }

    fn wait_for(&self, thread: &str, operation: &'static str) {
        let (state, changed) = &*self.shared;
        let gate = (thread.to_owned(), operation);
        let state = state.lock().unwrap();
        let wait = Duration::from_secs(10);
        let (_state, waited) = changed
            .wait_timeout_while(state, wait, |state| !state.stopped.contains(&gate))
            .unwrap();
        assert!(!waited.timed_out(), "{gate:?}");
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gates")
    }
}

/// A directory whose files are gated.
#[derive(Debug)]
struct Gated {
    files: MemoryBackend,
    gates: Gates,
}

#[derive(Debug)]
struct GatedFile {
    file: <MemoryBackend as Backend>::File,
    name: String,
    gates: Gates,
}

impl Backend for Gated {
    type File = GatedFile;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<GatedFile> {
        let operation = match access {
            Access::Read => "open to read",
            _ => "open to write",
        };
        self.gates.pass(operation, name);
        Ok(GatedFile {
            file: self.files.open(name, access)?,
            name: name.to_owned(),
            gates: self.gates.clone(),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.gates.pass("remove", name);
        self.files.remove(name)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.gates.pass("cut", name);
        self.files.cut(name, bytes)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }
}

impl BackendFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.gates.pass("write", &self.name);
        self.file.write_at(bytes, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.gates.pass("set_len", &self.name);
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.gates.pass("sync", &self.name);
        self.file.sync()
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.file.is_removed()
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn_scoped(scope, run).unwrap()
}

/// A log of `records` records that was closed, in memory.
fn closed(records: u64) -> MemoryBackend {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options()).unwrap();
    for n in 0..records {
        log.append_with(&format!("old {n}"), Durability::Written)
            .unwrap();
    }
    log.close().unwrap();
    files
}

/// A segment that was sealed when the reader looked is the active one when it is opened: what stands there and was
/// not shown yet is not to be read, and its files are the appender's to write.
#[test]
fn a_segment_that_a_truncation_made_active_is_not_opened_as_a_sealed_one() {
    let gates = Gates::default();
    let backend = Gated {
        files: closed(30),
        gates: gates.clone(),
    };
    let log = Log::open_on(backend, options()).unwrap();
    thread::scope(|scope| {
        gates.close("truncates", "remove");
        let truncates = spawn(scope, "truncates", || log.truncate_after(Offset(1)));
        gates.wait_for("truncates", "remove");
        gates.close("reads", "open to read");
        let reads = spawn(scope, "reads", || log.read(Offset(3)));
        // It waits for the truncation to be over.
        thread::sleep(Duration::from_millis(200));
        gates.open("truncates", "remove");
        truncates.join().unwrap().unwrap();
        assert_eq!(log.next_offset(), Offset(2));

        gates.close("appends", "sync");
        let appends = spawn(scope, "appends", || log.append_batch(["new 2", "new 3"]));
        gates.wait_for("appends", "sync");
        assert_eq!(log.next_offset(), Offset(2));
        gates.open("reads", "open to read");
        let read = reads.join().unwrap();
        let next = log.next_offset();
        gates.open("appends", "sync");
        appends.join().unwrap().unwrap();
        assert!(
            matches!(read, Err(Error::OffsetOutOfRange { .. })),
            "{read:?} was read while the next offset was {next}"
        );
    });
    let seen = &gates.shared.0.lock().unwrap().seen;
    let wrote: Vec<_> = seen
        .iter()
        .filter(|(thread, operation, _)| thread == "reads" && *operation != "open to read")
        .collect();
    assert!(wrote.is_empty(), "the reader did {wrote:?}");
}

/// A reader finds that an entry of the index is wrong and the index is made anew, but the log was truncated meanwhile.
#[test]
fn what_is_appended_is_shown_after_an_index_was_made_anew_beside_a_truncation() {
    let files = closed(9);
    // The fourth entry says where the third record is.
    let index = files.open("0.index", Access::Write).unwrap();
    let mut position = [0; 8];
    index.read_at(&mut position, 12 * 2 + 4).unwrap();
    index.write_at(&position, 12 * 3 + 4).unwrap();
    drop(index);
    let gates = Gates::default();
    let backend = Gated {
        files,
        gates: gates.clone(),
    };
    let log = Log::open_on(backend, options()).unwrap();
    thread::scope(|scope| {
        gates.close("truncates", "open to write");
        let truncates = spawn(scope, "truncates", || log.truncate_after(Offset(5)));
        gates.wait_for("truncates", "open to write");
        let reads = spawn(scope, "reads", || log.read(Offset(3)));
        // It waits for the truncation to be over.
        thread::sleep(Duration::from_millis(200));
        gates.open("truncates", "open to write");
        truncates.join().unwrap().unwrap();
        assert_eq!(reads.join().unwrap().unwrap().value(), b"old 3");
    });
    assert_eq!(log.append("new").unwrap(), Offset(6));
    assert_eq!(log.next_offset(), Offset(7));
    assert_eq!(log.read(Offset(6)).unwrap().value(), b"new");
}

/// Who waits for a sync while the log is truncated shows its record when it is over, but not those that are gone.
#[test]
fn an_append_that_a_truncation_overtook_shows_no_one_what_was_removed() {
    for _ in 0..50 {
        let gates = Gates::default();
        let backend = Gated {
            files: closed(6),
            gates: gates.clone(),
        };
        let log = Log::open_on(backend, options()).unwrap();
        let mut scan = log.scan(..);
        assert_eq!(scan.next().unwrap().unwrap().offset(), Offset(0));
        thread::scope(|scope| {
            gates.close("first", "sync");
            let first = spawn(scope, "first", || log.append("6"));
            gates.wait_for("first", "sync");
            let truncates = spawn(scope, "truncates", || log.truncate_after(Offset(2)));
            thread::sleep(Duration::from_millis(2));
            let second = spawn(scope, "second", || log.append("7"));
            thread::sleep(Duration::from_millis(2));
            gates.open("first", "sync");
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
            truncates.join().unwrap().unwrap();
        });
        if log.next_offset() > Offset(3) {
            continue;
        }
        let offsets: Vec<_> = scan.map(|record| record.unwrap().offset().0).collect();
        assert_eq!(offsets, [1, 2]);
    }
}

/// The beginning of a batch is in the file while the rest waits in the buffer.
#[test]
fn a_batch_that_is_appended_while_others_are_verified_does_not_look_torn() {
    let gates = Gates::default();
    let backend = Gated {
        files: closed(15),
        gates: gates.clone(),
    };
    let log = Log::open_on(backend, options()).unwrap();
    thread::scope(|scope| {
        gates.close("verifies", "open to read");
        let verifies = spawn(scope, "verifies", || log.verify());
        gates.wait_for("verifies", "open to read");
        // More than the buffer holds.
        let value = vec![1; 20 << 10];
        log.append_batch_with([&value; 4], Durability::Buffered)
            .unwrap();
        gates.open("verifies", "open to read");
        let report = verifies.join().unwrap().unwrap();
        let torn = report.segments.iter().find_map(|s| s.torn_tail.as_ref());
        assert_eq!(torn, None);
    });
}
