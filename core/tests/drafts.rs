//! Batches that are laid out before the log has them.

use std::collections::BTreeMap;

use proglog::{
    Access, Backend, BackendFile, Clock, Drafts, Durability, Error, Header, Log, MemoryBackend,
    NewRecord, Offset, Options,
};

const DURABILITIES: [Durability; 3] = [
    Durability::Synced,
    Durability::Written,
    Durability::Buffered,
];

fn files(backend: &MemoryBackend) -> BTreeMap<String, Vec<u8>> {
    let bytes = |name: &String| {
        let file = backend.open(name, Access::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        bytes
    };
    let names = backend.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), bytes(&name)))
        .collect()
}

fn written(records: &[NewRecord<'_>], first: u64, options: &Options) -> Vec<u8> {
    let drafts = Drafts::new(records, Offset(first), options).unwrap();
    let mut bytes = vec![0xee; usize::try_from(drafts.bytes()).unwrap()];
    drafts.write(&mut bytes);
    assert_eq!(Drafts::count(&bytes), records.len() as u64);
    bytes
}

/// Records of all shapes, with times that go forth and back.
struct Values {
    random: fastrand::Rng,
    headers: Vec<Header>,
    bytes: Vec<u8>,
}

impl Values {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            headers: vec![
                Header::new("trace", "4bf9"),
                Header::new("", "nameless"),
                Header::new("empty", ""),
                Header::new("", ""),
            ],
            bytes: (0..100_000).map(|_| random.u8(..)).collect(),
            random,
        }
    }

    fn part(&mut self, bytes_max: usize) -> std::ops::Range<usize> {
        let bytes = self.random.usize(..bytes_max);
        let start = self.random.usize(..self.bytes.len() - bytes);
        start..start + bytes
    }

    fn record(&mut self) -> NewRecord<'_> {
        let bytes_max = *self.random.choice(&[1, 2, 200, 3000, 40_000]).unwrap();
        let value = self.part(bytes_max);
        let key = self.part(20);
        let (has_key, headers) = (self.random.bool(), self.random.usize(..8));
        let timestamp_ms = match self.random.u32(..4) {
            0 => 0,
            1 => self.random.u64(..300),
            _ => 1_700_000_000_000 + self.random.u64(..1_000_000),
        };
        let headers = &self.headers[..headers.min(4)];
        let record = NewRecord::new(&self.bytes[value]).timestamp_ms(timestamp_ms);
        let record = record.headers(headers);
        match has_key {
            true => record.key(&self.bytes[key]),
            false => record,
        }
    }
}

#[test]
fn drafts_become_what_a_batch_becomes_wherever_they_were_expected() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let options = Options::new()
            .segment_bytes_max(200_000)
            .initial_offset(random.u64(..300))
            .clock(Clock::NONE);
        let backends = [MemoryBackend::new(), MemoryBackend::new()];
        let [drafted, batched] = backends
            .clone()
            .map(|backend| Log::open_on(backend, options.clone()).unwrap());
        let values: Vec<_> = (0..30).map(|n| Values::new(seed * 100 + n)).collect();
        for mut shape in values {
            let count = *random.choice(&[1, 2, 3, 40]).unwrap();
            let mut shapes: Vec<_> = (0..count)
                .map(|n| Values::new(n + shape.random.u64(..)))
                .collect();
            let records: Vec<_> = shapes.iter_mut().map(Values::record).collect();
            let next = batched.next_offset().0;
            // Where it will be, nearby, or far off.
            let expected = match random.u32(..4) {
                0 => random.u64(..),
                1 => next + random.u64(..200),
                _ => next,
            };
            let durability = *random.choice(&DURABILITIES).unwrap();
            let mut drafts = written(&records, expected.min(1 << 62), &options);
            let offsets = batched
                .append_batch_with(records.iter().copied(), durability)
                .unwrap();
            assert_eq!(
                drafted.append_drafts(&mut drafts, durability).unwrap(),
                offsets,
                "seed {seed}"
            );
            assert_eq!(drafted.next_offset(), offsets.end);
            for offset in offsets.start.0..offsets.end.0 {
                assert_eq!(
                    drafted.read(Offset(offset)).unwrap().frame(),
                    batched.read(Offset(offset)).unwrap().frame(),
                    "seed {seed}"
                );
            }
        }
        assert!(drafted.verify().unwrap().is_sound());
        drafted.close().unwrap();
        batched.close().unwrap();
        let [drafted, batched] = backends.map(|backend| files(&backend));
        assert_eq!(drafted, batched, "seed {seed}");
        assert!(drafted.len() > 2, "it never rolled");
    }
}

#[test]
fn what_is_no_draft_is_refused_and_changes_nothing() {
    let options = Options::new().clock(Clock::NONE);
    let headers = [Header::new("name", "value"), Header::new("n", "")];
    let records = [
        NewRecord::new("first").key("k").timestamp_ms(1 << 41),
        NewRecord::new("second").headers(&headers),
        NewRecord::new(""),
    ];
    let log = Log::open_on(MemoryBackend::new(), options.clone()).unwrap();
    let sound = written(&records, 0, &options);
    let mut refused = 0;
    let mut attempt = |mut drafts: Vec<u8>, what: &str| {
        let next = log.next_offset();
        match log.append_drafts(&mut drafts, Durability::Written) {
            // Another value, key, number of the same length, or checksum is as good.
            Ok(offsets) => {
                assert_eq!(offsets, next..log.next_offset());
                for offset in offsets.start.0..offsets.end.0 {
                    log.read(Offset(offset)).unwrap();
                }
            }
            Err(Error::InvalidArgument(_)) => {
                refused += 1;
                assert_eq!(log.next_offset(), next, "{what}");
            }
            Err(e) => panic!("{what}: {e}"),
        }
    };
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << bit;
            attempt(flipped, &format!("bit {bit} of byte {at}"));
        }
        attempt(sound[..at].to_vec(), &format!("{at} bytes"));
        let mut longer = sound.clone();
        longer.insert(at, 0);
        attempt(longer, &format!("a byte more at {at}"));
    }
    assert!(refused > sound.len() * 4, "{refused} of {}", sound.len());
    assert!(log.verify().unwrap().is_sound());

    // Each byte says the same in two ways; only one of them is the log's.
    let lone = |record: &[u8]| {
        let mut frame = (record.len() as u64 + 9).to_be_bytes().to_vec();
        frame.extend_from_slice(record);
        frame.extend_from_slice(&[0x79, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame
    };
    let append = |record: &[u8]| log.append_drafts(&mut lone(record), Durability::Written);
    append(&[0x0a, 1, b'x', 0x10, 5]).unwrap();
    for record in [
        &[0x0a, 0x81, 0, b'x'][..],
        &[0x0a, 0],
        &[0x10, 0],
        &[0x10, 5, 0x0a, 1, b'x'],
        &[0x0a, 1, b'x', 0x0a, 1, b'y'],
        &[0x18, 1],
        &[0x3a, 6, 0x12, 1, b'v', 0x0a, 1, b'n'],
        &[0x3a, 3, 0x0a, 1, 0xff],
        &[0x40, 1],
        &[0x48, 1],
        &[0x79, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let refused = append(record).unwrap_err();
        assert!(
            matches!(refused, Error::InvalidArgument(_)),
            "{record:?}: {refused}"
        );
    }
}

#[test]
fn drafts_are_refused_where_a_batch_would_be() {
    let backend = MemoryBackend::new();
    let roomy = Options::new().clock(Clock::NONE);
    let narrow = roomy.clone().record_bytes_max(30);
    let log = Log::open_on(backend.clone(), narrow.clone()).unwrap();
    let long = [NewRecord::new(&[7; 40])];
    assert!(matches!(
        Drafts::new(&long, Offset(0), &narrow),
        Err(Error::TooLarge { .. })
    ));
    let mut drafts = written(&long, 0, &roomy);
    assert!(matches!(
        log.append_drafts(&mut drafts, Durability::Synced),
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(
        log.append_drafts(&mut [], Durability::Synced).unwrap(),
        Offset(0)..Offset(0)
    );

    let mut short = written(&[NewRecord::new("x")], 0, &roomy);
    let reader = Log::open_read_only_on(backend, roomy.clone()).unwrap();
    assert!(matches!(
        reader.append_drafts(&mut short, Durability::Synced),
        Err(Error::ReadOnly)
    ));
    let few = roomy.index_bytes_max(24);
    let log = Log::open_on(MemoryBackend::new(), few.clone()).unwrap();
    let three = ["a", "b", "c"].map(NewRecord::new);
    assert!(matches!(
        log.append_drafts(&mut written(&three, 0, &few), Durability::Synced),
        Err(Error::InvalidArgument(_))
    ));
}
