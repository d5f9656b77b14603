//! Random scripts: every subject does what the model does, and leaves the same bytes. The seed of a
//! failure is printed, and the script as a vector.

use std::process::ExitCode;

use fastrand::Rng;
use proglog_tests::{
    cases,
    model::Model,
    script::{Session, assert_same_files},
    seeds,
    subject::{Files, Subject},
    trials,
    vector::{Data, Number, Operation, RecordToAppend, Settings, kind_name},
};
use serde_json::json;

fn main() -> ExitCode {
    trials::main(cases![does_what_the_model_does])
}

fn does_what_the_model_does(subject: &dyn Subject) {
    let count = if subject.path().is_some() { 25 } else { 1000 };
    seeds::for_each("SCRIPTS", count, |rng| {
        for name in subject.files().keys() {
            subject.remove(name);
        }
        run_one(subject, rng);
    });
}

fn run_one(subject: &dyn Subject, rng: &mut Rng) {
    let settings = Settings {
        segment_bytes_max: Some(rng.u64(1..400)),
        index_bytes_max: Some(rng.u64(12..200)),
        record_bytes_max: Some(rng.u64(60..400)),
        initial_offset: Some(Number([0, 0, 1, 250, 1 << 20, 1 << 60][rng.usize(0..6)])),
    };
    let mut model = Model::open(&Files::new(), settings);
    let mut session = Session::open(subject, settings);
    let mut script = Vec::new();
    for _ in 0..rng.usize(1..40) {
        let operation = random_operation(rng, &model);
        script.push(json!({ "do": operation }));
        let expected = model.perform(&operation);
        let got = session
            .perform(&operation)
            .map_err(|error| kind_name(error.kind()));
        assert_eq!(
            got,
            expected,
            "left is what the subject did, right the model; {}",
            told(&settings, &script)
        );
    }
    session.finish();
    assert_same_files(&subject.files(), &model.files(), &told(&settings, &script));
}

fn told(settings: &Settings, script: &[serde_json::Value]) -> String {
    format!(
        "the script: {}",
        json!({ "options": settings, "script": script })
    )
}

fn random_operation(rng: &mut Rng, model: &Model) -> Operation {
    // Mostly an offset that is there, or just not.
    let (lowest, next) = (model.lowest(), model.next());
    let near = rng.u64(lowest.saturating_sub(2)..=next + 2);
    let offset = Number(if rng.u8(..) < 10 {
        rng.u64(..1 << 62)
    } else {
        near
    });
    match rng.u8(0..40) {
        0..11 => Operation::Append(random_record(rng)),
        11..16 => {
            Operation::AppendBatch((0..rng.usize(0..8)).map(|_| random_record(rng)).collect())
        }
        16..18 => Operation::AppendBatch(random_batch(rng)),
        18 => Operation::AppendExpecting {
            expected_next_offset: if rng.bool() { Number(next) } else { offset },
            records: random_batch(rng),
        },
        19 => Operation::ProducerLast(random_producer(rng)),
        20..23 => Operation::Read(offset),
        23..25 => Operation::ReadBatch {
            from: offset,
            bytes_max: rng.usize(0..500),
        },
        25 => Operation::Scan {
            from: Number(rng.u64(lowest..=next)),
            to: offset,
        },
        26..28 => Operation::TruncateBefore(offset),
        28..31 => Operation::TruncateAfter(offset),
        31 => Operation::Reset,
        32 => Operation::Sync,
        33..36 => Operation::Reopen(Settings {
            segment_bytes_max: rng.bool().then(|| rng.u64(1..400)),
            index_bytes_max: rng.bool().then(|| rng.u64(12..200)),
            record_bytes_max: None,
            initial_offset: None,
        }),
        36 => Operation::Locate(offset),
        37 => Operation::Segments,
        38 => Operation::Verify,
        _ => Operation::DurableOffset,
    }
}

/// A batch of a producer, or what should be one.
fn random_batch(rng: &mut Rng) -> Vec<RecordToAppend> {
    let mut records: Vec<_> = (0..rng.usize(1..5)).map(|_| random_record(rng)).collect();
    let id = random_producer(rng);
    let mut sequence = rng.u64(0..20);
    for record in &mut records {
        record.producer = Some((id.clone(), Number(sequence)));
        sequence += u64::from(rng.u8(0..12) > 0) + u64::from(rng.u8(0..12) == 0);
    }
    records
}

fn random_producer(rng: &mut Rng) -> Data {
    let bytes = [1, 1, 1, 1, 1, 1, 1, 1, 32, 33, 0][rng.usize(0..11)];
    Data(vec![rng.u8(b'a'..b'd'); bytes])
}

fn random_record(rng: &mut Rng) -> RecordToAppend {
    let length = if rng.u8(0..10) == 0 {
        rng.usize(0..400)
    } else {
        rng.usize(0..30)
    };
    let headers = if rng.u8(0..6) == 0 {
        rng.usize(1..3)
    } else {
        0
    };
    RecordToAppend {
        value: Data((0..length).map(|_| rng.u8(..)).collect()),
        key: Data(if rng.bool() {
            Vec::new()
        } else {
            vec![rng.u8(..); rng.usize(0..5)]
        }),
        headers: (0..headers)
            .map(|_| (rng.alphabetic().to_string(), Data(vec![rng.u8(..)])))
            .collect(),
        timestamp_ms: [None, Some(Number(0)), Some(Number(rng.u64(..1 << 50)))][rng.usize(0..3)],
        producer: (rng.u8(0..8) == 0).then(|| (random_producer(rng), Number(rng.u64(0..20)))),
    }
}
