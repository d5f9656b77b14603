//! What a guest can ask of the host: these functions of wasip1, and no others.
//!
//! There are no clocks, no sockets, no way to wait, and none to make links or to set times. The
//! functions are wasi-common's; this names the few, and bounds what they allocate. Plain reads and writes at a
//! position go to the file at once.

use std::ops::Range;

use proglog_wasm::abi::Span;
use wasi_common::{
    Table, WasiClocks, WasiCtx,
    pipe::WritePipe,
    snapshots::preview_1::{types::Errno, wasi_snapshot_preview1 as functions},
    sync::{random_ctx, sched_ctx},
};
use wasmtime::{Caller, Linker, Memory, StoreLimits};
use wiggle::{GuestMemory, run_in_dummy_executor};

use super::{
    files::{OpenFiles, Transfer},
    last_words::LastWords,
    sandbox::Sandbox,
};

/// The most parts of a read or write, as in POSIX: the host's memory for them is the guest's to fill.
const PARTS_MAX: u32 = 1024;
/// The most files that a guest may have open: more than a log needs, and few of those that a process may have.
pub(super) const OPEN_FILES_MAX: u32 = 256;

/// What a store holds beside the guest.
pub(super) struct State {
    wasi: WasiCtx,
    files: OpenFiles,
    /// How many files the guest has open, its directory too where it lists that.
    open_files: u32,
    pub(super) sandbox: Sandbox,
    pub(super) limits: StoreLimits,
    pub(super) last_words: LastWords,
    /// How often the call that is under way may be given the time yet that it takes to read the whole log.
    pub(super) scans_left: u64,
    /// Known once the guest is instantiated.
    pub(super) memory: Option<Memory>,
}

/// The guest's name for its directory; the host's is not for it to know. Nothing else has it in a message.
pub(super) const GUEST_PATH: &str = "/directory-of-this-log";

impl State {
    /// A guest with one directory, called [`GUEST_PATH`] there; without arguments, environment and
    /// clocks, and with an error output that is kept for the host's messages.
    pub(super) fn new(sandbox: Sandbox, limits: StoreLimits) -> Result<Self, wasi_common::Error> {
        let wasi = WasiCtx::new(random_ctx(), WasiClocks::new(), sched_ctx(), Table::new());
        let last_words = LastWords::default();
        wasi.set_stderr(Box::new(WritePipe::new(last_words.clone())));
        wasi.push_preopened_dir(Box::new(sandbox.clone()), GUEST_PATH)?;
        Ok(Self {
            wasi,
            files: OpenFiles::default(),
            open_files: 0,
            sandbox,
            limits,
            last_words,
            scans_left: 0,
            memory: None,
        })
    }
}

/// Calls a function of wasi-common's, which gives an error number.
macro_rules! call {
    ($caller:ident, $name:ident($($arg:ident),*)) => {{
        let (bytes, state) = memory(&mut $caller)?;
        let mut memory = GuestMemory::Unshared(bytes);
        run_in_dummy_executor(functions::$name(&mut state.wasi, &mut memory, $($arg),*))?
    }};
}

/// Links a function that takes these numbers and gives an error number.
macro_rules! link {
    ($linker:ident, $name:ident($($arg:ident: $type:ty),*) $(if $parts:ident)?) => {
        $linker.func_wrap(
            "wasi_snapshot_preview1",
            stringify!($name),
            |mut caller: Caller<'_, State>, $($arg: $type),*| -> anyhow::Result<i32> {
                $(if $parts.cast_unsigned() > PARTS_MAX {
                    return Ok(Errno::Inval as i32);
                })?
                call!(caller, $name($($arg),*))
            },
        )?
    };
}

/// The guest's memory, and what else the store holds.
fn memory<'a>(caller: &'a mut Caller<'_, State>) -> anyhow::Result<(&'a mut [u8], &'a mut State)> {
    match caller.data().memory {
        Some(memory) => Ok(memory.data_and_store_mut(caller)),
        None => anyhow::bail!("the module called its host while it was being instantiated"),
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> anyhow::Result<()> {
    link!(linker, environ_get(environ: i32, bytes: i32));
    link!(linker, environ_sizes_get(count: i32, bytes: i32));
    linker.func_wrap("wasi_snapshot_preview1", "fd_close", fd_close)?;
    link!(linker, fd_datasync(fd: i32));
    link!(linker, fd_fdstat_get(fd: i32, stat: i32));
    link!(linker, fd_filestat_get(fd: i32, stat: i32));
    link!(linker, fd_filestat_set_size(fd: i32, size: i64));
    linker.func_wrap("wasi_snapshot_preview1", "fd_pread", fd_pread)?;
    link!(linker, fd_prestat_dir_name(fd: i32, path: i32, len: i32));
    link!(linker, fd_prestat_get(fd: i32, stat: i32));
    linker.func_wrap("wasi_snapshot_preview1", "fd_pwrite", fd_pwrite)?;
    link!(linker, fd_read(fd: i32, parts: i32, len: i32, read: i32) if len);
    link!(linker, fd_readdir(fd: i32, entries: i32, len: i32, cookie: i64, used: i32));
    link!(linker, fd_seek(fd: i32, by: i64, whence: i32, position: i32));
    link!(linker, fd_sync(fd: i32));
    link!(linker, fd_write(fd: i32, parts: i32, len: i32, written: i32) if len);
    link!(linker, path_create_directory(fd: i32, path: i32, len: i32));
    link!(linker, path_filestat_get(fd: i32, flags: i32, path: i32, len: i32, stat: i32));
    linker.func_wrap("wasi_snapshot_preview1", "path_open", path_open)?;
    link!(linker, path_rename(
        fd: i32, path: i32, len: i32, to_fd: i32, to_path: i32, to_len: i32
    ));
    link!(linker, path_unlink_file(fd: i32, path: i32, len: i32));
    link!(linker, random_get(bytes: i32, len: i32));
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |status: i32| -> anyhow::Result<()> { anyhow::bail!("it exited with status {status}") },
    )?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "as wasip1 has it")]
fn path_open(
    mut caller: Caller<'_, State>,
    fd: i32,
    flags: i32,
    path: i32,
    len: i32,
    oflags: i32,
    rights: i64,
    inheriting: i64,
    fdflags: i32,
    opened: i32,
) -> anyhow::Result<i32> {
    if caller.data().open_files >= OPEN_FILES_MAX {
        return Ok(Errno::Mfile as i32);
    }
    // What an earlier guest left is none of this one's.
    caller.data().sandbox.take_opened();
    let errno = call!(
        caller,
        path_open(
            fd, flags, path, len, oflags, rights, inheriting, fdflags, opened
        )
    )?;
    let (memory, state) = memory(&mut caller)?;
    if errno == Errno::Success as i32 {
        state.open_files += 1;
    }
    let file = state.sandbox.take_opened();
    let ptr = opened.cast_unsigned();
    if errno == Errno::Success as i32
        && let Some(file) = file
        && let Some(Ok(fd)) = bytes_of(memory, Span { ptr, len: 4 }).map(<[u8; 4]>::try_from)
    {
        state.files.opened(i32::from_le_bytes(fd), file);
    }
    Ok(errno)
}

fn fd_close(mut caller: Caller<'_, State>, fd: i32) -> anyhow::Result<i32> {
    // Before: its number may then be another's.
    caller.data_mut().files.closed(fd);
    let errno = call!(caller, fd_close(fd))?;
    if errno == Errno::Success as i32 {
        let open_files = &mut caller.data_mut().open_files;
        *open_files = open_files.saturating_sub(1);
    }
    Ok(errno)
}

fn fd_pread(
    mut caller: Caller<'_, State>,
    fd: i32,
    parts: i32,
    len: i32,
    at: i64,
    done: i32,
) -> anyhow::Result<i32> {
    let transfer = Transfer {
        parts,
        len,
        at,
        done,
    };
    let (memory, state) = memory(&mut caller)?;
    if let Some(errno) = state.files.read(memory, fd, transfer) {
        return Ok(errno);
    }
    if len.cast_unsigned() > PARTS_MAX {
        return Ok(Errno::Inval as i32);
    }
    call!(caller, fd_pread(fd, parts, len, at, done))
}

fn fd_pwrite(
    mut caller: Caller<'_, State>,
    fd: i32,
    parts: i32,
    len: i32,
    at: i64,
    done: i32,
) -> anyhow::Result<i32> {
    let transfer = Transfer {
        parts,
        len,
        at,
        done,
    };
    let (memory, state) = memory(&mut caller)?;
    if let Some(errno) = state.files.write(memory, fd, transfer) {
        return Ok(errno);
    }
    if len.cast_unsigned() > PARTS_MAX {
        return Ok(Errno::Inval as i32);
    }
    call!(caller, fd_pwrite(fd, parts, len, at, done))
}

/// The bytes of a span, if they all lie in the guest's memory.
pub(super) fn bytes_of(memory: &[u8], span: Span) -> Option<&[u8]> {
    memory.get(range_of(span)?)
}

/// The addresses of a span.
pub(super) fn range_of(span: Span) -> Option<Range<usize>> {
    let start = usize::try_from(span.ptr).ok()?;
    Some(start..start.checked_add(usize::try_from(span.len).ok()?)?)
}
