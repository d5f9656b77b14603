//! What `proglog export` writes and `proglog import` reads.

use std::{
    fmt,
    io::{self, Write},
};

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::ValueEnum;
use proglog::{Gap, GapCause, Header, NewRecord, Offset, Producer, Record};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
    ser::SerializeMap,
};

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line of JSON for each record and each gap
    #[default]
    Ndjson,
    /// The frames as they stand in the stores: eight bytes of length, big-endian, then the record with its
    /// checksum; see core/FORMAT.md, "Store"
    Binary,
}

/// What is in an export, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Record(Carried),
    /// Offsets that are not there, by word of the log that was exported.
    Gap(Gap),
    /// Offsets whose records were damaged in the log that was exported.
    Damaged(Stretch),
}

/// Offsets from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stretch {
    pub(crate) first: Offset,
    pub(crate) last: Offset,
}

/// A record between two logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) offset: Offset,
    /// 0 is none.
    pub(crate) timestamp_ms: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<Header>,
    /// Whose record it is, and its sequence.
    pub(crate) producer: Option<(Vec<u8>, u64)>,
    pub(crate) batch_remaining: u32,
    pub(crate) batch_records: u32,
}

impl Carried {
    pub(crate) fn to_append(&self) -> NewRecord<'_> {
        let record = NewRecord::new(&self.value)
            .key(&self.key)
            .headers(&self.headers)
            .timestamp_ms(self.timestamp_ms);
        match &self.producer {
            Some((id, sequence)) => record.producer(id, *sequence),
            None => record,
        }
    }

    /// What it takes in memory, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|h| size_of::<Header>() + h.name.len() + h.value.len());
        let producer = self.producer.as_ref().map_or(0, |(id, _)| id.len());
        let lengths = self.key.len() + self.value.len() + headers.sum::<usize>() + producer;
        (size_of::<Self>() + lengths) as u64
    }

    /// Whether a log has it so. How much of its batch is there does not matter.
    pub(crate) fn is(&self, record: &Record) -> bool {
        let headers = self.headers.iter().map(|h| (&*h.name, &*h.value));
        let producer = record.producer().map(|p| (p.id, p.sequence));
        self.offset == record.offset()
            && self.value == record.value()
            && self.key == record.key().unwrap_or_default()
            && self.timestamp_ms == record.timestamp_ms().unwrap_or_default()
            && headers.eq(record.headers())
            && self
                .producer
                .as_ref()
                .map(|(id, sequence)| (&**id, *sequence))
                == producer
    }
}

/// Whether a record is of the batch of which these are the first ones.
pub(crate) fn goes_on_with(batch: &[Carried], record: &Carried) -> bool {
    batch.last().is_none_or(|before| {
        before.batch_remaining.checked_sub(1) == Some(record.batch_remaining)
            // The end of a batch says so: after a batch that was cut there may be a lone record.
            && (record.batch_remaining > 0 || u64::from(record.batch_records) > batch.len() as u64)
            && match (&before.producer, &record.producer) {
                (None, None) => true,
                (Some((id, before)), Some((own, sequence))) => id == own && before < sequence,
                _ => false,
            }
    })
}

impl From<&Record> for Carried {
    fn from(record: &Record) -> Self {
        let headers = record.headers();
        Self {
            offset: record.offset(),
            timestamp_ms: record.timestamp_ms().unwrap_or_default(),
            key: record.key().unwrap_or_default().to_vec(),
            value: record.value().to_vec(),
            headers: headers.map(Header::from).collect(),
            producer: record.producer().map(|p| (p.id.to_vec(), p.sequence)),
            batch_remaining: record.batch_remaining(),
            batch_records: record.batch_records(),
        }
    }
}

impl Format {
    pub(crate) fn write_record(self, out: &mut impl Write, record: &Record) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &RecordLine(record))?;
                out.write_all(b"\n")
            }
            Self::Binary => out.write_all(record.frame()),
        }
    }

    pub(crate) fn write_gap(self, out: &mut impl Write, gap: Gap) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &GapLine { gap })?;
                out.write_all(b"\n")
            }
            Self::Binary => out.write_all(&gap.to_frame()),
        }
    }

    /// Marks where damaged records were left out. Between frames the next one's offset tells.
    pub(crate) fn write_damaged(self, out: &mut impl Write, damaged: Stretch) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &DamagedLine { damaged })?;
                out.write_all(b"\n")
            }
            Self::Binary => Ok(()),
        }
    }

    /// What its items are called in a message.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Ndjson => "line",
            Self::Binary => "frame",
        }
    }
}

/// A record as a line: what there is of it, bytes as standard base64.
struct RecordLine<'a>(&'a Record);

impl Serialize for RecordLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("offset", &record.offset())?;
        if let Some(timestamp_ms) = record.timestamp_ms() {
            line.serialize_entry("timestamp_ms", &timestamp_ms)?;
        }
        if let Some(key) = record.key() {
            line.serialize_entry("key", &AsBase64(key))?;
        }
        line.serialize_entry("value", &AsBase64(record.value()))?;
        let headers = record.headers().map(|(name, value)| WrittenHeader {
            name,
            value: AsBase64(value),
        });
        let headers: Vec<_> = headers.collect();
        if !headers.is_empty() {
            line.serialize_entry("headers", &headers)?;
        }
        if let Some(Producer { id, sequence, .. }) = record.producer() {
            let id = AsBase64(id);
            line.serialize_entry("producer", &WrittenProducer { id, sequence })?;
        }
        if record.batch_remaining() > 0 {
            line.serialize_entry("batch_remaining", &record.batch_remaining())?;
        }
        if record.batch_records() > 0 {
            line.serialize_entry("batch_records", &record.batch_records())?;
        }
        line.end()
    }
}

#[derive(Serialize)]
struct WrittenHeader<'a> {
    name: &'a str,
    value: AsBase64<'a>,
}

#[derive(Serialize)]
struct WrittenProducer<'a> {
    id: AsBase64<'a>,
    sequence: u64,
}

struct AsBase64<'a>(&'a [u8]);

impl Serialize for AsBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

#[derive(Serialize)]
struct GapLine {
    gap: Gap,
}

#[derive(Serialize)]
struct DamagedLine {
    damaged: Stretch,
}

/// A line as it is read: a record, a gap, or the mark of damaged ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadLine {
    offset: Option<u64>,
    timestamp_ms: Option<u64>,
    key: Option<FromBase64>,
    value: Option<FromBase64>,
    headers: Option<Vec<ReadHeader>>,
    producer: Option<ReadProducer>,
    batch_remaining: Option<u32>,
    batch_records: Option<u32>,
    gap: Option<ReadGap>,
    damaged: Option<ReadStretch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadHeader {
    name: String,
    value: FromBase64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadProducer {
    id: FromBase64,
    sequence: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadGap {
    first: Offset,
    last: Offset,
    cause: GapCause,
}

#[derive(Deserialize)]
struct ReadStretch {
    first: Offset,
    last: Offset,
}

#[derive(Default)]
struct FromBase64(Vec<u8>);

impl<'de> Deserialize<'de> for FromBase64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = FromBase64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FromBase64, E> {
                let bytes = STANDARD.decode(text);
                let bytes = bytes.map_err(|error| {
                    E::custom(format_args!("not standard base64, padded with =: {error}"))
                })?;
                Ok(FromBase64(bytes))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads a line. What is wrong with it, in words.
fn read_line(line: &[u8]) -> Result<Item, String> {
    let line = serde_json::from_slice::<ReadLine>(line).map_err(|error| {
        let text = error.to_string();
        match text.rsplit_once(" at line ") {
            Some((what, _)) => format!("{what}, at column {}", error.column()),
            None => text,
        }
    })?;
    match line {
        ReadLine {
            gap: Some(ReadGap { first, last, cause }),
            offset: None,
            value: None,
            damaged: None,
            ..
        } => Gap::of(first..=last, cause).map(Item::Gap).ok_or_else(|| {
            "a `gap` has a first and a last offset, which is below 2^64-1".to_owned()
        }),
        ReadLine { gap: Some(_), .. } => Err("`gap` stands alone".to_owned()),
        ReadLine {
            damaged: Some(ReadStretch { first, last }),
            offset: None,
            value: None,
            ..
        } if first <= last => Ok(Item::Damaged(Stretch { first, last })),
        ReadLine {
            damaged: Some(_), ..
        } => Err("`damaged` stands alone, with a first and a last offset".to_owned()),
        ReadLine { offset: None, .. } => Err("it has no `offset`".to_owned()),
        ReadLine { value: None, .. } => Err("it has no `value`".to_owned()),
        ReadLine {
            offset: Some(offset),
            value: Some(value),
            ..
        } => {
            let headers = line.headers.unwrap_or_default().into_iter();
            Ok(Item::Record(Carried {
                offset: Offset(offset),
                timestamp_ms: line.timestamp_ms.unwrap_or_default(),
                key: line.key.unwrap_or_default().0,
                value: value.0,
                headers: headers.map(|h| Header::new(h.name, h.value.0)).collect(),
                producer: line.producer.map(|p| (p.id.0, p.sequence)),
                batch_remaining: line.batch_remaining.unwrap_or_default(),
                batch_records: line.batch_records.unwrap_or_default(),
            }))
        }
    }
}

/// Cuts an input into items.
pub(crate) struct Decoder {
    format: Format,
    record_bytes_max: u64,
    buffer: Vec<u8>,
    /// Where the next item begins in it.
    start: usize,
    /// How many bytes of that were looked at.
    searched: usize,
    /// How many lines or frames were taken.
    taken: u64,
    ended: bool,
}

/// Why no record can be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Malformed(String),
    TooLarge(String),
}

impl Decoder {
    pub(crate) fn new(format: Format, record_bytes_max: u64) -> Self {
        Self {
            format,
            record_bytes_max,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            taken: 0,
            ended: false,
        }
    }

    /// Takes more of the input, once [`Decoder::next`] has no more to give.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// The number of the line or frame that was taken last, from 1 on.
    pub(crate) fn number(&self) -> u64 {
        self.taken
    }

    /// The next item. `None`: more of the input is needed, or it is at its end.
    pub(crate) fn next(&mut self) -> Option<Result<Item, Bad>> {
        match self.format {
            Format::Ndjson => loop {
                let line = match self.next_line()? {
                    Ok(line) => line,
                    Err(bad) => return Some(Err(bad)),
                };
                if !line.trim_ascii().is_empty() {
                    return Some(read_line(line).map_err(Bad::Malformed));
                }
            },
            Format::Binary => self.next_frame(),
        }
    }

    fn next_line(&mut self) -> Option<Result<&[u8], Bad>> {
        let rest = &self.buffer[self.start..];
        let newline = memchr::memchr(b'\n', &rest[self.searched..]);
        let (bytes, taken) = match newline {
            Some(at) => (self.searched + at, self.searched + at + 1),
            None if self.ended && !rest.is_empty() => (rest.len(), rest.len()),
            None => (rest.len(), 0),
        };
        if bytes as u64 > line_bytes_max(self.record_bytes_max) {
            self.taken += 1;
            return Some(Err(self.too_large("it is longer than a record can be")));
        }
        if taken == 0 {
            self.searched = rest.len();
            return None;
        }
        let line = self.start..self.start + bytes;
        self.start += taken;
        self.searched = 0;
        self.taken += 1;
        Some(Ok(&self.buffer[line]))
    }

    fn next_frame(&mut self) -> Option<Result<Item, Bad>> {
        let rest = &self.buffer[self.start..];
        if rest.is_empty() {
            return None;
        }
        let frame = rest.first_chunk().and_then(|&length| {
            let bytes = u64::from_be_bytes(length);
            if bytes > self.record_bytes_max {
                return Some(Err(bytes));
            }
            // No more than is there: it fits.
            let bytes = usize::try_from(bytes).ok()?;
            rest.get(..bytes.checked_add(length.len())?).map(Ok)
        });
        let item = match frame {
            Some(Ok(frame)) => {
                self.start += frame.len();
                match Gap::from_frame(frame) {
                    Some(gap) => Ok(Item::Gap(gap)),
                    None => Record::from_frame(Bytes::copy_from_slice(frame))
                        .map(|record| Item::Record(Carried::from(&record)))
                        .map_err(|reason| Bad::Malformed(reason.to_string())),
                }
            }
            Some(Err(bytes)) => Err(self.too_large(&format!("its length says {bytes}"))),
            None if self.ended => Err(Bad::Malformed("the input ends within it".to_owned())),
            None => return None,
        };
        self.taken += 1;
        Some(item)
    }

    fn too_large(&self, what: &str) -> Bad {
        Bad::TooLarge(format!(
            "{what}, with the {} bytes that --record-bytes-max allows",
            self.record_bytes_max
        ))
    }
}

/// The longest line of a record of so many bytes: an empty header takes 2 of them, and 23 in JSON.
fn line_bytes_max(record_bytes_max: u64) -> u64 {
    record_bytes_max.saturating_mul(12).saturating_add(512)
}

#[cfg(test)]
mod tests {
    use proglog::{Clock, Log, MemoryBackend, NewRecord, Options};

    use super::{Bad, Decoder, Format, Header, Item, Offset, read_line};

    const FORMATS: [Format; 2] = [Format::Ndjson, Format::Binary];

    /// A log of records of every kind.
    fn log() -> Log<MemoryBackend> {
        let options = Options::new().clock(Clock::NONE);
        let log = Log::open_on(MemoryBackend::new(), options).unwrap();
        let headers = [
            Header::new("a\n\u{1}\"é", b"\xff"),
            Header::new("", ""),
            Header::new("", "again"),
        ];
        log.append(NewRecord::new("").timestamp_ms(0)).unwrap();
        let key: Vec<u8> = (0..=255).collect();
        log.append_batch([
            NewRecord::new("b").key(&key).timestamp_ms(1),
            NewRecord::new(&[0xff; 3000]).headers(&headers),
        ])
        .unwrap();
        log
    }

    fn exported(format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        for record in log().scan(..) {
            format.write_record(&mut out, &record.unwrap()).unwrap();
        }
        out
    }

    fn items(format: Format, input: &[u8], piece_bytes: usize) -> Result<Vec<Item>, Bad> {
        let mut decoder = Decoder::new(format, 1 << 20);
        let mut items = Vec::new();
        for piece in input.chunks(piece_bytes) {
            decoder.push(piece);
            while let Some(item) = decoder.next() {
                items.push(item?);
            }
        }
        decoder.end();
        while let Some(item) = decoder.next() {
            items.push(item?);
        }
        Ok(items)
    }

    #[test]
    fn reads_what_was_written_however_it_comes() {
        let records: Vec<_> = log().scan(..).map(Result::unwrap).collect();
        for format in FORMATS {
            let input = exported(format);
            for piece_bytes in [1, 7, 100, input.len()] {
                let items = items(format, &input, piece_bytes).unwrap();
                assert_eq!(items.len(), records.len());
                for (item, record) in items.iter().zip(&records) {
                    let Item::Record(carried) = item else {
                        panic!("{item:?}");
                    };
                    assert!(carried.is(record));
                    assert_eq!(carried.batch_remaining, record.batch_remaining());
                    assert_eq!(carried.batch_records, record.batch_records());
                }
            }
        }
    }

    /// And every flipped bit of frames is told, since a checksum covers them all.
    #[test]
    fn no_bytes_make_it_panic() {
        for format in FORMATS {
            let input = exported(format);
            for cut in 0..input.len() {
                let read = items(format, &input[..cut], 64);
                if format == Format::Binary {
                    let is_whole = read.as_ref().is_ok_and(|items| !items.is_empty());
                    assert_eq!(read.is_err(), cut > 0 && !is_whole, "{cut}");
                }
            }
            for bit in 0..input.len() * 8 {
                let mut flipped = input.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = items(format, &flipped, 1 << 20);
                if format == Format::Binary {
                    assert!(read.is_err(), "bit {bit}: {read:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_taken_that_is_too_long() {
        let mut decoder = Decoder::new(Format::Ndjson, 100);
        let mut taken = 0;
        while decoder.next().is_none() {
            decoder.push(&[b' '; 100]);
            taken += 100;
            assert!(taken < 2000);
        }
        let mut decoder = Decoder::new(Format::Binary, 100);
        decoder.push(&101_u64.to_be_bytes());
        assert!(matches!(decoder.next(), Some(Err(Bad::TooLarge(_)))));
        let mut decoder = Decoder::new(Format::Binary, u64::MAX);
        decoder.push(&u64::MAX.to_be_bytes());
        assert_eq!(decoder.next(), None);
        decoder.end();
        assert!(matches!(decoder.next(), Some(Err(Bad::Malformed(_)))));
    }

    /// The longest line is that of a record of nothing but empty headers.
    #[test]
    fn the_longest_line_of_a_record_is_taken() {
        let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
        for (header, count) in [
            (Header::new("", ""), 20_000),
            (Header::new("\u{1}".repeat(1000), ""), 200),
            (Header::new("", "a"), 20_000),
        ] {
            let headers = vec![header; count];
            let offset = log.append(NewRecord::new("").headers(&headers)).unwrap();
            let record = log.read(offset).unwrap();
            let mut out = Vec::new();
            Format::Ndjson.write_record(&mut out, &record).unwrap();
            let mut decoder = Decoder::new(Format::Ndjson, record.frame().len() as u64 - 8);
            decoder.push(&out);
            let item = decoder.next();
            assert!(matches!(item, Some(Ok(Item::Record(_)))), "{item:?}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        for (line, what) in [
            (r#"{"offset":1}"#, "it has no `value`"),
            (r#"{"value":""}"#, "it has no `offset`"),
            ("{}", "it has no `offset`"),
            ("[]", "invalid"),
            ("7", "invalid type: integer `7`"),
            ("x", "expected value, at column 1"),
            (r#"{"offset":1,"value":""#, "EOF while parsing"),
            (r#"{"offset":1,"value":""}}"#, "trailing characters"),
            (r#"{"offset":-1,"value":""}"#, "invalid value: integer `-1`"),
            (r#"{"offset":1.5,"value":""}"#, "invalid type"),
            (r#"{"offset":18446744073709551616,"value":""}"#, "invalid"),
            (r#"{"offset":"1","value":""}"#, "invalid type: string"),
            (r#"{"offset":1,"value":7}"#, "expected a string of base64"),
            (r#"{"offset":1,"value":"a"}"#, "not standard base64"),
            (r#"{"offset":1,"value":"YQ"}"#, "not standard base64"),
            (r#"{"offset":1,"value":"YR=="}"#, "not standard base64"),
            (r#"{"offset":1,"value":"_w=="}"#, "not standard base64"),
            (r#"{"offset":1,"value":"","value":""}"#, "duplicate field"),
            (
                r#"{"offset":1,"value":"","more":1}"#,
                "unknown field `more`",
            ),
            (
                r#"{"offset":1,"value":"","timestamp_ms":-1}"#,
                "invalid value",
            ),
            (
                r#"{"offset":1,"value":"","batch_remaining":4294967296}"#,
                "invalid value",
            ),
            (
                r#"{"offset":1,"value":"","headers":[{"name":"a"}]}"#,
                "missing field `value`",
            ),
            (
                r#"{"offset":1,"value":"","headers":{}}"#,
                "invalid type: map",
            ),
            (
                r#"{"damaged":{"first":2,"last":1}}"#,
                "`damaged` stands alone",
            ),
            (
                r#"{"offset":1,"value":"","damaged":{"first":1,"last":1}}"#,
                "`damaged` stands alone",
            ),
            ("\u{feff}{}", "expected value"),
        ] {
            let wrong = read_line(line.as_bytes()).unwrap_err();
            assert!(wrong.contains(what), "{line}: {wrong}");
            assert!(!wrong.contains("line 1"), "{wrong}");
        }
        let wrong = read_line(b"{\"offset\":1,\"value\":\"\xff\"}").unwrap_err();
        assert!(wrong.contains("invalid unicode"), "{wrong}");
        let plain = r#" {"value":"aGk=","key":null,"offset":3,"headers":[]} "#;
        let Item::Record(record) = read_line(plain.as_bytes()).unwrap() else {
            panic!("no record");
        };
        assert_eq!((record.offset, &*record.value), (Offset(3), &b"hi"[..]));
        assert_eq!((record.timestamp_ms, &*record.key), (0, &b""[..]));
    }
}
