//! The records are protobuf: a full implementation, with the schema compiled from the core's `.proto`,
//! reads what the log writes and writes what the log reads. The checksums are another
//! implementation's too.

use bytes::Bytes;
use fastrand::Rng;
use proglog::{Header, Log, MemoryBackend, NewRecord, Offset, Options, Record};
use proglog_tests::{
    schema::{CHECKSUM_TAG, Fields, book_schema, checked_frame, framed, index_of, record_schema},
    subject::{Files, memory_of},
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};

#[test]
fn what_the_log_writes_a_protobuf_library_reads() {
    for (fields, record) in written(&samples()) {
        let (length, bytes) = record.frame().split_at(8);
        assert_eq!(length, (bytes.len() as u64).to_be_bytes(), "{fields:?}");

        let message = DynamicMessage::decode(record_schema(), bytes).unwrap();
        let mut expected = fields.message();
        let covered = &record.frame()[..record.frame().len() - 9];
        expected.set_field_by_name(
            "checksum",
            Value::U64(twox_hash::XxHash3_64::oneshot(covered)),
        );
        assert_eq!(message.to_string(), expected.to_string());
        assert_eq!(
            message.encode_to_vec(),
            bytes,
            "in the library's own canonical form"
        );
        assert_eq!(fields.frame(), record.frame());
    }
}

#[test]
fn what_the_log_writes_the_book_reads() {
    for (fields, record) in written(&samples()) {
        let message = DynamicMessage::decode(book_schema(), &record.frame()[8..]).unwrap();
        assert_eq!(
            message
                .get_field_by_name("value")
                .unwrap()
                .as_bytes()
                .unwrap(),
            &fields.value
        );
        assert_eq!(
            message.get_field_by_name("offset").unwrap().as_u64(),
            Some(fields.offset)
        );
        assert_eq!(message.get_field_by_name("term").unwrap().as_u64(), Some(0));
    }
}

#[test]
fn what_a_protobuf_library_writes_the_log_reads() {
    let samples = samples();
    for chunk in samples.chunk_by(|a, b| a.offset + 1 == b.offset) {
        let log = log_of(
            &chunk.iter().flat_map(Fields::frame).collect::<Vec<_>>(),
            chunk[0].offset,
        );
        assert_eq!(
            log.next_offset(),
            Offset(chunk[0].offset).plus(chunk.len() as u64)
        );
        for fields in chunk {
            let record = log.read(Offset(fields.offset)).unwrap();
            assert_eq!(fields_of(&record), *fields);
            assert!(record.is_checked());
        }
    }
}

#[test]
fn what_the_book_writes_the_log_reads() {
    let mut store = Vec::new();
    // With the `term` and `type` of its last chapters too.
    for offset in 0..20_u64 {
        let mut message = DynamicMessage::new(book_schema());
        message.set_field_by_name("value", Value::Bytes(format!("value {offset}").into()));
        message.set_field_by_name("offset", Value::U64(offset));
        message.set_field_by_name("term", Value::U64(offset * offset % 7 * 1000));
        message.set_field_by_name("type", Value::U32(u32::try_from(offset % 3).unwrap()));
        store.extend(framed(&message.encode_to_vec()));
    }
    let log = log_of(&store, 0);
    for offset in 0..20 {
        let record = log.read(Offset(offset)).unwrap();
        assert_eq!(record.value(), format!("value {offset}").as_bytes());
        assert!(!record.is_checked());
    }
    assert_eq!(log.verify().unwrap().segments[0].unchecked_records, 20);
}

#[test]
fn unknown_fields_are_skipped_in_a_checked_record() {
    let known = Fields {
        key: b"key".into(),
        ..Fields::new(0, "value")
    };
    for (what, unknown) in unknown_fields() {
        let record = [known.message().encode_to_vec(), unknown].concat();
        let read = Record::from_frame(checked_frame(&record).into())
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(fields_of(&read), known, "{what}");
        assert_eq!(
            log_of(read.frame(), 0).read(Offset(0)).unwrap().value(),
            b"value",
            "{what}"
        );
    }
}

/// No flipped bit may turn a checked record into one that is accepted without its checksum.
#[test]
fn a_record_without_checksum_holds_only_fields_1_to_4() {
    let book = Fields::new(0, "value").message().encode_to_vec();
    Record::from_frame(framed(&book).into()).unwrap();
    let ours = [
        Fields {
            timestamp_ms: 1,
            ..Fields::new(0, "value")
        },
        Fields {
            key: b"key".into(),
            ..Fields::new(0, "value")
        },
        Fields {
            headers: vec![("name".into(), b"value".into())],
            ..Fields::new(0, "value")
        },
        Fields {
            batch_remaining: 1,
            ..Fields::new(0, "value")
        },
        Fields {
            producer: (b"id".into(), 0),
            ..Fields::new(0, "value")
        },
    ];
    for fields in ours {
        Record::from_frame(framed(&fields.message().encode_to_vec()).into()).unwrap_err();
    }
    for (what, unknown) in unknown_fields() {
        let frame = framed(&[book.clone(), unknown].concat());
        assert!(Record::from_frame(frame.into()).is_err(), "{what}");
    }
}

#[test]
fn the_checksum_is_the_last_field_and_right() {
    let sound = Fields::new(3, "value").frame();
    Record::from_frame(sound.clone().into()).unwrap();
    let checksum = &sound[sound.len() - 9..];
    assert_eq!(checksum[0], CHECKSUM_TAG);
    for after in [&b"\x48\x01"[..], checksum] {
        let record = [&sound[8..], after].concat();
        assert!(
            Record::from_frame(framed(&record).into()).is_err(),
            "something after the checksum"
        );
    }
    for bit in 0..64 {
        let mut frame = sound.clone();
        let at = frame.len() - 8 + bit / 8;
        frame[at] ^= 1 << (bit % 8);
        assert!(
            Record::from_frame(frame.into()).is_err(),
            "bit {bit} of the checksum"
        );
    }
}

fn unknown_fields() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("14, a varint", vec![14 << 3, 0xff, 0x01]),
        ("14, eight bytes", vec![14 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("14, bytes", vec![14 << 3 | 2, 3, b'a', b'b', b'c']),
        ("14, four bytes", vec![14 << 3 | 5, 1, 2, 3, 4]),
        ("14, no bytes", vec![14 << 3 | 2, 0]),
        ("16, a varint", vec![0x80, 0x01, 0x05]),
        ("1000, bytes", vec![0xc2, 0x3e, 2, b'h', b'i']),
    ]
}

/// Fields at the edges of their encodings, then random ones; the offsets rise by one but for jumps.
fn samples() -> Vec<Fields> {
    let mut samples = Vec::new();
    for bytes in [0, 1, 2, 127, 128, 16_383, 16_384, 1 << 21] {
        samples.push(Fields::new(samples.len() as u64, vec![b'v'; bytes]));
    }
    for number in [1, 127, 128, 1 << 32, 1 << 63, u64::MAX] {
        samples.push(Fields {
            timestamp_ms: number,
            ..Fields::new(samples.len() as u64, "timestamp")
        });
    }
    for (n, sequence) in [0, 1, 127, 128, 1 << 32, 1 << 49, 1 << 63, u64::MAX]
        .into_iter()
        .enumerate()
    {
        samples.push(Fields {
            producer: (vec![b'p'; 1 + 4 * n], sequence),
            ..Fields::new(samples.len() as u64, "producer")
        });
    }
    for offset in [1 << 7, 1 << 14, 1 << 32, 1 << 53, 1 << 63, u64::MAX - 2] {
        samples.push(Fields::new(offset, "offset"));
        samples.push(Fields::new(offset + 1, ""));
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for offset in 1000..1400 {
        samples.push(random_fields(offset, &mut rng));
    }
    samples
}

fn random_fields(offset: u64, rng: &mut Rng) -> Fields {
    let bytes = |rng: &mut Rng, most: usize| -> Vec<u8> {
        let length = rng.usize(0..=most);
        (0..length).map(|_| rng.u8(..)).collect()
    };
    let header = |rng: &mut Rng| {
        let length = rng.usize(0..9);
        (
            (0..length).map(|_| rng.char(..)).collect::<String>(),
            bytes(rng, 20),
        )
    };
    let headers = rng.usize(0..4);
    let id = if rng.bool() { bytes(rng, 32) } else { vec![] };
    let sequence = if id.is_empty() { 0 } else { offset };
    Fields {
        producer: (id, sequence),
        value: bytes(rng, 300),
        offset,
        timestamp_ms: rng.u64(..) >> rng.u32(0..64),
        key: bytes(rng, 40),
        headers: (0..headers).map(|_| header(rng)).collect(),
        ..Fields::default()
    }
}

/// The samples as a log wrote them: a log of its own for each run of offsets.
fn written(samples: &[Fields]) -> Vec<(Fields, Record)> {
    let mut written = Vec::new();
    for chunk in samples.chunk_by(|a, b| a.offset + 1 == b.offset) {
        let options = Options::new().initial_offset(chunk[0].offset);
        let log = Log::open_on(MemoryBackend::new(), options).unwrap();
        let mut latest_ms = 0;
        for fields in chunk {
            let headers: Vec<_> = fields
                .headers
                .iter()
                .map(|(name, value)| Header::new(name, value.clone()))
                .collect();
            let new = NewRecord::new(&fields.value)
                .key(&fields.key)
                .headers(&headers)
                .timestamp_ms(fields.timestamp_ms)
                .producer(&fields.producer.0, fields.producer.1);
            assert_eq!(log.append(new).unwrap(), Offset(fields.offset));
            let mut fields = fields.clone();
            if fields.timestamp_ms != 0 {
                // None is earlier than the one before it.
                latest_ms = latest_ms.max(fields.timestamp_ms);
                fields.timestamp_ms = latest_ms;
            }
            let read = log.read(Offset(fields.offset)).unwrap();
            written.push((fields, read));
        }
    }
    written.extend(written_batch());
    written
}

/// A batch: each record tells how many follow it.
fn written_batch() -> Vec<(Fields, Record)> {
    let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
    let records = (0..300).map(|_| NewRecord::new("batched").timestamp_ms(0));
    assert_eq!(log.append_batch(records).unwrap(), Offset(0)..Offset(300));
    (0..300)
        .map(|n| {
            let fields = Fields::new(n, "batched").in_batch(usize::try_from(n).unwrap(), 300);
            (fields, log.read(Offset(n)).unwrap())
        })
        .collect()
}

fn log_of(store: &[u8], base: u64) -> Log<MemoryBackend> {
    let files = Files::from([
        (format!("{base}.store"), store.to_vec()),
        (format!("{base}.index"), index_of(store)),
    ]);
    Log::open_on(memory_of(&files), Options::new()).unwrap()
}

fn fields_of(record: &Record) -> Fields {
    Fields {
        value: record.value().to_vec(),
        offset: record.offset().0,
        timestamp_ms: record.timestamp_ms().unwrap_or(0),
        key: record.key().unwrap_or_default().to_vec(),
        headers: record
            .headers()
            .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value).to_vec()))
            .collect(),
        batch_remaining: record.batch_remaining(),
        producer: record.producer().map_or_else(Default::default, |producer| {
            (producer.id.to_vec(), producer.sequence)
        }),
        ..Fields::default()
    }
}
