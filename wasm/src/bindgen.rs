//! The class `Log` for JavaScript, over the same session as the raw exports.

mod directory;

use js_sys::{Array, BigInt, Date, Error, Number, Object, Reflect, Uint8Array};
use proglog::{Compaction, Durability};
use wasm_bindgen::{
    JsCast,
    prelude::{JsValue, wasm_bindgen},
};

use crate::{
    Failure, Input, Session,
    abi::{self, Flags, Status},
    exports::{Place, with_session},
};

/// An open log. Offsets are bigints; what fails throws an `Error` whose `kind` says why, such as
/// "OffsetOutOfRange".
#[wasm_bindgen]
pub struct Log {
    handle: i32,
}

#[wasm_bindgen]
impl Log {
    /// Opens the log of this name, made if there is none. Options: `readOnly`, `durability`
    /// ("synced", "written" or "buffered"), `segmentBytesMax`, `indexBytesMax`, `recordBytesMax`
    /// (numbers) and `initialOffset` (bigint).
    ///
    /// # Errors
    ///
    /// An option is refused, or the log cannot be opened.
    pub fn open(name: &str, options: Option<Object>) -> Result<Log> {
        let options = Given(options.unwrap_or_default());
        let flags = Flags {
            read_only: options.read_only()?,
            durability: options.durability()?,
        };
        let segment_bytes_max = options.number("segmentBytesMax")?;
        let index_bytes_max = options.number("indexBytesMax")?;
        let record_bytes_max = options.number("recordBytesMax")?;
        let initial_offset = options.number("initialOffset")?;
        let handle = call(|session| {
            session.open(
                Input::Bytes(name.as_bytes()),
                flags.encode(),
                segment_bytes_max,
                index_bytes_max,
                record_bytes_max,
                initial_offset,
            )
        })?;
        Ok(Self { handle })
    }

    /// Appends the records of a request as the raw `append_batch` takes it, all or none, and gives the first one's
    /// offset. `promise` and `expected` are as there: 0 and -1 for what the log was opened with, and any offset.
    ///
    /// # Errors
    ///
    /// The log's.
    #[wasm_bindgen(js_name = appendEntries)]
    pub fn append_entries(&self, request: &[u8], promise: i32, expected: i64) -> Result<BigInt> {
        let request = Input::Bytes(request);
        Ok(call(|session| session.append_batch(self.handle, request, promise, expected))?.into())
    }

    /// The last record of a producer: its sequence and its offset; nothing if there is none.
    ///
    /// # Errors
    ///
    /// The log's.
    #[wasm_bindgen(js_name = producerLast)]
    pub fn producer_last(&self, id: &[u8]) -> Result<Vec<u64>> {
        let last = call(|session| {
            let last = session.producer_last(self.handle, Input::Bytes(id))?;
            Ok(abi::pair(last))
        })?;
        Ok(last.map_or(Vec::new(), |last| last.to_vec()))
    }

    /// The frame of an offset's record.
    ///
    /// # Errors
    ///
    /// It is not there, or damaged.
    #[wasm_bindgen(js_name = readFrame)]
    pub fn read_frame(&self, offset: BigInt) -> Result<Uint8Array> {
        let offset = whole_bigint("offset", &offset)?;
        call(|session| session.read(self.handle, offset).map(Uint8Array::from))
    }

    /// Where a record stands: the base of its segment and the position, and of an offset that is not there the first
    /// and last of those and the number of the cause.
    ///
    /// # Errors
    ///
    /// It is not in the log.
    pub fn locate(&self, offset: BigInt) -> Result<Vec<u64>> {
        let offset = whole_bigint("offset", &offset)?;
        call(|session| {
            let place = session.locate(self.handle, offset)?;
            let (numbers, _) = place.as_chunks::<8>();
            Ok(numbers
                .iter()
                .map(|&number| u64::from_le_bytes(number))
                .collect())
        })
    }

    /// The frames of consecutive records from an offset on, as they stand in the store; empty at the
    /// end of the log.
    ///
    /// # Errors
    ///
    /// The record there is not in the log, or damaged.
    #[wasm_bindgen(js_name = readBatch)]
    pub fn read_batch(&self, from: BigInt, bytes_max: i32) -> Result<Uint8Array> {
        let from = whole_bigint("from", &from)?;
        call(|session| {
            session
                .read_batch(self.handle, from, bytes_max)
                .map(Uint8Array::from)
        })
    }

    /// Removes whole segments all of whose records are below an offset.
    ///
    /// # Errors
    ///
    /// The log's.
    #[wasm_bindgen(js_name = truncateBefore)]
    pub fn truncate_before(&self, offset: BigInt) -> Result<()> {
        let offset = whole_bigint("offset", &offset)?;
        call(|session| session.truncate_before(self.handle, offset))
    }

    /// Removes every record above an offset.
    ///
    /// # Errors
    ///
    /// The log's.
    #[wasm_bindgen(js_name = truncateAfter)]
    pub fn truncate_after(&self, offset: BigInt) -> Result<()> {
        let offset = whole_bigint("offset", &offset)?;
        call(|session| session.truncate_after(self.handle, offset))
    }

    /// Removes every record.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn reset(&self) -> Result<()> {
        call(|session| session.reset(self.handle))
    }

    /// Removes the records that a later one of the same key has made obsolete, and the keys that were deleted, from
    /// sealed segments. Options: `memoryBytesMax`, `tombstonesKeptMs`, and what time it is, `nowMs` (numbers).
    ///
    /// # Errors
    ///
    /// An option is refused, or the log's error.
    pub fn compact(&self, options: Option<Object>) -> Result<String> {
        let options = Given(options.unwrap_or_default());
        let memory_bytes_max = options.number("memoryBytesMax")?;
        let kept_ms = match options.get("tombstonesKeptMs")? {
            Some(_) => options.number("tombstonesKeptMs")?,
            None => {
                i64::try_from(Compaction::new().tombstones_kept.as_millis()).unwrap_or(i64::MAX)
            }
        };
        let now_ms = options.now_ms()?;
        text(|session| session.compact(self.handle, memory_bytes_max, kept_ms, now_ms))
    }

    /// Removes the lowest segments while there is too much, or they are too old; never the active one. Options:
    /// `bytesMax`, `ageMaxMs`, of which 0 is no bound, and what time it is, `nowMs` (numbers).
    ///
    /// # Errors
    ///
    /// An option is refused, or the log's error.
    #[wasm_bindgen(js_name = enforceRetention)]
    pub fn enforce_retention(&self, options: Option<Object>) -> Result<()> {
        let options = Given(options.unwrap_or_default());
        let (bytes_max, age_max_ms) = (options.number("bytesMax")?, options.number("ageMaxMs")?);
        let now_ms = options.now_ms()?;
        call(|session| session.enforce_retention(self.handle, bytes_max, age_max_ms, now_ms))
    }

    /// Returns once all that was appended is durable.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn sync(&self) -> Result<()> {
        call(|session| session.sync(self.handle))
    }

    /// Closes the log. Every call after it throws.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn close(&self) -> Result<()> {
        call(|session| session.close(self.handle))
    }

    /// The first offset that the log holds.
    ///
    /// # Errors
    ///
    /// The log was closed.
    #[wasm_bindgen(getter, js_name = lowestOffset)]
    pub fn lowest_offset(&self) -> Result<BigInt> {
        Ok(call(|session| session.lowest_offset(self.handle))?.into())
    }

    /// The offset that the next record will have.
    ///
    /// # Errors
    ///
    /// The log was closed.
    #[wasm_bindgen(getter, js_name = nextOffset)]
    pub fn next_offset(&self) -> Result<BigInt> {
        Ok(call(|session| session.next_offset(self.handle))?.into())
    }

    /// All records below it are durable.
    ///
    /// # Errors
    ///
    /// The log was closed.
    #[wasm_bindgen(getter, js_name = durableOffset)]
    pub fn durable_offset(&self) -> Result<BigInt> {
        Ok(call(|session| session.durable_offset(self.handle))?.into())
    }

    /// What opening had to scan, as JSON.
    ///
    /// # Errors
    ///
    /// The log was closed.
    #[wasm_bindgen(js_name = recoveryReport)]
    pub fn recovery_report(&self) -> Result<String> {
        text(|session| session.recovery_report(self.handle))
    }

    /// Checks every byte; changes nothing. Gives JSON.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn verify(&self) -> Result<String> {
        text(|session| session.verify(self.handle))
    }

    /// The log's segments, as JSON.
    ///
    /// # Errors
    ///
    /// The log was closed.
    pub fn segments(&self) -> Result<String> {
        text(|session| session.segments(self.handle))
    }
}

impl Drop for Log {
    /// JavaScript let go of it, by `free` or by not using it any more.
    fn drop(&mut self) {
        // It may have been closed, and no one is left to be told of an error.
        with_session(|session| session.close(self.handle).ok());
    }
}

type Result<T, E = JsValue> = std::result::Result<T, E>;

fn call<T>(call: impl FnOnce(&mut Session<Place>) -> Result<T, Box<Failure>>) -> Result<T> {
    with_session(call)
        .unwrap_or_else(|| Err(invalid("a call is under way")))
        .map_err(JsValue::from)
}

/// JSON as it is: what JavaScript makes of a number has no more than 53 bits of it.
fn text(read: impl FnOnce(&mut Session<Place>) -> Result<&[u8], Box<Failure>>) -> Result<String> {
    call(|session| {
        let json = read(session)?;
        Ok(std::str::from_utf8(json).unwrap_or_default().to_owned())
    })
}

/// As it is thrown.
impl From<Box<Failure>> for JsValue {
    fn from(failure: Box<Failure>) -> Self {
        let error = Error::new(&failure.message);
        // A new object takes any property.
        let _ = Reflect::set(&error, &"kind".into(), &failure.status.name().into());
        if let Some(conflict) = failure.conflict {
            let [first, second] = conflict.numbers().map(BigInt::from);
            let numbers = Array::of2(&first.into(), &second.into());
            let _ = Reflect::set(&error, &"conflict".into(), &numbers);
        }
        error.into()
    }
}

fn invalid(message: impl Into<String>) -> Box<Failure> {
    Failure::new(Status::InvalidArgument, message)
}

/// The options of a call.
struct Given(Object);

impl Given {
    fn get(&self, name: &str) -> Result<Option<JsValue>> {
        let value = Reflect::get(&self.0, &name.into())?;
        Ok((!value.is_undefined()).then_some(value))
    }

    fn read_only(&self) -> Result<bool> {
        let Some(value) = self.get("readOnly")? else {
            return Ok(false);
        };
        value
            .as_bool()
            .ok_or_else(|| JsValue::from(invalid("readOnly is neither true nor false")))
    }

    fn durability(&self) -> Result<Durability> {
        let Some(value) = self.get("durability")? else {
            return Ok(Durability::default());
        };
        match value.as_string().as_deref() {
            Some("synced") => Ok(Durability::Synced),
            Some("written") => Ok(Durability::Written),
            Some("buffered") => Ok(Durability::Buffered),
            _ => Err(JsValue::from(invalid(
                "durability is none of \"synced\", \"written\", \"buffered\"",
            ))),
        }
    }

    /// What time it is; by JavaScript's clock if it is not given.
    fn now_ms(&self) -> Result<i64> {
        match self.get("nowMs")? {
            Some(_) => self.number("nowMs"),
            None => whole("nowMs", Date::now().floor()),
        }
    }

    /// A number or a bigint; 0 if it is not given.
    fn number(&self, name: &str) -> Result<i64> {
        let Some(value) = self.get(name)? else {
            return Ok(0);
        };
        match (value.as_f64(), value.dyn_ref::<BigInt>()) {
            (Some(number), _) => whole(name, number),
            (_, Some(number)) => whole_bigint(name, number),
            _ => Err(JsValue::from(invalid(format!("{name} is no number")))),
        }
    }
}

fn whole(name: &str, number: f64) -> Result<i64> {
    /// The largest integer up to which a number of JavaScript holds every one.
    const SAFE_MAX: f64 = 9_007_199_254_740_991.0;
    if number.fract() == 0.0 && (0.0..=SAFE_MAX).contains(&number) {
        #[allow(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        return Ok(number as i64);
    }
    // JavaScript has the code to write it.
    let number = Number::from(number)
        .to_string_with_radix(10)
        .map(String::from);
    let number = number.unwrap_or_default();
    Err(JsValue::from(invalid(format!(
        "{name} is {number}; give a whole number, 0 or more"
    ))))
}

fn whole_bigint(name: &str, number: &BigInt) -> Result<i64> {
    let in_range = i64::try_from(number.clone())
        .ok()
        .filter(|&number| number >= 0);
    in_range.ok_or_else(|| {
        JsValue::from(invalid(format!(
            "{name} is out of range; give 0 to 2^63 - 1"
        )))
    })
}
