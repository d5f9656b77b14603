//! The input of `proglog append` and `proglog import`: bytes as they come, and how lines become records.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use super::{failure::Failure, signals::Stopped, text::note};

/// How much is read at a time; a few of these wait for their turn.
const BLOCK_BYTES: usize = 256 << 10;
const BLOCKS_WAITING: usize = 4;
/// An input that is silent for so long is paused: what came before is appended.
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes from a file or standard input, read by a thread of its own, so that a reader of them need not
/// wait for more than it wants to.
pub(crate) struct Input {
    pieces: Receiver<Piece>,
    stop: SyncSender<Piece>,
    bytes: Option<u64>,
    is_terminal: bool,
}

/// What an input gives.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// Nothing more for now. Never from a regular file, so that the same file always makes the same
    /// batches, and with them the same bytes in the log.
    Pause,
    End,
    /// Someone asked to stop.
    Stop,
    Failed(Failure),
}

impl Input {
    /// Opens a file, or standard input for `None` and `-`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) if path != Path::new("-") => {
                let file = File::open(path).map_err(|error| {
                    let failure = Failure::io("open", path, &error);
                    match error.kind() {
                        // Perhaps it was meant to be what is in a file.
                        io::ErrorKind::NotFound => {
                            failure.context("give a file that is there, or none for standard input")
                        }
                        _ => failure,
                    }
                })?;
                let found = file
                    .metadata()
                    .map_err(|error| Failure::io("open", path, &error))?;
                if found.is_dir() {
                    let message = format!("{} is a directory; give a file", path.display());
                    return Err(Failure::new("invalid_argument", message));
                }
                let bytes = found.is_file().then_some(found.len());
                Ok(Self::read(path, file, bytes, false))
            }
            _ => {
                let stdin = io::stdin();
                let (bytes, is_terminal) = (file_bytes_left(&stdin), stdin.is_terminal());
                let name = Path::new("standard input");
                Ok(Self::read(name, stdin, bytes, is_terminal))
            }
        }
    }

    fn read(
        name: &Path,
        source: impl Read + Send + 'static,
        bytes: Option<u64>,
        is_terminal: bool,
    ) -> Self {
        let (sender, pieces) = sync_channel(BLOCKS_WAITING);
        let (stop, name) = (sender.clone(), name.to_owned());
        thread::spawn(move || send_blocks(&name, source, &sender));
        Self {
            pieces,
            stop,
            bytes,
            is_terminal,
        }
    }

    /// How many bytes it has, where that is known: it is a regular file.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether someone types it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Tells someone who types it what to type.
    pub(crate) fn tell_typist(&self, what: &str) {
        if self.is_terminal && io::stderr().is_terminal() {
            note(what);
        }
    }

    /// Waits for the next piece; with `may_pause`, not for long.
    pub(crate) fn next(&self, may_pause: bool) -> Piece {
        if may_pause && self.bytes.is_none() {
            return match self.pieces.recv_timeout(PAUSE) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Timeout) => Piece::Pause,
                Err(RecvTimeoutError::Disconnected) => Piece::End,
            };
        }
        self.pieces.recv().unwrap_or(Piece::End)
    }

    /// Has a signal wake one who waits for the next piece.
    pub(crate) fn listen_for_stop(&self) -> Result<Stopped, Failure> {
        let stop = self.stop.clone();
        Stopped::listen(move || match stop.try_send(Piece::Stop) {
            // One who has pieces to go on with does not wait.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        })
    }
}

fn send_blocks(name: &Path, mut source: impl Read, sender: &SyncSender<Piece>) {
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        let piece = match source.read(&mut block) {
            Ok(0) => Piece::End,
            Ok(bytes) => {
                block.truncate(bytes);
                Piece::Bytes(block)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Piece::Failed(Failure::io("read", name, &error)),
        };
        let is_last = !matches!(piece, Piece::Bytes(_));
        if sender.send(piece).is_err() || is_last {
            return;
        }
    }
}

/// How many bytes are left to read of a regular file that is standard input (`< file`).
#[cfg(unix)]
fn file_bytes_left(stdin: &impl std::os::fd::AsFd) -> Option<u64> {
    use std::io::Seek;
    // A duplicate shares the place in the file but not its being closed.
    let mut file = File::from(stdin.as_fd().try_clone_to_owned().ok()?);
    let found = file.metadata().ok()?;
    let read = file.stream_position();
    (found.is_file()).then(|| found.len().saturating_sub(read.unwrap_or(0)))
}

#[cfg(not(unix))]
fn file_bytes_left<T>(_stdin: &T) -> Option<u64> {
    None
}

/// Cuts bytes into records at each delimiter.
pub(crate) struct Records {
    delimiter: u8,
    /// Whole records, one after the other, then the beginning of the next.
    bytes: Vec<u8>,
    /// Where each whole record ends.
    ends: Vec<usize>,
}

impl Records {
    pub(crate) fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Takes bytes up to and with the next delimiter, and returns how many. After a delimiter there is
    /// one whole record more.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let at = memchr::memchr(self.delimiter, bytes);
        self.bytes
            .extend_from_slice(&bytes[..at.unwrap_or(bytes.len())]);
        if at.is_some() {
            self.ends.push(self.bytes.len());
        }
        (at.map_or(bytes.len(), |at| at + 1), at.is_some())
    }

    /// At the end of the input: what follows the last delimiter is a record too, unless nothing does.
    pub(crate) fn finish(&mut self) {
        if self.unfinished_bytes() > 0 {
            self.ends.push(self.bytes.len());
        }
    }

    /// The whole records.
    pub(crate) fn whole(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ends
            .iter()
            .enumerate()
            .map(|(n, &end)| &self.bytes[self.start(n)..end])
    }

    /// How many whole records there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of the whole records.
    pub(crate) fn whole_bytes(&self) -> usize {
        self.start(self.ends.len())
    }

    /// The bytes of the record whose end is still to come.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.bytes.len() - self.whole_bytes()
    }

    /// Forgets the first `records` whole records.
    pub(crate) fn drop_first(&mut self, records: usize) {
        let start = self.start(records);
        self.bytes.drain(..start);
        self.ends.drain(..records);
        for end in &mut self.ends {
            *end -= start;
        }
    }

    fn start(&self, record: usize) -> usize {
        record.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    fn cut(delimiter: u8, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut records = Records::new(delimiter);
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let (taken, _) = records.take(piece);
                piece = &piece[taken..];
            }
        }
        records.finish();
        records.whole().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn cuts_at_delimiters_wherever_the_pieces_end() {
        assert_eq!(
            cut(b'\n', &[b"a\nb", b"c\r\n", b"\n", b"d"]),
            [&b"a"[..], b"bc\r", b"", b"d"]
        );
        assert_eq!(cut(b'\n', &[b"a\n"]), [b"a"]);
        assert!(cut(b'\n', &[]).is_empty());
        assert_eq!(cut(b'\n', &[b"\n"]), [b""]);
        assert_eq!(cut(0, &[b"a\n\0\0b"]), [&b"a\n"[..], b"", b"b"]);
    }

    #[test]
    fn forgets_what_was_appended() {
        let mut records = Records::new(b'\n');
        records.take(b"one\n");
        records.take(b"two\n");
        records.take(b"thr");
        records.drop_first(1);
        assert_eq!(records.whole().collect::<Vec<_>>(), [b"two"]);
        assert_eq!((records.whole_bytes(), records.unfinished_bytes()), (3, 3));
        records.drop_first(1);
        records.take(b"ee\n");
        assert_eq!(records.whole().collect::<Vec<_>>(), [b"three"]);
    }
}
