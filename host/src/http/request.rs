//! What requests ask for, read from JSON and the query.

use std::{fmt, marker::PhantomData, time::Duration};

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use proglog::{AppendOptions, Header, NewRecord, Offset, Producer};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::problem::Problem;

/// The body of an append.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendRequest {
    pub(super) record: PostedRecord,
    expected_next_offset: Option<WholeNumber>,
}

impl AppendRequest {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let Object(request) = parse_json(body, r#"{"record":{"value":"<base64>"}}"#)?;
        Ok(request)
    }

    pub(super) fn options(&self) -> AppendOptions {
        let mut options = AppendOptions::new();
        options.expected_next_offset = self
            .expected_next_offset
            .as_ref()
            .map(|offset| Offset(offset.0));
        options
    }
}

impl Fields for AppendRequest {
    const EXPECTED: &'static str = "an object with `record`";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadRequest {
    offset: WholeNumber,
}

impl Fields for ReadRequest {
    const EXPECTED: &'static str = "an object with `offset`";
}

/// The offset that a read asks for, by its query or its body.
pub(super) fn parse_offset(query: &str, body: &[u8]) -> Result<Offset, Problem> {
    match (query.is_empty(), body.is_empty()) {
        (false, true) => parse_query(query),
        (true, false) => {
            let Object::<ReadRequest>(request) = parse_json(body, r#"{"offset":0}"#)?;
            Ok(Offset(request.offset.0))
        }
        (false, false) => Err(Problem::bad_request(
            "both the query and the body ask for something; send the offset in one of them",
        )),
        (true, true) => Err(Problem::bad_request(
            "which record? ask with GET /?offset=0, or with the body {\"offset\":0}",
        )),
    }
}

/// The id of a producer in a path.
pub(super) fn parse_producer_id(id: &str) -> Result<Vec<u8>, Problem> {
    const OF_URLS: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    OF_URLS.decode(id).map_err(|error| {
        Problem::bad_request(format!(
            "{id} is no producer's id: {error}; give it as base64 with - and _ in place of + and /"
        ))
    })
}

/// Whether all of the log is to be looked through.
pub(super) fn parse_search(query: &str) -> Result<bool, Problem> {
    match query {
        "" => Ok(false),
        "search=log" => Ok(true),
        _ => Err(Problem::bad_request(
            "a query of a producer is search=log, which looks through all of the log, or none",
        )),
    }
}

fn parse_query(query: &str) -> Result<Offset, Problem> {
    let [offset] = parse_numbers(query, ["offset"])?;
    offset
        .map(Offset)
        .ok_or_else(|| Problem::bad_request("the query has no `offset`: GET /?offset=0"))
}

/// Which records are asked for, and how many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordsRequest {
    pub(super) from: Offset,
    pub(super) bytes_max: usize,
    pub(super) wait: Duration,
}

impl RecordsRequest {
    /// The most that is asked of the log at once.
    const BYTES_MAX: usize = 1 << 20;
    /// The longest wait: less than a stop gives to requests in flight.
    const WAIT_MAX: Duration = Duration::from_secs(5);

    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let [from, bytes_max, wait_ms] = parse_numbers(query, ["from", "bytes_max", "wait_ms"])?;
        let from = from.ok_or_else(|| {
            Problem::bad_request("from which record on? ask with GET /records?from=0")
        })?;
        let bytes_max = bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self {
            from: Offset(from),
            bytes_max: bytes_max.map_or(Self::BYTES_MAX, |bytes| bytes.min(Self::BYTES_MAX)),
            wait: Duration::from_millis(wait_ms.unwrap_or_default()).min(Self::WAIT_MAX),
        })
    }
}

/// The whole numbers that a query has under these names, each at most once, and nothing else.
fn parse_numbers<const N: usize>(
    query: &str,
    names: [&str; N],
) -> Result<[Option<u64>; N], Problem> {
    let mut numbers = [None; N];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let names = names.join("`, `");
            return Err(Problem::bad_request(format!(
                "unknown query parameter `{name}`, expected `{names}`"
            )));
        };
        // Rust would take a plus sign too.
        let is_digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| is_digits).ok_or_else(|| {
            Problem::bad_request(format!("{name}={value} is none: give {WHOLE_NUMBER}"))
        })?;
        if numbers[at].replace(number).is_some() {
            return Err(Problem::bad_request(format!(
                "the query has more than one `{name}`"
            )));
        }
    }
    Ok(numbers)
}

fn parse_json<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Problem> {
    let wrong =
        |what: &dyn fmt::Display| Problem::bad_request(format!("{what}; send JSON like {example}"));
    if body.is_empty() {
        return Err(wrong(&"the body is empty"));
    }
    serde_json::from_slice(body).map_err(|error| wrong(&error))
}

/// A record to append: `"<base64>"` or an object.
#[derive(Debug, Default)]
pub(super) struct PostedRecord {
    value: Vec<u8>,
    key: Vec<u8>,
    headers: Vec<Header>,
    timestamp_ms: Option<u64>,
    producer: Option<(Vec<u8>, u64)>,
}

impl PostedRecord {
    pub(super) fn as_new_record(&self) -> NewRecord<'_> {
        let mut record = NewRecord::new(&self.value)
            .key(&self.key)
            .headers(&self.headers);
        if let Some((id, sequence)) = &self.producer {
            record = record.producer(id, *sequence);
        }
        match self.timestamp_ms {
            Some(timestamp_ms) => record.timestamp_ms(timestamp_ms),
            None => record,
        }
    }
}

impl<'de> Deserialize<'de> for PostedRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrObject;
        impl<'de> Visitor<'de> for TextOrObject {
            type Value = PostedRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record: an object with `value`, or the value alone as base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PostedRecord, E> {
                Ok(PostedRecord {
                    value: decode(text)?,
                    ..PostedRecord::default()
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PostedRecord, A::Error> {
                let fields = RecordFields::deserialize(MapAccessDeserializer::new(map))?;
                let headers = fields.headers.unwrap_or_default().into_iter();
                if let Some(Object(ProducerFields { id, .. })) = &fields.producer
                    && !(1..=Producer::ID_BYTES_MAX).contains(&id.0.len())
                {
                    return Err(de::Error::custom(format_args!(
                        "the `id` of a `producer` has {} bytes, and is to have 1 to {}",
                        id.0.len(),
                        Producer::ID_BYTES_MAX
                    )));
                }
                Ok(PostedRecord {
                    value: fields.value.0,
                    key: fields.key.0,
                    headers: headers
                        .map(|Object(h)| Header::new(h.name, h.value.0))
                        .collect(),
                    timestamp_ms: fields.timestamp_ms.map(|ms| ms.0),
                    producer: fields.producer.map(|Object(p)| (p.id.0, p.sequence.0)),
                })
            }
        }
        deserializer.deserialize_any(TextOrObject)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFields {
    value: Base64,
    #[serde(default)]
    key: Base64,
    headers: Option<Vec<Object<HeaderFields>>>,
    timestamp_ms: Option<WholeNumber>,
    producer: Option<Object<ProducerFields>>,
    /// A program built on the book's `Record` sends it, and the log gives its own, as the book's does.
    #[serde(rename = "offset")]
    _offset: Option<WholeNumber>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderFields {
    name: String,
    #[serde(default)]
    value: Base64,
}

impl Fields for HeaderFields {
    const EXPECTED: &'static str = "a header: an object with `name` and `value`";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerFields {
    id: Base64,
    sequence: WholeNumber,
}

impl Fields for ProducerFields {
    const EXPECTED: &'static str = "a producer: an object with `id` and `sequence`";
}

/// The fields of an object.
trait Fields {
    const EXPECTED: &'static str;
}

/// `T` from an object alone: what serde derives takes an array of the fields' values too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de> + Fields> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectOnly<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Fields> Visitor<'de> for ObjectOnly<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectOnly(PhantomData))
    }
}

/// Bytes, as base64. `null` is none, as Go writes a nil slice.
#[derive(Default)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
                decode(text).map(Base64)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Base64, E> {
                Ok(Base64::default())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// What Go's `base64.StdEncoding` takes: padding is required, spare bits at the end are not looked at,
/// and line breaks are skipped.
fn decode<E: de::Error>(text: &str) -> Result<Vec<u8>, E> {
    const GO_STANDARD: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let decoded = if text.contains(['\r', '\n']) {
        GO_STANDARD.decode(text.replace(['\r', '\n'], ""))
    } else {
        GO_STANDARD.decode(text)
    };
    decoded.map_err(|error| {
        let what = match error {
            DecodeError::InvalidByte(at, byte) => {
                format!("'{}' stands at character {at}", byte.escape_ascii())
            }
            DecodeError::InvalidPadding => "the = padding is missing or wrong".to_owned(),
            DecodeError::InvalidLength(length) => {
                format!("{length} characters are too many or too few")
            }
            DecodeError::InvalidLastSymbol { .. } => error.to_string(),
        };
        E::custom(format_args!(
            "not standard base64 (A-Z a-z 0-9 + / padded with = to a multiple of 4): {what}"
        ))
    })
}

const WHOLE_NUMBER: &str = "a whole number from 0 to 18446744073709551615";

/// A `u64` whose errors say so.
#[derive(Debug)]
struct WholeNumber(u64);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = WholeNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WHOLE_NUMBER)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(number))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendRequest, parse_offset, parse_producer_id};
    use proglog::Offset;

    fn value(body: &str) -> Vec<u8> {
        AppendRequest::parse(body.as_bytes()).unwrap().record.value
    }

    fn refused(body: &str) -> String {
        AppendRequest::parse(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn takes_what_the_books_program_takes() {
        assert_eq!(
            value(r#"{"record":{"value":"TGV0J3MgR28gIzEK"}}"#),
            b"Let's Go #1\n"
        );
        assert_eq!(value(r#"{"record":{"value":"aGk=","offset":7}}"#), b"hi");
        assert_eq!(value(r#"{"record":{"value":null}}"#), b"");
        assert_eq!(value(r#"{"record":"aGk="}"#), b"hi");
        assert_eq!(
            value(r#"{"record":{"value":"aG\r\nk="}}"#),
            b"hi",
            "Go skips line breaks"
        );
        assert_eq!(
            value(r#"{"record":{"value":"aGl="}}"#),
            b"hi",
            "Go ignores spare bits"
        );
    }

    #[test]
    fn says_what_is_wrong_with_an_append() {
        for (body, said) in [
            ("", "the body is empty"),
            ("{", "EOF while parsing"),
            ("[]", "expected an object with `record`"),
            (r#"["aGk="]"#, "expected an object with `record`"),
            (r#"[{"value":"aGk="}]"#, "expected an object with `record`"),
            (r#"{"record":["aGk="]}"#, "an object with `value`"),
            (
                r#"{"record":{"value":"","headers":[["n","aGk="]]}}"#,
                "a header: an object with `name`",
            ),
            ("{}", "missing field `record`"),
            (r#"{"record":{}}"#, "missing field `value`"),
            (
                r#"{"record":{"value":"aGk=","colour":1}}"#,
                "unknown field `colour`",
            ),
            (r#"{"record":"","recrod":""}"#, "unknown field `recrod`"),
            (r#"{"record":"","record":""}"#, "duplicate field `record`"),
            (r#"{"record":7}"#, "the value alone as base64"),
            (r#"{"record":{"value":7}}"#, "expected a string of base64"),
            (r#"{"record":"aGk"}"#, "padding is missing"),
            (r#"{"record":"aG-_"}"#, "'-' stands at character 2"),
            (r#"{"record":"a"}"#, "not standard base64"),
            (
                r#"{"record":{"value":"","timestamp_ms":-1}}"#,
                "a whole number from 0",
            ),
            (
                r#"{"record":{"value":"","headers":[{"value":""}]}}"#,
                "missing field `name`",
            ),
            (
                r#"{"record":{"value":"","producer":{"id":"YQ=="}}}"#,
                "missing field `sequence`",
            ),
            (
                r#"{"record":{"value":"","producer":["YQ==",1]}}"#,
                "a producer: an object with `id`",
            ),
            (
                r#"{"record":"","expected_next_offset":-1}"#,
                "a whole number from 0",
            ),
            (r#"{"record":""} {}"#, "trailing characters"),
        ] {
            let message = refused(body);
            assert!(message.contains(said), "{body}: {message}");
            assert!(message.contains("send JSON like"), "{message}");
        }
    }

    #[test]
    fn reads_a_producer_from_a_path() {
        for id in ["_-8", "_-8="] {
            assert_eq!(parse_producer_id(id).unwrap(), [0xff, 0xef]);
        }
        for id in ["/+8=", "a", "%"] {
            let message = parse_producer_id(id).unwrap_err().message;
            assert!(message.contains("base64"), "{message}");
        }
    }

    #[test]
    fn reads_the_offset_from_query_or_body() {
        assert_eq!(parse_offset("", br#"{"offset":7}"#).unwrap(), Offset(7));
        assert_eq!(parse_offset("offset=7", b"").unwrap(), Offset(7));
        let highest = format!("offset={}", u64::MAX);
        assert_eq!(parse_offset(&highest, b"").unwrap(), Offset(u64::MAX));
        for (query, body, said) in [
            ("", "", "which record?"),
            ("offset=1", r#"{"offset":1}"#, "both the query and the body"),
            ("offset=-1", "", "offset=-1 is no offset"),
            ("offset=1.5", "", "a whole number"),
            ("offset=%2B0", "", "offset=+0 is no offset"),
            ("offset=", "", "a whole number"),
            ("offset=18446744073709551616", "", "a whole number"),
            ("offset=1&offset=2", "", "more than one"),
            ("ofset=1", "", "unknown query parameter `ofset`"),
            ("", r#"{"offset":-1}"#, "a whole number"),
            ("", r#"{"offset":1.5}"#, "a whole number"),
            ("", r#"{"offset":"1"}"#, "a whole number"),
            ("", r#"{"offset":null}"#, "a whole number"),
            ("", "[0]", "expected an object with `offset`"),
            ("", r#"{"ofset":1}"#, "unknown field `ofset`"),
            ("", "{}", "missing field `offset`"),
        ] {
            let message = parse_offset(query, body.as_bytes()).unwrap_err().message;
            assert!(message.contains(said), "{query} {body}: {message}");
        }
    }
}
