//! A disk that is really full: an append fails with an error that says so and never by a signal, all that was
//! acknowledged can be read, the log opens again on the full disk, and goes on once something was removed.
//!
//! The disks are small ones that are mounted where only this program sees them, so it runs itself again in a
//! mount namespace of its own.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        env, fs,
        io::{ErrorKind, Write},
        os::unix::process::ExitStatusExt,
        path::{Path, PathBuf},
        process::{Command, ExitCode},
        thread,
        time::{Duration, Instant},
    };

    use fastrand::Rng;
    use libtest_mimic::{Arguments, Trial};
    use proglog::{Clock, Durability, Error, Log, NewRecord, Offset, Options};
    use proglog_host::{Engine, Mode, WasmLog};
    use tempfile::TempDir;

    /// Tells this program that it is in a namespace of its own.
    const MAY_MOUNT: &str = "PROGLOG_FULL_DISK_MAY_MOUNT";

    pub(super) fn main() -> ExitCode {
        if env::var_os(MAY_MOUNT).is_none() {
            return run_where_it_may_mount();
        }
        let mut trials = Vec::new();
        for disk in [DiskKind::Tmpfs, DiskKind::Ext4] {
            let ignored = disk == DiskKind::Ext4 && !has_loop_devices();
            let mut add = |name: String, run: Box<dyn FnOnce() + Send>| {
                let trial = Trial::test(format!("{name}_{disk:?}"), move || {
                    run();
                    Ok(())
                });
                trials.push(trial.with_ignored_flag(ignored));
            };
            for engine in [EngineKind::Native, EngineKind::Wasm] {
                for durability in [
                    Durability::Synced,
                    Durability::Written,
                    Durability::Buffered,
                ] {
                    for records in [Records::Small, Records::Large, Records::Mixed] {
                        let case = Case {
                            disk,
                            engine,
                            durability,
                            records,
                        };
                        let name = format!("{engine:?}_{durability:?}_{records:?}");
                        add(
                            format!("filled_by_appends::{name}"),
                            Box::new(move || case.filled_by_appends()),
                        );
                        add(
                            format!("filled_by_another::{name}"),
                            Box::new(move || case.filled_by_another()),
                        );
                        if engine == EngineKind::Native {
                            add(
                                format!("filled_with_space_reserved::{name}"),
                                Box::new(move || case.filled_with_space_reserved()),
                            );
                        }
                    }
                }
            }
            add(
                "a_failed_sync_in_time_poisons".to_owned(),
                Box::new(move || a_failed_sync_in_time_poisons(disk)),
            );
        }
        trials.push(Trial::test("reserved_on_a_disk_without_a_limit", || {
            reserved_on_a_disk_without_a_limit();
            Ok(())
        }));
        libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
    }

    fn run_where_it_may_mount() -> ExitCode {
        let works = |flags: &str| {
            let tried = Command::new("unshare").args([flags, "true"]).output();
            tried.is_ok_and(|tried| tried.status.success())
        };
        let Some(flags) = ["-m", "-rm"].into_iter().find(|flags| works(flags)) else {
            eprintln!(
                "not run: this test mounts small disks, for which it needs `unshare` of util-linux and either root \
                 with CAP_SYS_ADMIN or user namespaces (`unshare -rm true` has to work)"
            );
            return ExitCode::SUCCESS;
        };
        let mut again = Command::new("unshare");
        again.arg(flags).arg(env::current_exe().unwrap());
        let status = again
            .args(env::args_os().skip(1))
            .env(MAY_MOUNT, "1")
            .status()
            .unwrap();
        if let Some(signal) = status.signal() {
            eprintln!("it was ended by signal {signal}; 7 is SIGBUS");
        }
        if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Only root has them, and not in every container.
    fn has_loop_devices() -> bool {
        let found = Command::new("losetup").arg("--find").output();
        found.is_ok_and(|found| found.status.success())
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum DiskKind {
        Tmpfs,
        Ext4,
    }

    /// A small disk of its own.
    struct Disk {
        mounted: TempDir,
        _image: Option<TempDir>,
    }

    impl Disk {
        fn new(kind: DiskKind) -> Self {
            let mounted = TempDir::new().unwrap();
            let image = match kind {
                DiskKind::Tmpfs => {
                    mount_tmpfs(&mounted, "size=4m");
                    None
                }
                DiskKind::Ext4 => {
                    let directory = TempDir::new().unwrap();
                    let image = directory.path().join("image");
                    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
                    run(Command::new("mkfs.ext4")
                        .args(["-q", "-F", "-m", "0"])
                        .arg(&image));
                    run(Command::new("mount")
                        .args(["-o", "loop"])
                        .arg(&image)
                        .arg(mounted.path()));
                    Some(directory)
                }
            };
            Self {
                mounted,
                _image: image,
            }
        }

        fn log(&self) -> PathBuf {
            self.mounted.path().join("log")
        }

        /// Fills what is left of it with a file, to the last byte.
        fn fill(&self) -> PathBuf {
            let path = self.mounted.path().join("filler");
            let mut file = fs::File::create(&path).unwrap();
            let mut bytes = 1 << 20;
            while bytes > 0 {
                match file.write(&vec![1; bytes]) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::StorageFull => bytes /= 2,
                    Err(e) => panic!("{e}"),
                }
            }
            // Where space is only promised until then.
            let _ = file.sync_all();
            path
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.mounted.path())
                .status();
        }
    }

    fn mount_tmpfs(on: &TempDir, size: &str) {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "tmpfs"])
            .arg(on.path()));
    }

    fn run(command: &mut Command) {
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {told}");
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum EngineKind {
        Native,
        Wasm,
    }

    #[derive(Clone, Copy, Debug)]
    enum Records {
        /// That go by memory, mapped or not.
        Small,
        /// That are written from where they are.
        Large,
        Mixed,
    }

    #[derive(Clone, Copy, Debug)]
    struct Case {
        disk: DiskKind,
        engine: EngineKind,
        durability: Durability,
        records: Records,
    }

    impl Case {
        fn filled_by_appends(self) {
            let disk = Disk::new(self.disk);
            let log = self.open(&disk);
            let told = self.append_until_full(&log);
            assert!(told > 0, "nothing went in");
            self.go_on_after(log, told, &disk);
        }

        /// Something else takes the space while the log has mapped some.
        fn filled_by_another(self) {
            let disk = Disk::new(self.disk);
            let log = self.open(&disk);
            let mut next = 0;
            for _ in 0..20 {
                next = self.append(&log, next).unwrap();
            }
            let filler = disk.fill();
            let told = self.append_until_full(&log);
            assert!(told >= next);
            let (durable, held) = self.check_full(log, told);
            let log = self.open(&disk);
            let next = self.check_reopened(&log, durable, held);
            drop(log);
            fs::remove_file(filler).unwrap();
            let log = self.open(&disk);
            self.check(&log, 0..next);
            let mut next = next;
            // There is not much: the log had made some ready before, and has used it.
            for _ in 0..6 {
                next = self.append(&log, next).unwrap();
            }
            self.check(&log, 0..next);
            self.check_closed(log, 0..next, &disk);
        }

        /// Space that was reserved is there, and what there is not is not reserved.
        fn filled_with_space_reserved(self) {
            let disk = Disk::new(self.disk);
            let log = self.open(&disk);
            let next = self.append(&log, 0).unwrap();
            let Opened::Native(native) = &log else {
                panic!("only the native engine reserves");
            };
            let files = || fs::read_dir(disk.log()).unwrap().count();
            let before = files();
            match native.reserve(1 << 30) {
                Err(Error::Io { source, .. }) => {
                    assert_eq!(source.kind(), ErrorKind::StorageFull, "{source}");
                }
                reserved => panic!("{reserved:?}"),
            }
            assert_eq!(files(), before);
            native.reserve(2 << 20).unwrap();
            assert!(files() > before);
            let filler = disk.fill();
            let told = self.append_until_full(&log);
            // The index has no space.
            assert!(told >= next);
            let (durable, held) = self.check_full(log, told);
            fs::remove_file(filler).unwrap();
            let log = self.open(&disk);
            self.check_reopened(&log, durable, held);
            let told = self.append_until_full(&log);
            self.go_on_after(log, told, &disk);
        }

        fn go_on_after(self, log: Opened, told: u64, disk: &Disk) {
            let (durable, held) = self.check_full(log, told);

            let log = self.open(disk);
            let next = self.check_reopened(&log, durable, held);
            // There may be a little room again, but not much.
            let told = self.append_until_full(&log);
            assert!(told >= next);
            let (durable, held) = self.check_full(log, told);

            let log = self.open(disk);
            let next = self.check_reopened(&log, durable, held);
            log.engine().truncate_before(Offset(next / 2)).unwrap();
            let lowest = log.engine().lowest_offset().unwrap().0;
            assert!(
                lowest > next / 4 && lowest <= next / 2,
                "{lowest} of {next}"
            );
            self.check(&log, lowest..next);
            let mut next = next;
            for _ in 0..8 {
                next = self.append(&log, next).unwrap();
            }
            self.check(&log, lowest..next);
            self.check_closed(log, lowest..next, disk);
        }

        /// What holds of a log whose disk is full. Gives how far it is durable, and how far it has to be there when
        /// it is opened again.
        fn check_full(self, log: Opened, told: u64) -> (u64, u64) {
            let engine = log.engine();
            self.check(&log, 0..told);
            let failure = self.append(&log, told).unwrap_err();
            assert!(matches!(failure, Failure::Poisoned(_)), "{failure:?}");
            let durable = engine.durable_offset().unwrap().0;
            let held = match self.durability {
                Durability::Synced => {
                    assert!(durable >= told, "{durable} of {told}");
                    told
                }
                Durability::Written => told,
                Durability::Buffered => durable,
            };
            drop(log);
            (durable, held)
        }

        fn check_reopened(self, log: &Opened, durable: u64, held: u64) -> u64 {
            let engine = log.engine();
            let report = engine.recovery_report().unwrap();
            assert!(report.is_sound(), "{report:?}");
            let next = engine.next_offset().unwrap().0;
            assert!(
                next >= held.max(durable),
                "{next} of {held}, {durable} durable"
            );
            self.check(log, 0..next);
            next
        }

        fn check_closed(self, log: Opened, held: std::ops::Range<u64>, disk: &Disk) {
            log.close();
            let log = self.open(disk);
            let report = log.engine().recovery_report().unwrap();
            assert!(report.segments.is_empty(), "it was closed: {report:?}");
            assert_eq!(log.engine().lowest_offset().unwrap().0, held.start);
            assert_eq!(log.engine().next_offset().unwrap().0, held.end);
            self.check(&log, held);
            let report = log.engine().verify().unwrap();
            assert!(report.is_sound(), "{report:?}");
            log.close();
        }

        fn open(self, disk: &Disk) -> Opened {
            let options = Options::new()
                .clock(Clock::NONE)
                .segment_bytes_max(512 << 10)
                .index_bytes_max(1 << 20)
                .durability(self.durability);
            match self.engine {
                EngineKind::Native => Opened::Native(Log::open(disk.log(), options).unwrap()),
                EngineKind::Wasm => Opened::Wasm(
                    WasmLog::open(disk.log(), Mode::Write, options)
                        .unwrap()
                        .into(),
                ),
            }
        }

        /// Appends until that fails, which it has to do for want of space. Gives the offset after the last
        /// record that was acknowledged.
        fn append_until_full(self, log: &Opened) -> u64 {
            let mut next = log.engine().next_offset().unwrap().0;
            loop {
                match self.append(log, next) {
                    Ok(after) => next = after,
                    Err(failure) => {
                        // What the worker could not do is told by the next append.
                        let full = matches!(failure, Failure::Full)
                            || matches!(&failure, Failure::Poisoned(cause) if cause.contains("space"));
                        assert!(full, "{failure:?}");
                        return next;
                    }
                }
            }
        }

        /// Appends a record, or some as a batch, and gives the offset after them.
        fn append(self, log: &Opened, next: u64) -> Result<u64, Failure> {
            let records = match self.records {
                Records::Small | Records::Mixed => Rng::with_seed(next).u64(1..40),
                Records::Large => 1,
            };
            let values: Vec<_> = (next..next + records).map(|n| self.value(n)).collect();
            let first = log.append(&values)?;
            assert_eq!(first, next);
            Ok(next + records)
        }

        /// The value of record `n`.
        fn value(self, n: u64) -> Vec<u8> {
            let mut rng = Rng::with_seed(n);
            let bytes = match self.records {
                Records::Small => rng.usize(0..700),
                Records::Large => rng.usize(40_000..120_000),
                Records::Mixed if rng.u8(0..30) == 0 => rng.usize(30_000..40_000),
                Records::Mixed => rng.usize(0..100),
            };
            let mut value = n.to_string().into_bytes();
            value.resize_with(bytes + value.len(), || rng.u8(..));
            value
        }

        /// That the log has these records, and they can be read.
        fn check(self, log: &Opened, offsets: std::ops::Range<u64>) {
            let engine = log.engine();
            for n in offsets {
                let record = engine.read(Offset(n)).unwrap();
                assert_eq!(record.offset(), Offset(n));
                assert!(record.value() == self.value(n), "record {n}");
            }
        }
    }

    enum Opened {
        Native(Log),
        Wasm(Box<WasmLog>),
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Failure {
        Full,
        Poisoned(String),
        Other(String),
    }

    impl Opened {
        fn engine(&self) -> &dyn Engine {
            match self {
                Self::Native(log) => log,
                Self::Wasm(log) => &**log,
            }
        }

        fn close(self) {
            match self {
                Self::Native(log) => log.close().unwrap(),
                Self::Wasm(log) => log.close().unwrap(),
            }
        }

        fn append(&self, values: &[Vec<u8>]) -> Result<u64, Failure> {
            let records = values.iter().map(NewRecord::new);
            match self {
                Self::Native(log) => {
                    let appended = match values {
                        [value] => log.append(value),
                        _ => log.append_batch(records).map(|offsets| offsets.start),
                    };
                    appended.map(|offset| offset.0).map_err(|e| match e {
                        Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                            Failure::Full
                        }
                        Error::Poisoned { cause } => Failure::Poisoned(cause),
                        e => Failure::Other(format!("{e:?}")),
                    })
                }
                Self::Wasm(log) => {
                    let appended = log.append_batch(&records.collect::<Vec<_>>());
                    appended
                        .map(|offsets| offsets.start.0)
                        .map_err(|e| match e.kind() {
                            proglog_host::ErrorKind::Io if e.to_string().contains("space") => {
                                Failure::Full
                            }
                            proglog_host::ErrorKind::Poisoned => Failure::Poisoned(e.to_string()),
                            kind => Failure::Other(format!("{kind:?}: {e}")),
                        })
                }
            }
        }
    }

    /// It has no blocks to tell of, and none of them are available.
    fn reserved_on_a_disk_without_a_limit() {
        let mounted = TempDir::new().unwrap();
        mount_tmpfs(&mounted, "size=0");
        let disk = Disk {
            mounted,
            _image: None,
        };
        let log = Log::open(disk.log(), Options::new()).unwrap();
        log.reserve(1 << 20).unwrap();
        log.append("a").unwrap();
    }

    /// What was promised in time and could not be done is told by the next append.
    fn a_failed_sync_in_time_poisons(disk: DiskKind) {
        for durability in [Durability::Buffered, Durability::Written] {
            let disk = Disk::new(disk);
            let options = Options::new()
                .durability(Durability::Buffered)
                .sync_interval(Duration::from_millis(20));
            let log = Log::open(disk.log(), options).unwrap();
            let filler = disk.fill();
            let value = [7; 1000];
            // So many that they do not fit what may be left of a block.
            let mut appended = 0;
            let failed = (0..20).find_map(|_| match log.append_with(&value, durability) {
                Ok(_) => {
                    appended += 1;
                    None
                }
                Err(e) => Some(e),
            });
            if durability == Durability::Buffered {
                assert_eq!(appended, 20);
                let since = Instant::now();
                let e = loop {
                    assert!(since.elapsed() < Duration::from_secs(10), "it is not told");
                    thread::sleep(Duration::from_millis(40));
                    match log.append(&value) {
                        Ok(_) => appended += 1,
                        Err(e) => break e,
                    }
                };
                assert!(matches!(e, Error::Poisoned { .. }), "{e}");
                assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
            } else {
                let e = failed.expect("there is no space");
                assert!(
                    matches!(&e, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
                    "{e}"
                );
            }
            assert_eq!(log.durable_offset(), Offset(0));
            for n in 0..appended {
                assert_eq!(log.read(Offset(n)).unwrap().value(), value);
            }
            assert!(log.close().is_err());
            reopens(&disk.log(), &filler);
        }
    }

    fn reopens(directory: &Path, filler: &Path) {
        fs::remove_file(filler).unwrap();
        let log = Log::open(directory, Options::new()).unwrap();
        log.append("on it goes").unwrap();
        log.close().unwrap();
    }
}
