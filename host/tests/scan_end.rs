//! A scan that is at it while records are removed at the end: every engine ends it where the log then ends.

use proglog::{Log, NewRecord, Offset, Options};
use proglog_host::{Engine, Mode, WasmLog};

fn scan_beside(remove: impl Fn(&dyn Engine)) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let engines: [Box<dyn Engine>; 2] = [
        Box::new(Log::open(&directories[0], Options::new()).unwrap()),
        Box::new(WasmLog::open(&directories[1], Mode::Write, Options::new()).unwrap()),
    ];
    for (name, engine) in ["native", "wasm"].into_iter().zip(engines) {
        let value = vec![7; 1 << 10];
        for _ in 0..10 {
            engine.append_batch(&[NewRecord::new(&value); 100]).unwrap();
        }
        let mut scan = engine.scan(Offset(0));
        assert_eq!(scan.next().unwrap().unwrap().offset(), Offset(0));
        remove(&*engine);
        for record in scan {
            assert!(record.is_ok(), "{name}: {record:?}");
        }
        engine.close().unwrap();
    }
}

#[test]
fn a_scan_ends_where_records_were_truncated() {
    scan_beside(|log| log.truncate_after(Offset(1)).unwrap());
}

#[test]
fn a_scan_ends_where_the_log_was_reset() {
    scan_beside(|log| log.reset().unwrap());
}
