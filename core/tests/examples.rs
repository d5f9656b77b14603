//! Runs the programs in `examples/`, as their first lines say.
#![cfg(not(target_family = "wasm"))]

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::tempdir;

/// Cargo builds the examples of a package with all its tests, beside them.
fn example(name: &str) -> Command {
    let mut path: PathBuf = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    let path = path.with_extension(env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "run all tests of the package, or `cargo build --example {name}` first"
    );
    Command::new(path)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Runs it and returns what it printed, after checking that it did well.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_map_has_its_values_when_it_is_opened_again() {
    let directory = tempdir().unwrap();
    let map = |arguments: &[&str]| {
        let mut command = example("key_value");
        command.arg(directory.path().join("map")).args(arguments);
        command
    };
    printed(&mut map(&["set", "sky", "grey", "sea", "green"]));
    printed(&mut map(&["set", "sky", "blue"]));
    assert_eq!(printed(&mut map(&["get", "sky"])), "blue\n");
    assert_eq!(printed(&mut map(&["get", "sea"])), "green\n");
    printed(&mut map(&["remove", "sky"]));
    assert_eq!(run(&mut map(&["get", "sky"])).status.code(), Some(1));
    assert_eq!(printed(&mut map(&["get", "sea"])), "green\n");
    assert!(!run(&mut map(&["set", "alone"])).status.success());
}

#[test]
fn a_compacted_map_has_the_same_values() {
    use proglog::{Log, NewRecord, Offset, Options};

    let directory = tempdir().unwrap();
    let path = directory.path().join("map");
    let log = Log::open(&path, Options::new().segment_bytes_max(150)).unwrap();
    for n in 0..20 {
        let value = format!("value {n}");
        log.append(NewRecord::new(&value).key(&format!("key {}", n % 3)))
            .unwrap();
    }
    log.close().unwrap();
    let map = |arguments: &[&str]| printed(example("key_value").arg(&path).args(arguments));
    let told = map(&["compact"]);
    let removed: u64 = told
        .trim()
        .strip_prefix("removed ")
        .unwrap()
        .parse()
        .unwrap();
    assert!((10..=17).contains(&removed), "{removed}");
    assert_eq!(map(&["compact"]), "removed 0\n");
    for (key, value) in [("key 0", 18), ("key 1", 19), ("key 2", 17)] {
        assert_eq!(map(&["get", key]), format!("value {value}\n"));
    }
    let log = Log::open(&path, Options::new()).unwrap();
    assert_eq!(log.next_offset(), Offset(20));
    assert_eq!(log.scan(..).count() as u64, 20 - removed);
}

#[test]
fn an_outbox_ships_each_order_once() {
    let directory = tempdir().unwrap();
    let to = directory.path().join("orders");
    let outbox = |command: &str, what: &std::ffi::OsStr| {
        let mut outbox = example("outbox");
        printed(
            outbox
                .arg(directory.path().join("outbox"))
                .arg(command)
                .arg(what),
        )
    };
    assert_eq!(outbox("take", "2 apples".as_ref()), "took order 0\n");
    assert_eq!(outbox("take", "1 pear".as_ref()), "took order 1\n");
    assert_eq!(outbox("ship", to.as_os_str()), "shipped 2\n");
    assert_eq!(outbox("ship", to.as_os_str()), "shipped 0\n");
    assert_eq!(outbox("take", "3 plums".as_ref()), "took order 2\n");
    assert_eq!(outbox("ship", to.as_os_str()), "shipped 1\n");
    assert_eq!(values(&to), ["2 apples", "1 pear", "3 plums"]);
}

#[test]
fn an_outbox_that_is_killed_ships_each_order_once() {
    use std::process::Stdio;

    use proglog::{Log, Options};

    const ORDERS: usize = 3_000;
    let directory = tempdir().unwrap();
    let (from, to) = (
        directory.path().join("outbox"),
        directory.path().join("orders"),
    );
    let orders: Vec<_> = (0..ORDERS).map(|n| format!("order {n}")).collect();
    let log = Log::open(&from, Options::new()).unwrap();
    log.append_batch(orders.iter().map(proglog::NewRecord::new))
        .unwrap();
    log.close().unwrap();
    let shipped = || match Log::open_read_only(&to, Options::new()) {
        Ok(log) => log.next_offset().0,
        // Not made yet.
        Err(_) => 0,
    };
    let mut killed_on_the_way = 0;
    for part in [1, ORDERS as u64 / 3, ORDERS as u64 / 2] {
        let mut ship = example("outbox")
            .arg(&from)
            .arg("ship")
            .arg(&to)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while shipped() < part && ship.try_wait().unwrap().is_none() {}
        ship.kill().unwrap();
        ship.wait().unwrap();
        killed_on_the_way += u32::from(values(&to).len() < ORDERS);
    }
    assert!(killed_on_the_way > 0, "it was always done before");
    printed(example("outbox").arg(&from).arg("ship").arg(&to));
    assert_eq!(values(&to), orders);
}

/// The values of a log.
fn values(directory: &std::path::Path) -> Vec<String> {
    use proglog::{Log, Options};

    let log = Log::open_read_only(directory, Options::new()).unwrap();
    let records = log.scan(..).map(Result::unwrap);
    records
        .map(|record| String::from_utf8(record.value().to_vec()).unwrap())
        .collect()
}

#[test]
fn an_audit_log_shows_that_it_was_rewritten() {
    use proglog::{Log, NewRecord, Offset, Options};

    let directory = tempdir().unwrap();
    let path = directory.path().join("audit");
    let audit = |arguments: &[&str]| {
        let mut command = example("audit");
        command.arg(&path).args(arguments);
        command
    };
    printed(&mut audit(&["add", "alice read file 7"]));
    printed(&mut audit(&["add", "bob wrote file 7"]));
    let last = printed(&mut audit(&["add", "carol read file 7"]));
    assert_eq!(last.trim().len(), 64);
    assert_eq!(printed(&mut audit(&["check"])), last);

    // Whoever changes an entry, with checksums that are right, breaks the chain after it.
    let rewritten = directory.path().join("rewritten");
    let log = Log::open_read_only(&path, Options::new()).unwrap();
    let copy = Log::open(&rewritten, Options::new()).unwrap();
    for record in log.scan(Offset(0)..) {
        let record = record.unwrap();
        let headers: Vec<_> = record
            .headers()
            .map(|(name, value)| proglog::Header::new(name, value))
            .collect();
        let value: &[u8] = match record.offset() {
            Offset(1) => b"bob read file 7",
            _ => record.value(),
        };
        let entry = NewRecord::new(value)
            .headers(&headers)
            .timestamp_ms(record.timestamp_ms().unwrap());
        copy.append(entry).unwrap();
    }
    copy.close().unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&rewritten, &path).unwrap();
    let output = run(&mut audit(&["check"]));
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("entry 2 does not follow"), "{said}");
}

#[test]
fn following_prints_what_another_program_appends() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };

    use proglog::{Log, Offset, Options};

    let directory = tempdir().unwrap();
    let log = Log::open(directory.path(), Options::new()).unwrap();
    for n in 0..20 {
        log.append(&format!("order {n}")).unwrap();
    }
    let mut follow = example("follow")
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(follow.stderr.take().unwrap()).lines();
    let mut next = || printed.next().unwrap().unwrap();
    for n in 10..20 {
        assert_eq!(next(), format!("{n} order {n}"));
    }
    log.append("while it waits").unwrap();
    assert_eq!(next(), "20 while it waits");
    log.truncate_after(Offset(17)).unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "truncated to 18");
    log.append("in place of another").unwrap();
    assert_eq!(next(), "18 in place of another");
    follow.kill().unwrap();
    follow.wait().unwrap();
}
