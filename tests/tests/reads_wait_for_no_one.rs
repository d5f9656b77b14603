//! Reads of sealed segments make no system call, and no read waits for an append that is stuck.

use std::{
    io::{self, IoSlice},
    ops::Range,
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};
use proglog::{
    Access, Backend, BackendFile, Clock, Error, FileAccess, FsBackend, Log, MemoryBackend, Offset,
    Options, Tail, Verify, Views,
};
use tempfile::TempDir;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    strict::run_child();
    let mut trials = Vec::new();
    #[cfg(target_os = "linux")]
    for verify in [Verify::EveryRead, Verify::Once] {
        for mode in ["read-only", "writing"] {
            trials.push(trial(
                format!("sealed_reads_make_no_system_call::{verify:?}_{mode}"),
                move || strict::sealed_reads_make_no_system_call(verify, mode),
            ));
        }
    }
    #[cfg(target_os = "linux")]
    trials.push(trial(
        "another_system_call_would_kill".to_owned(),
        strict::another_system_call_would_kill,
    ));
    for stuck in Stuck::ALL {
        for held in [HELD, HELD_FULL] {
            trials.push(trial(
                format!("stuck::{stuck:?}_memory_{held}"),
                move || {
                    reads_go_on(MemoryBackend::new(), stuck, held);
                },
            ));
            for access in [FileAccess::Mapped, FileAccess::Calls] {
                let name = format!("stuck::{stuck:?}_{access:?}_{held}");
                trials.push(trial(name, move || {
                    let directory = TempDir::new().unwrap();
                    let backend = FsBackend::open(directory.path()).unwrap();
                    reads_go_on(backend.file_access(access), stuck, held);
                }));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// How many records a segment takes where appends get stuck.
const SEGMENT_RECORDS: u64 = 20;
/// How many the log holds then: some of them in the active segment.
const HELD: u64 = 50;
/// As many as fill it, so that the append has to begin another.
const HELD_FULL: u64 = 60;

/// What an append is stuck in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    /// Writing a record that is put into memory first.
    WriteSmall,
    /// Writing one from where it is.
    WriteLarge,
    Sync,
}

impl Stuck {
    const ALL: [Self; 3] = [Self::WriteSmall, Self::WriteLarge, Self::Sync];
}

fn reads_go_on<B>(backend: B, stuck: Stuck, held: u64)
where
    B: Backend + Send + Sync,
    B::File: Send + Sync,
{
    let gate = Arc::new(Gate::default());
    let backend = Gated {
        backend,
        gate: Arc::clone(&gate),
        stuck,
    };
    let options = Options::new()
        .clock(Clock::custom(|| 1_700_000_000_000))
        .index_bytes_max(SEGMENT_RECORDS * 12);
    let log = Log::open_on(backend, options).unwrap();
    for n in 0..held {
        log.append(&value(n)).unwrap();
    }
    let durable = log.durable_offset();
    assert_eq!(durable, Offset(held));

    gate.close();
    let (say, said) = channel();
    let timed_out = thread::scope(|scope| {
        let appender = scope.spawn(|| match stuck {
            Stuck::WriteSmall | Stuck::Sync => log.append("late").unwrap(),
            Stuck::WriteLarge => log.append(&[1; 200_000]).unwrap(),
        });
        gate.wait_until_someone_waits();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let say = say.clone();
                scope.spawn(|| {
                    read_all(&log, held, |done| say.send(done).unwrap());
                    drop(say);
                })
            })
            .collect();
        drop(say);
        let mut last = "";
        let timed_out = loop {
            match said.recv_timeout(Duration::from_secs(5)) {
                Ok(done) => last = done,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break Some(last),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break None,
            }
        };
        // The record is not acknowledged.
        let appended = appender.is_finished();
        gate.open();
        assert!(!appended, "it was stuck");
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(appender.join().unwrap(), Offset(held));
        timed_out
    });
    assert_eq!(
        timed_out, None,
        "what comes after this waits for the append"
    );
    assert_eq!(log.next_offset(), Offset(held + 1));
    assert_eq!(log.durable_offset(), Offset(held + 1));
}

/// Everything that reads. Tells what was done.
fn read_all<B: Backend>(log: &Log<B>, held: u64, done: impl Fn(&'static str)) {
    done("nothing");
    assert_eq!(log.next_offset(), Offset(held));
    done("next_offset");
    assert_eq!(log.durable_offset(), Offset(held));
    assert_eq!(log.lowest_offset(), Offset(0));
    done("durable_offset and lowest_offset");
    // Twice: the first time sealed segments have to be opened.
    for _ in 0..2 {
        for n in 0..held {
            assert_eq!(log.read(Offset(n)).unwrap().value(), value(n));
        }
    }
    done("read");
    check(log.scan(..).map(Result::unwrap), 0..held);
    done("scan");
    let mut backward: Vec<_> = log.scan(..).rev().map(Result::unwrap).collect();
    backward.reverse();
    check(backward.into_iter(), 0..held);
    done("scan backward");
    for n in 0..held {
        let first = log.read_batch(Offset(n), 1 << 20).unwrap().next();
        assert_eq!(first.unwrap().unwrap().value(), value(n));
    }
    done("read_batch");
    assert!(log.read_batch(Offset(held), 1 << 20).unwrap().is_empty());
    done("read_batch at the end");
    let at_end = log.read(Offset(held));
    assert!(matches!(at_end, Err(Error::OffsetOutOfRange { .. })));
    done("read at the end");
    for n in 0..held {
        let segment = n / SEGMENT_RECORDS * SEGMENT_RECORDS;
        assert_eq!(log.locate(Offset(n)).unwrap().segment, Offset(segment));
    }
    done("locate");
    let since = log.scan_from_time(1_700_000_000_000).unwrap();
    check(since.map(Result::unwrap), 0..held);
    assert_eq!(log.scan_from_time(1_700_000_000_001).unwrap().count(), 0);
    done("scan_from_time");
    assert!(log.segments().len() >= 3);
    assert!(log.recovery_report().is_sound());
    done("segments and recovery_report");
}

fn check(records: impl Iterator<Item = proglog::Record>, offsets: Range<u64>) {
    let mut next = offsets.start;
    for record in records {
        assert_eq!(record.offset(), Offset(next));
        assert!(record.value() == value(next), "record {next}");
        next += 1;
    }
    assert_eq!(next, offsets.end);
}

fn value(n: u64) -> Vec<u8> {
    format!("value {n}").into_bytes()
}

/// What lets writes or syncs through, or not.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
    waited_for: AtomicBool,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            self.waited_for.store(true, Ordering::SeqCst);
            closed = self.changed.wait(closed).unwrap();
        }
    }

    fn wait_until_someone_waits(&self) {
        while !self.waited_for.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A backend whose writes or syncs go through a gate.
#[derive(Debug)]
struct Gated<B> {
    backend: B,
    gate: Arc<Gate>,
    stuck: Stuck,
}

#[derive(Debug)]
struct GatedFile<F> {
    file: F,
    gate: Arc<Gate>,
    stuck: Stuck,
}

impl<B: Backend> Backend for Gated<B> {
    type File = GatedFile<B::File>;

    fn name(&self) -> String {
        self.backend.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.backend.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Self::File> {
        Ok(GatedFile {
            file: self.backend.open(name, access)?,
            gate: Arc::clone(&self.gate),
            stuck: self.stuck,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.backend.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.backend.rename(from, to)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.backend.cut(name, bytes)
    }

    fn prepare_bytes(&self) -> u64 {
        self.backend.prepare_bytes()
    }

    fn sync_directory(&self) -> io::Result<()> {
        if self.stuck == Stuck::Sync {
            self.gate.pass();
        }
        self.backend.sync_directory()
    }

    fn remove_directory(&self) -> io::Result<()> {
        self.backend.remove_directory()
    }
}

impl<F> GatedFile<F> {
    fn pass_to_write(&self) {
        if self.stuck != Stuck::Sync {
            self.gate.pass();
        }
    }
}

impl<F: BackendFile> BackendFile for GatedFile<F> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.pass_to_write();
        self.file.write_at(bytes, position)
    }

    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.pass_to_write();
        self.file.write_vectored_at(parts, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.pass_to_write();
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.stuck == Stuck::Sync {
            self.gate.pass();
        }
        self.file.sync()
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.file.is_removed()
    }

    fn map(&self, bytes: u64) -> io::Result<Option<Views>> {
        self.file.map(bytes)
    }

    /// Where a small record is to get stuck it is written.
    fn map_tail(&self, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
        if self.stuck == Stuck::WriteSmall {
            return Ok(None);
        }
        self.file.map_tail(position, bytes)
    }
}

/// A process that may do nothing but `read`, `write` and end: Linux's strict mode of seccomp.
#[cfg(target_os = "linux")]
mod strict {
    use std::{
        env,
        os::unix::process::ExitStatusExt,
        path::Path,
        process::{Command, Output},
    };

    use fastrand::Rng;
    use proglog::{Clock, Log, Offset, Options, Verify};
    use tempfile::TempDir;

    /// Tells this program, run again, what to do: how to verify, how to open, and the directory.
    const CHILD: &str = "PROGLOG_STRICT_CHILD";
    const RECORDS: u64 = 20_000;
    const READS: u64 = 100_000;
    const SIGKILL: i32 = 9;

    pub(super) fn sealed_reads_make_no_system_call(verify: Verify, mode: &str) {
        let directory = TempDir::new().unwrap();
        let log = Log::open(directory.path(), options()).unwrap();
        let values: Vec<_> = (0..RECORDS).map(value).collect();
        for batch in values.chunks(100) {
            log.append_batch(batch.iter().map(|(bytes, length)| &bytes[..*length]))
                .unwrap();
        }
        log.close().unwrap();
        let output = child(&format!("{verify:?} {mode} {}", directory.path().display()));
        assert!(
            output.stdout == b"ok" && output.status.success(),
            "{output:?}"
        );
    }

    /// That it is in force, and so what the other test tells is true.
    pub(super) fn another_system_call_would_kill() {
        let output = child("kill me now");
        assert_eq!(output.status.signal(), Some(SIGKILL), "{output:?}");
    }

    fn child(task: &str) -> Output {
        let mut child = Command::new(env::current_exe().unwrap());
        child.env(CHILD, task).output().unwrap()
    }

    pub(super) fn run_child() {
        let Ok(task) = env::var(CHILD) else { return };
        let mut words = task.splitn(3, ' ');
        let mut word = || words.next().expect("three words");
        let verify = match word() {
            "EveryRead" => Verify::EveryRead,
            "Once" => Verify::Once,
            _ => {
                let process = std::process::id();
                enter_strict_mode();
                let again = std::os::unix::process::parent_id();
                write_and_exit(format!("{process} {again}").as_bytes());
            }
        };
        let options = options().verify(verify);
        let (mode, directory) = (word(), Path::new(word()));
        let log = match mode {
            "read-only" => Log::open_read_only(directory, options),
            _ => Log::open(directory, options),
        };
        let log = log.expect("the log opens");
        let segments = log.segments();
        let end = segments.last().expect("an active segment").base;
        assert!(segments.len() > 30, "{}", segments.len());
        // Maps them, and whatever a thread needs.
        let warm = log.scan(..end).chain(log.scan(..end).rev()).count() as u64;
        assert_eq!(warm, 2 * end.0);
        for n in 0..end.0 {
            log.read(Offset(n)).expect("a record");
        }
        let mut rng = Rng::with_seed(1);

        enter_strict_mode();
        for _ in 0..READS {
            check(&log, rng.u64(0..end.0));
        }
        let mut scanned = 0;
        for record in log.scan(..end) {
            let (bytes, length) = value(scanned);
            assert!(record.is_ok_and(|record| record.value() == &bytes[..length]));
            scanned += 1;
        }
        assert!(scanned == end.0);
        for record in log.scan(..end).rev() {
            scanned -= 1;
            assert!(record.is_ok_and(|record| record.offset().0 == scanned));
        }
        assert!(scanned == 0);
        write_and_exit(b"ok")
    }

    fn check(log: &Log, n: u64) {
        let (bytes, length) = value(n);
        let record = log.read(Offset(n));
        assert!(record.is_ok_and(|record| record.value() == &bytes[..length]));
    }

    /// Without memory of the heap, which takes system calls.
    fn value(n: u64) -> ([u8; 200], usize) {
        let mut bytes = [0; 200];
        let mut rng = Rng::with_seed(n);
        bytes.fill_with(|| rng.u8(..));
        (bytes, rng.usize(0..200))
    }

    fn options() -> Options {
        Options::new()
            .clock(Clock::NONE)
            .segment_bytes_max(64 << 10)
    }

    #[allow(unsafe_code, reason = "the standard library has no such call")]
    fn enter_strict_mode() {
        // SAFETY: it takes two numbers and changes nothing but what this thread may call.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
        assert_eq!(done, 0, "this kernel has no strict mode (CONFIG_SECCOMP)");
    }

    #[allow(
        unsafe_code,
        reason = "std's exit makes a call that strict mode forbids"
    )]
    fn write_and_exit(told: &[u8]) -> ! {
        // SAFETY: the bytes are there during the call, and the other does not return.
        unsafe {
            libc::write(1, told.as_ptr().cast(), told.len());
            libc::syscall(libc::SYS_exit, 0);
        }
        unreachable!("it has ended")
    }
}
