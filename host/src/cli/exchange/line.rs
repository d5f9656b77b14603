//! A record or a gap as a line of JSON.

use std::fmt;

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};
use proglog::{Gap, GapCause, Header, Offset, Producer, Record};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
    ser::SerializeMap,
};

use super::{Carried, Item, Stretch};

/// A record as a line: what there is of it, bytes as standard base64.
pub(super) struct RecordLine<'a>(pub(super) &'a Record);

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
pub(super) struct GapLine {
    pub(super) gap: Gap,
}

#[derive(Serialize)]
pub(super) struct DamagedLine {
    pub(super) damaged: Stretch,
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
pub(super) fn read_line(line: &[u8]) -> Result<Item, String> {
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
            timestamp_ms: None,
            key: None,
            value: None,
            headers: None,
            producer: None,
            batch_remaining: None,
            batch_records: None,
            damaged: None,
        } => Gap::of(first..=last, cause).map(Item::Gap).ok_or_else(|| {
            "a `gap` has a first and a last offset, which is below 2^64-1".to_owned()
        }),
        ReadLine { gap: Some(_), .. } => Err("`gap` stands alone".to_owned()),
        ReadLine {
            damaged: Some(ReadStretch { first, last }),
            offset: None,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: None,
            producer: None,
            batch_remaining: None,
            batch_records: None,
            gap: None,
        } if first <= last => Ok(Item::Damaged(Stretch { first, last })),
        ReadLine {
            damaged: Some(_), ..
        } => Err("`damaged` stands alone, with a first and a last offset".to_owned()),
        ReadLine { offset: None, .. } => Err("it has no `offset`".to_owned()),
        ReadLine { value: None, .. } => Err("it has no `value`".to_owned()),
        ReadLine {
            producer: Some(ReadProducer { id, .. }),
            ..
        } if !(1..=Producer::ID_BYTES_MAX).contains(&id.0.len()) => Err(format!(
            "the `id` of a `producer` has {} bytes; give 1 to {}",
            id.0.len(),
            Producer::ID_BYTES_MAX
        )),
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

#[cfg(test)]
mod tests {
    use proglog::Offset;

    use super::{Item, read_line};

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
            (
                r#"{"damaged":{"first":1,"last":1},"key":""}"#,
                "`damaged` stands alone",
            ),
            (
                r#"{"gap":{"first":1,"last":1,"cause":"lost"},"headers":[]}"#,
                "`gap` stands alone",
            ),
            (
                r#"{"offset":1,"value":"","producer":{"id":"","sequence":1}}"#,
                "the `id` of a `producer` has 0 bytes; give 1 to 32",
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
