//! A record as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proglog::{Offset, Producer, Record};
use serde::Serialize;

/// A record as the REST server answers it and `proglog read --json` prints it: the book's `value` and
/// `offset`, then what else the record has. Bytes are standard base64.
#[derive(Clone, Debug, Serialize)]
pub struct RecordJson {
    value: String,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<ProducerJson>,
}

#[derive(Clone, Debug, Serialize)]
struct ProducerJson {
    id: String,
    sequence: u64,
}

#[derive(Clone, Debug, Serialize)]
struct HeaderJson {
    name: String,
    value: String,
}

impl From<&Record> for RecordJson {
    fn from(record: &Record) -> Self {
        let headers = record.headers().map(|(name, value)| HeaderJson {
            name: name.to_owned(),
            value: STANDARD.encode(value),
        });
        Self {
            value: STANDARD.encode(record.value()),
            offset: record.offset(),
            timestamp_ms: record.timestamp_ms(),
            key: record.key().map(|key| STANDARD.encode(key)),
            headers: headers.collect(),
            producer: record.producer().map(ProducerJson::from),
        }
    }
}

impl From<Producer<'_>> for ProducerJson {
    fn from(producer: Producer<'_>) -> Self {
        Self {
            id: STANDARD.encode(producer.id),
            sequence: producer.sequence,
        }
    }
}
