//! The file that a floor writes to, and how its space is made ready beforehand or meanwhile.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;

/// How the bytes of a file are made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Not at all: the file grows with every write.
    Growing,
    /// Blocks are reserved, and read as zeros because nothing was written to them.
    Fallocated,
    /// As `Fallocated`, by the kernel's `FALLOC_FL_WRITE_ZEROES`: the device writes the zeros.
    DeviceZeroed,
    /// Zeros were written and synced, so many bytes a `pwrite`: the page cache holds them in folios
    /// of that size, and that decides what a later small write or sync costs.
    Zeroed { chunk_bytes: u64 },
}

const FALLOC_FL_WRITE_ZEROES: libc::c_int = 0x80;
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

impl Space {
    pub fn create(self, path: &Path, bytes: u64) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        match self {
            Self::Growing => {}
            Self::Fallocated => fallocate(&file, 0, bytes)?,
            Self::DeviceZeroed => fallocate(&file, FALLOC_FL_WRITE_ZEROES, bytes)?,
            Self::Zeroed { chunk_bytes } => {
                let chunk = &ZEROS[..chunk_bytes as usize];
                for at in (0..bytes).step_by(chunk.len()) {
                    file.write_all_at(&chunk[..chunk.len().min((bytes - at) as usize)], at)?;
                }
            }
        }
        file.sync_all()?;
        Ok(file)
    }
}

fn fallocate(file: &File, mode: libc::c_int, bytes: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, bytes as libc::off_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Zeros written to a file by another thread, ahead of who appends.
pub fn zeros_ahead(file: File, ahead_bytes: u64, chunk_bytes: u64) -> Ahead {
    Ahead::start(ahead_bytes, ZEROS_BYTES as u64, move |at, bytes| {
        for part in (0..bytes).step_by(chunk_bytes as usize) {
            file.write_all_at(&ZEROS[..chunk_bytes as usize], at + part)?;
        }
        file.sync_data()
    })
}

/// A thread that makes space ready ahead of who appends.
pub struct Ahead {
    shared: Arc<Progress>,
    step_bytes: u64,
    wanted: u64,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Progress {
    wanted: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Ahead {
    pub fn start(
        ahead_bytes: u64,
        step_bytes: u64,
        mut prepare: impl FnMut(u64, u64) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Progress::default());
        shared.wanted.store(ahead_bytes, SeqCst);
        let progress = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut at = 0;
            while !progress.stop.load(SeqCst) {
                if at >= progress.wanted.load(SeqCst) {
                    thread::park();
                    continue;
                }
                prepare(at, step_bytes)?;
                at += step_bytes;
                progress.done.store(at, SeqCst);
            }
            Ok(())
        });
        let mut ahead = Self {
            shared,
            step_bytes,
            wanted: ahead_bytes,
            thread: Some(thread),
        };
        // The first part is made ready before the clock starts.
        ahead.wait(ahead_bytes);
        ahead
    }

    /// To be called with the end of what is written next: asks for more, and waits if it is not ready.
    #[inline]
    pub fn need(&mut self, end: u64, ahead_bytes: u64) {
        if end + ahead_bytes >= self.wanted + self.step_bytes {
            self.wanted = (end + ahead_bytes) / self.step_bytes * self.step_bytes;
            self.shared.wanted.store(self.wanted, SeqCst);
            if let Some(thread) = &self.thread {
                thread.thread().unpark();
            }
            self.wait(end);
        }
    }

    fn wait(&mut self, end: u64) {
        while self.shared.done.load(SeqCst) < end {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            thread::yield_now();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let ended = thread.join();
            assert!(matches!(ended, Ok(Ok(()))), "preparing failed: {ended:?}");
        }
    }
}
