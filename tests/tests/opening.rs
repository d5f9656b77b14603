//! Who may open a log, and what an open one refuses.

use std::process::ExitCode;

use proglog::{Clock, Durability, NewRecord, Offset, Options};
use proglog_host::{Engine, ErrorKind, Mode};
use proglog_tests::{
    cases,
    subject::{Kind, SUBJECTS, Subject},
    trials::{self, Case},
};

fn main() -> ExitCode {
    let mut cases = cases![
        a_reader_sees_what_a_writer_appends,
        a_reader_refuses_every_change,
        a_reader_does_not_make_a_log,
        a_clock_gives_the_timestamp_that_is_missing,
        weaker_durability_holds_the_same,
        dropping_a_log_closes_it,
    ];
    let on_directories = cases![
        two_writers_are_one_too_many,
        a_directory_is_made,
        engines_take_turns
    ];
    cases.extend(on_directories.into_iter().map(Case::only_on_directories));
    trials::main(cases)
}

fn a_reader_sees_what_a_writer_appends(subject: &dyn Subject) {
    let options = || options().segment_bytes_max(100);
    let writer = subject.open(Mode::Write, options()).unwrap();
    append(&*writer, "a");
    let reader = subject.open(Mode::Read, options()).unwrap();
    assert_eq!(reader.read(Offset(0)).unwrap().value(), b"a");
    for offset in 1..20 {
        append(&*writer, &format!("value {offset}"));
        let unseen = reader.read(Offset(offset)).unwrap_err();
        assert_eq!(
            unseen.kind(),
            ErrorKind::OffsetOutOfRange,
            "before it refreshes"
        );
        reader.refresh().unwrap();
        assert_eq!(
            reader.read(Offset(offset)).unwrap().value(),
            format!("value {offset}").as_bytes()
        );
        assert_eq!(reader.next_offset().unwrap(), Offset(offset + 1));
    }
    writer.truncate_after(Offset(9)).unwrap();
    append(&*writer, "again");
    writer.truncate_before(Offset(5)).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.next_offset().unwrap(), Offset(11));
    assert_eq!(reader.read(Offset(10)).unwrap().value(), b"again");
    assert_eq!(
        reader.lowest_offset().unwrap(),
        writer.lowest_offset().unwrap()
    );
    writer.reset().unwrap();
    reader.refresh().unwrap();
    assert_eq!(
        (
            reader.lowest_offset().unwrap(),
            reader.next_offset().unwrap()
        ),
        (Offset(0), Offset(0))
    );
}

fn a_reader_refuses_every_change(subject: &dyn Subject) {
    let writer = subject.open(Mode::Write, options()).unwrap();
    append(&*writer, "a");
    writer.close().unwrap();
    let before = subject.files();
    let reader = subject.open(Mode::Read, options()).unwrap();
    let changes = [
        reader.append_batch(&[NewRecord::new("b")]).map(drop),
        reader.truncate_before(Offset(1)),
        reader.truncate_after(Offset(0)),
        reader.reset(),
    ];
    for change in changes {
        assert_eq!(change.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    reader.close().unwrap();
    assert_eq!(subject.files(), before);
}

fn a_reader_does_not_make_a_log(subject: &dyn Subject) {
    let Err(error) = subject.open(Mode::Read, options()) else {
        panic!("there is no log to read")
    };
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(subject.files().is_empty());
}

fn a_clock_gives_the_timestamp_that_is_missing(subject: &dyn Subject) {
    let log = subject
        .open(
            Mode::Write,
            options().clock(Clock::custom(|| 1_700_000_000_000)),
        )
        .unwrap();
    append(&*log, "now");
    log.append_batch(&[
        NewRecord::new("then").timestamp_ms(1_800_000_000_000),
        NewRecord::new("never").timestamp_ms(0),
        NewRecord::new("not before then").timestamp_ms(5),
    ])
    .unwrap();
    let told: Vec<_> = (0..4)
        .map(|offset| log.read(Offset(offset)).unwrap().timestamp_ms())
        .collect();
    let then = Some(1_800_000_000_000);
    assert_eq!(told, [Some(1_700_000_000_000), then, None, then]);
    log.close().unwrap();
}

fn weaker_durability_holds_the_same(subject: &dyn Subject) {
    for durability in [Durability::Written, Durability::Buffered] {
        let log = subject
            .open(
                Mode::Write,
                options().durability(durability).segment_bytes_max(200),
            )
            .unwrap();
        let first = log.next_offset().unwrap();
        for n in 0..20 {
            append(&*log, &format!("value {n}"));
            let last = log.read(first.plus(n)).unwrap();
            assert_eq!(
                last.value(),
                format!("value {n}").as_bytes(),
                "it can be read at once"
            );
            assert!(log.durable_offset().unwrap() <= log.next_offset().unwrap());
        }
        log.sync().unwrap();
        assert_eq!(log.durable_offset().unwrap(), first.plus(20));
        append(&*log, "after the sync");
        log.close().unwrap();
    }
    let log = subject.open(Mode::Write, options()).unwrap();
    assert_eq!(log.next_offset().unwrap(), Offset(42));
    assert!(
        log.recovery_report().unwrap().segments.is_empty(),
        "both were closed"
    );
    assert_eq!(log.read(Offset(41)).unwrap().value(), b"after the sync");
    log.close().unwrap();
}

fn dropping_a_log_closes_it(subject: &dyn Subject) {
    let log = subject
        .open(Mode::Write, options().durability(Durability::Buffered))
        .unwrap();
    append(&*log, "a");
    drop(log);
    let log = subject.open(Mode::Write, options()).unwrap();
    assert!(log.recovery_report().unwrap().segments.is_empty());
    assert_eq!(log.read(Offset(0)).unwrap().value(), b"a");
    log.close().unwrap();
}

fn two_writers_are_one_too_many(subject: &dyn Subject) {
    let first = subject.open(Mode::Write, options()).unwrap();
    let Err(refused) = subject.open(Mode::Write, options()) else {
        panic!("two writers")
    };
    assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
    append(&*first, "a");
    first.close().unwrap();
    let second = subject.open(Mode::Write, options()).unwrap();
    assert_eq!(second.next_offset().unwrap(), Offset(1));
    second.close().unwrap();
}

fn a_directory_is_made(subject: &dyn Subject) {
    let directory = subject.path().unwrap();
    std::fs::remove_dir(directory).unwrap();
    let log = subject.open(Mode::Write, options()).unwrap();
    append(&*log, "a");
    log.close().unwrap();
    assert_eq!(subject.files().len(), 2);
}

/// A log written by one is read and appended to by each of the others.
fn engines_take_turns(subject: &dyn Subject) {
    let mut appended = 0;
    for other in SUBJECTS.iter().filter_map(Kind::open_directory) {
        let log = subject
            .open(Mode::Write, options().segment_bytes_max(90))
            .unwrap();
        assert_eq!(append(&*log, "ours"), Offset(appended));
        log.close().unwrap();
        let log = other(subject.path().unwrap(), Mode::Write, options()).unwrap();
        assert_eq!(append(&*log, "theirs"), Offset(appended + 1));
        appended += 2;
        for offset in 0..appended {
            let value = if offset % 2 == 0 { "ours" } else { "theirs" };
            assert_eq!(log.read(Offset(offset)).unwrap().value(), value.as_bytes());
        }
        assert!(
            log.recovery_report().unwrap().segments.is_empty(),
            "the other closed it"
        );
        log.close().unwrap();
    }
}

fn append(log: &dyn Engine, value: &str) -> Offset {
    log.append_batch(&[NewRecord::new(value)]).unwrap().start
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
