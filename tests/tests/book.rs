//! The book's own test cases for store, index, segment and log, restated: *Distributed Services with Go*,
//! chapter 3. What they expect of sizes is told in the bytes of our frames.

use std::path::Path;

use proglog::{
    Access, Backend, Clock, Error, FsBackend, Index, Log, NewRecord, Offset, Options, Record,
    Segment, Store,
};
use proglog_tests::schema::frames;
use tempfile::TempDir;

/// What the book writes.
const WRITE: &[u8] = b"hello world";
/// The bytes of a frame's length.
const LEN_WIDTH: u64 = 8;
/// The bytes of a frame that holds it.
const WIDTH: u64 = LEN_WIDTH + WRITE.len() as u64;

mod store {
    use super::*;

    #[test]
    fn append_read() {
        let (_directory, backend) = directory();
        let mut store = open(&backend);
        append(&mut store);
        read(&store);
        read_at(&store);
        store.close().unwrap();
        // It builds its state from the existing file.
        read(&open(&backend));
    }

    #[test]
    fn close() {
        let (directory, backend) = directory();
        let mut store = open(&backend);
        store.append(WRITE).unwrap();
        let before = file_bytes(directory.path());
        store.close().unwrap();
        let after = file_bytes(directory.path());
        assert!(
            after > before,
            "closing hands the buffer to the file: {before} bytes, then {after}"
        );
    }

    fn append(store: &mut Store<proglog::FsFile>) {
        for i in 1..4 {
            let (n, position) = store.append(WRITE).unwrap();
            assert_eq!(position + n, WIDTH * i);
        }
    }

    fn read(store: &Store<proglog::FsFile>) {
        for i in 0..3 {
            assert_eq!(store.read(WIDTH * i).unwrap(), WRITE);
        }
    }

    fn read_at(store: &Store<proglog::FsFile>) {
        let mut position = 0;
        for _ in 1..4 {
            let mut length = [0; 8];
            assert_eq!(store.read_at(&mut length, position).unwrap(), length.len());
            position += LEN_WIDTH;

            let size = u64::from_be_bytes(length);
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            assert_eq!(store.read_at(&mut bytes, position).unwrap() as u64, size);
            assert_eq!(bytes, WRITE);
            position += size;
        }
    }

    fn open(backend: &FsBackend) -> Store<proglog::FsFile> {
        Store::new(
            backend.open("store_test", Access::Create).unwrap(),
            "store_test",
        )
        .unwrap()
    }

    fn file_bytes(directory: &Path) -> u64 {
        directory.join("store_test").metadata().unwrap().len()
    }
}

mod index {
    use super::*;

    #[test]
    fn index() {
        let (_directory, backend) = directory();
        let mut index = open(&backend);
        assert_eq!(
            index.read(-1).unwrap(),
            None,
            "an empty index has no last entry"
        );

        let entries = [(0, 0), (1, 10)];
        for (offset, position) in entries {
            index.write(offset, position).unwrap();
            assert_eq!(index.read(offset.into()).unwrap(), Some((offset, position)));
        }
        // Past the existing entries there is nothing.
        assert_eq!(index.read(2).unwrap(), None);
        assert_eq!(index.read(-3).unwrap(), None);
        index.close().unwrap();

        // It builds its state from the existing file.
        let index = open(&backend);
        assert_eq!(index.read(-1).unwrap(), Some((1, 10)));
        assert_eq!(index.entries(), 2);
    }

    #[test]
    fn full() {
        let (_directory, backend) = directory();
        // Room for two entries and a half.
        let file = backend.open("index_test", Access::Create).unwrap();
        let mut index = Index::new(file, "index_test", 30).unwrap();
        index.write(0, 0).unwrap();
        index.write(1, 10).unwrap();
        assert!(index.is_full());
        assert!(matches!(
            index.write(2, 20),
            Err(Error::IndexFull { entries: 2, .. })
        ));
    }

    fn open(backend: &FsBackend) -> Index<proglog::FsFile> {
        Index::new(
            backend.open("index_test", Access::Create).unwrap(),
            "index_test",
            1024,
        )
        .unwrap()
    }
}

mod segment {
    use super::*;

    #[test]
    fn segment() {
        let (_directory, backend) = directory();
        let want = NewRecord::new(WRITE);
        // An index of three entries.
        let options = options().segment_bytes_max(1024).index_bytes_max(3 * 12);
        let mut segment = Segment::open(&backend, Offset(16), &options).unwrap();
        assert_eq!(
            (segment.base(), segment.next_offset()),
            (Offset(16), Offset(16))
        );
        assert!(!segment.is_maxed());

        for i in 0..3 {
            let offset = segment.append(&want).unwrap();
            assert_eq!(offset, Offset(16 + i));
            let got = segment.read(offset).unwrap();
            assert_eq!((got.value(), got.offset()), (WRITE, offset));
        }
        // Maxed by its index.
        assert!(matches!(
            segment.append(&want),
            Err(Error::IndexFull { .. })
        ));
        assert!(segment.is_maxed());
        let store_bytes = segment.store_bytes();
        segment.close().unwrap();

        // Maxed by its store.
        let smaller = super::options()
            .segment_bytes_max(store_bytes)
            .index_bytes_max(1024);
        let segment = Segment::open(&backend, Offset(16), &smaller).unwrap();
        assert_eq!(segment.next_offset(), Offset(19));
        assert!(segment.is_maxed());

        segment.remove(&backend).unwrap();
        let segment = Segment::open(&backend, Offset(16), &smaller).unwrap();
        assert!(!segment.is_maxed());
    }
}

mod log {
    use super::*;

    #[test]
    fn append_and_read_a_record() {
        let (_directory, log) = new_log();
        let offset = log.append(WRITE).unwrap();
        assert_eq!(offset, Offset(0));
        assert_eq!(log.read(offset).unwrap().value(), WRITE);
    }

    #[test]
    fn offset_out_of_range() {
        let (_directory, log) = new_log();
        let error = log.read(Offset(1)).unwrap_err();
        let Error::OffsetOutOfRange {
            offset,
            lowest,
            next,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((offset, lowest, next), (Offset(1), Offset(0), Offset(0)));
    }

    #[test]
    fn init_with_existing_segments() {
        let (directory, log) = new_log();
        for _ in 0..3 {
            log.append(WRITE).unwrap();
        }
        assert_eq!(
            (log.lowest_offset(), log.next_offset()),
            (Offset(0), Offset(3))
        );
        log.close().unwrap();

        let log = Log::open(directory.path(), options().segment_bytes_max(32)).unwrap();
        assert_eq!(
            (log.lowest_offset(), log.next_offset()),
            (Offset(0), Offset(3))
        );
    }

    /// The book reads all stores, one after the other, as a stream of frames.
    #[test]
    fn reader() {
        let (_directory, log) = new_log();
        for _ in 0..3 {
            log.append(WRITE).unwrap();
        }
        let mut stream = Vec::new();
        while let Ok(frames) = log.read_batch(Offset(stream_records(&stream)), 1 << 20)
            && !frames.is_empty()
        {
            stream.extend_from_slice(frames.as_bytes());
        }
        assert_eq!(stream_records(&stream), 3);
        let first = frames(&stream).next().unwrap();
        let record = Record::from_frame(first.to_vec().into()).unwrap();
        assert_eq!(record.value(), WRITE);
    }

    #[test]
    fn truncate() {
        let (_directory, log) = new_log();
        for _ in 0..3 {
            log.append(WRITE).unwrap();
        }
        // The book's Truncate(1) removes what is at or below 1.
        log.truncate_before(Offset(2)).unwrap();
        for offset in 0..2 {
            assert!(matches!(
                log.read(Offset(offset)),
                Err(Error::OffsetOutOfRange { .. })
            ));
        }
        assert_eq!(log.read(Offset(2)).unwrap().value(), WRITE);
    }

    /// With the book's limit of 32 bytes each record gets a segment of its own.
    fn new_log() -> (TempDir, Log) {
        let directory = TempDir::new().unwrap();
        let log = Log::open(directory.path(), options().segment_bytes_max(32)).unwrap();
        (directory, log)
    }

    fn stream_records(stream: &[u8]) -> u64 {
        frames(stream).count() as u64
    }
}

fn directory() -> (TempDir, FsBackend) {
    let directory = TempDir::new().unwrap();
    let backend = FsBackend::open(directory.path()).unwrap();
    (directory, backend)
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
