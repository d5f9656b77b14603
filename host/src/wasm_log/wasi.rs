//! What a guest can ask of the host: these functions of wasip1, and no others.
//!
//! There are no clocks, no sockets, no way to wait, and none to make links or to set times. The
//! functions are wasi-common's; this names the few, and bounds what they allocate.

use proglog_wasm::abi::Span;
use wasi_common::{
    Table, WasiClocks, WasiCtx,
    pipe::WritePipe,
    snapshots::preview_1::{types::Errno, wasi_snapshot_preview1 as functions},
    sync::{random_ctx, sched_ctx},
};
use wasmtime::{Caller, Linker, Memory, StoreLimits};
use wiggle::{GuestMemory, run_in_dummy_executor};

use super::{last_words::LastWords, sandbox::Sandbox};

/// The most parts of a read or write, as in POSIX: the host's memory for them is the guest's to fill.
const PARTS_MAX: u32 = 1024;

/// What a store holds beside the guest.
pub(super) struct State {
    wasi: WasiCtx,
    pub(super) sandbox: Sandbox,
    pub(super) limits: StoreLimits,
    pub(super) last_words: LastWords,
    /// Whether the call that is under way may read the whole log, and was given no time for it yet.
    pub(super) may_scan: bool,
    /// Known once the guest is instantiated.
    pub(super) memory: Option<Memory>,
}

impl State {
    /// A guest with one directory, called `guest_path` there; without arguments, environment and
    /// clocks, and with an error output that is kept for the host's messages.
    pub(super) fn new(
        sandbox: Sandbox,
        guest_path: &str,
        limits: StoreLimits,
    ) -> Result<Self, wasi_common::Error> {
        let wasi = WasiCtx::new(random_ctx(), WasiClocks::new(), sched_ctx(), Table::new());
        let last_words = LastWords::default();
        wasi.set_stderr(Box::new(WritePipe::new(last_words.clone())));
        wasi.push_preopened_dir(Box::new(sandbox.clone()), guest_path)?;
        Ok(Self {
            wasi,
            sandbox,
            limits,
            last_words,
            may_scan: false,
            memory: None,
        })
    }
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
                let Some(memory) = caller.data().memory else {
                    anyhow::bail!("the module called its host while it was being instantiated");
                };
                let (bytes, state) = memory.data_and_store_mut(&mut caller);
                let mut memory = GuestMemory::Unshared(bytes);
                run_in_dummy_executor(functions::$name(&mut state.wasi, &mut memory, $($arg),*))?
            },
        )?
    };
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> anyhow::Result<()> {
    link!(linker, environ_get(environ: i32, bytes: i32));
    link!(linker, environ_sizes_get(count: i32, bytes: i32));
    link!(linker, fd_close(fd: i32));
    link!(linker, fd_datasync(fd: i32));
    link!(linker, fd_fdstat_get(fd: i32, stat: i32));
    link!(linker, fd_filestat_get(fd: i32, stat: i32));
    link!(linker, fd_filestat_set_size(fd: i32, size: i64));
    link!(linker, fd_pread(fd: i32, parts: i32, len: i32, at: i64, read: i32) if len);
    link!(linker, fd_prestat_dir_name(fd: i32, path: i32, len: i32));
    link!(linker, fd_prestat_get(fd: i32, stat: i32));
    link!(linker, fd_pwrite(fd: i32, parts: i32, len: i32, at: i64, written: i32) if len);
    link!(linker, fd_read(fd: i32, parts: i32, len: i32, read: i32) if len);
    link!(linker, fd_readdir(fd: i32, entries: i32, len: i32, cookie: i64, used: i32));
    link!(linker, fd_seek(fd: i32, by: i64, whence: i32, position: i32));
    link!(linker, fd_sync(fd: i32));
    link!(linker, fd_write(fd: i32, parts: i32, len: i32, written: i32) if len);
    link!(linker, path_create_directory(fd: i32, path: i32, len: i32));
    link!(linker, path_filestat_get(fd: i32, flags: i32, path: i32, len: i32, stat: i32));
    link!(linker, path_open(
        fd: i32, flags: i32, path: i32, len: i32, oflags: i32,
        rights: i64, inheriting: i64, fdflags: i32, opened: i32
    ));
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

/// The bytes of a span, if they all lie in the guest's memory.
pub(super) fn bytes_of(memory: &[u8], span: Span) -> Option<&[u8]> {
    let start = usize::try_from(span.ptr).ok()?;
    memory.get(start..start.checked_add(usize::try_from(span.len).ok()?)?)
}
