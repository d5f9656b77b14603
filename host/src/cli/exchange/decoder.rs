//! Cutting an input into records and gaps.

use bytes::Bytes;
use proglog::{Gap, Record};

use super::{Carried, Format, Item, line::read_line};

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
    use proglog::{Clock, Header, Log, MemoryBackend, NewRecord, Options};

    use super::{Bad, Decoder, Format, Item};

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
                    assert_eq!(carried.difference(record), None);
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
}
