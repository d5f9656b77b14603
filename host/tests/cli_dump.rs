//! `proglog dump --segment`: one store, with its index as it stands beside it.
#![cfg(unix)]

mod program;

use std::{fs, path::Path};

use program::{NewLog, failed, flip_a_bit, json_lines, on_both_engines, printed, run};
use serde_json::{Value, json};

on_both_engines!(
    a_segment_is_shown_with_its_index,
    an_index_is_shown_as_it_stands,
    damage_in_it_is_told_and_in_others_is_not,
    only_segments_that_there_are,
);

/// Seven records in segments of a few.
fn log(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    let values: String = (0..7).map(|n| format!("{n:03}\n")).collect();
    let args = ["--segment-bytes-max", "70", "--timestamp-ms", "0"];
    for value in values.lines() {
        log.append(&args, value.as_bytes());
    }
    log
}

fn dump(log: &NewLog, args: &[&str]) -> (Option<i32>, String) {
    let mut dump = log.verb("dump", &[]);
    dump.args(args);
    let output = run(dump, b"");
    assert_eq!(output.stderr, b"");
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// What is shown of records and of the index, as JSON.
fn items(log: &NewLog, base: u64) -> (Vec<Value>, Value) {
    let (_, text) = dump(log, &["--segment", &base.to_string(), "--json"]);
    let mut items = json_lines(text.as_bytes());
    let index = items.pop().unwrap();
    assert_eq!(index["type"], "index");
    (items, index)
}

fn write_index(path: &Path, entries: &[(u32, u64)], after: &[u8]) {
    let entry = |(offset, position): &(u32, u64)| {
        [&offset.to_be_bytes()[..], &position.to_be_bytes()].concat()
    };
    let entries: Vec<u8> = entries.iter().flat_map(entry).collect();
    fs::write(path, [&entries, after].concat()).unwrap();
}

fn a_segment_is_shown_with_its_index(engine: &str) {
    let log = log(engine);
    let bases: Vec<u64> = log.info()["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| segment["base"].as_u64().unwrap())
        .collect();
    assert!(bases.len() > 2, "{bases:?}");
    let mut offset = 0;
    for (n, &base) in bases.iter().enumerate() {
        let (items, index) = items(&log, base);
        assert_eq!(
            (&items[0]["type"], &items[0]["base"]),
            (&json!("segment"), &json!(base))
        );
        let next = bases.get(n + 1).copied().unwrap_or(7);
        assert_eq!(items.len() as u64, 1 + next - base);
        let mut position = 0;
        for item in &items[1..] {
            let entry = json!({ "relative_offset": offset - base, "position": position });
            assert_eq!(
                (&item["offset"], &item["index_entry"]),
                (&json!(offset), &entry)
            );
            assert_eq!(item["position"], json!(position));
            position += item["bytes"].as_u64().unwrap();
            offset += 1;
        }
        let entries = next - base;
        let expected = json!({
            "type": "index", "segment": base, "file_bytes": 12 * entries, "entries": entries,
            "bytes_after": 0, "zeros_after": true,
        });
        assert_eq!(index, expected);
    }
    assert_eq!(offset, 7);
    // Not where it was not asked for.
    let (exit, text) = dump(&log, &["--json"]);
    assert_eq!((exit, text.contains("index")), (Some(0), false));

    let base = bases[1];
    let (_, text) = dump(&log, &["--segment", &base.to_string()]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("{base}.store, ")), "{text}");
    assert!(lines[1].contains("  checksum  index  "), "{text}");
    assert!(lines[2].contains("  sound     0@0  "), "{text}");
    assert!(
        lines[lines.len() - 1].starts_with(&format!("{base}.index, ")),
        "{text}"
    );
    let (_, one) = dump(&log, &["--segment", &base.to_string(), "-n", "1"]);
    assert_eq!(one.lines().collect::<Vec<_>>(), lines[..3]);
    // From the middle on it is the same.
    let from = (base + 1).to_string();
    let (_, rest) = dump(&log, &["--segment", &base.to_string(), "--from", &from]);
    let rest: Vec<_> = rest.lines().collect();
    assert_eq!(rest[2..], lines[3..]);
}

fn an_index_is_shown_as_it_stands(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--timestamp-ms", "0"], b"a\nb\n");
    let path = log.dir.join("0.index");
    let (sound, _) = items(&log, 0);
    let second = sound[2]["position"].as_u64().unwrap();
    for (entries, after, told, note) in [
        (
            &[(0, 0), (1, second)][..],
            &[0; 7][..],
            json!([24 + 7, 2, 7, true]),
            "2 entries, then 7 bytes of zeros",
        ),
        (
            &[(0, 0), (1, second)],
            b"\0x",
            json!([26, 2, 2, false]),
            "2 entries, then 2 bytes that are not all zeros",
        ),
        (&[(0, 0)], &[], json!([12, 1, 0, true]), "12 bytes: 1 entry"),
        (
            &[(0, 0), (0, 9)],
            &[],
            json!([24, 2, 0, true]),
            "24 bytes: 2 entries",
        ),
    ] {
        write_index(&path, entries, after);
        let (items, index) = items(&log, 0);
        assert_eq!(index["file_bytes"], told[0]);
        assert_eq!(index["entries"], told[1]);
        assert_eq!(index["bytes_after"], told[2]);
        assert_eq!(index["zeros_after"], told[3]);
        let shown = entries
            .get(1)
            .map(|(offset, position)| json!({ "relative_offset": offset, "position": position }));
        assert_eq!(items[2]["index_entry"], json!(shown));
        let (exit, text) = dump(&log, &["--segment", "0"]);
        assert_eq!((exit, text.contains(note)), (Some(0), true), "{text}");
        assert_eq!(
            text.contains("  0@9 WRONG  "),
            entries.contains(&(0, 9)),
            "{text}"
        );
    }
    fs::remove_file(&path).unwrap();
    let (found, index) = items(&log, 0);
    assert_eq!(
        (&found[1]["index_entry"], &index["file_bytes"]),
        (&Value::Null, &Value::Null)
    );
    let (_, text) = dump(&log, &["--segment", "0"]);
    assert!(text.ends_with("0.index is missing\n"), "{text}");
}

fn damage_in_it_is_told_and_in_others_is_not(engine: &str) {
    let log = log(engine);
    let damaged = log.info()["segments"][1]["base"].to_string();
    let value = format!("{:03}", damaged.parse::<u64>().unwrap());
    flip_a_bit(&log.dir.join(format!("{damaged}.store")), value.as_bytes());
    assert_eq!(dump(&log, &["--segment", "0"]).0, Some(0));
    let (exit, text) = dump(&log, &["--segment", &damaged]);
    assert_eq!(
        (exit, text.contains("  DAMAGED  ")),
        (Some(1), true),
        "{text}"
    );
}

fn only_segments_that_there_are(engine: &str) {
    let log = log(engine);
    let last = log.info()["segments"].as_array().unwrap().last().unwrap()["base"].clone();
    let name = log.dir.display();
    let (exit, error) = failed(log.verb("dump", &[&"--segment", &"99"]), b"");
    let said = format!("no segment of {name} begins at 99; the one before it begins at {last}\n");
    assert_eq!((exit, error), (4, format!("proglog: {said}")));
    let (exit, error) = failed(
        log.verb("dump", &[&"--segment", &"0", &"--from", &"6"]),
        b"",
    );
    let said = "proglog: --from 6 is not in segment 0, which holds 0..=";
    assert_eq!((exit, error.starts_with(said)), (2, true), "{error}");
    let from_end = printed(
        log.verb("dump", &[&"--segment", &last.to_string(), &"--from", &"7"]),
        b"",
    );
    assert!(!from_end.is_empty());
}
