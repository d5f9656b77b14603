//! The module, loaded once a process.

use std::sync::OnceLock;

use wasmtime::{Engine, InstancePre, Linker, Module};

use super::{ticker::Ticker, wasi};

include!("../wasm_config.rs");

/// The engine and its clock, shared by all modules.
pub(super) struct Runtime {
    engine: Engine,
    pub(super) ticker: Ticker,
}

impl Runtime {
    /// The process's one runtime.
    pub(super) fn get() -> Result<&'static Self, String> {
        static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
        RUNTIME
            .get_or_init(|| Self::start().map_err(|e| format!("{e:#}")))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn start() -> anyhow::Result<Self> {
        let engine = Engine::new(&wasm_config())?;
        let ticker = Ticker::start(engine.weak())?;
        Ok(Self { engine, ticker })
    }
}

/// A guest, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub(super) struct GuestModule {
    pub(super) instance: InstancePre<wasi::State>,
}

impl GuestModule {
    /// The log's own guest, as compiled for the most that the processor has.
    pub(super) fn log() -> Result<&'static Self, String> {
        static MODULE: OnceLock<Result<GuestModule, String>> = OnceLock::new();
        /// One file that build.rs made.
        macro_rules! load {
            ($name:literal) => {
                // SAFETY: build.rs made these bytes, with wasmtime's own compiler of the same version.
                unsafe { Self::load(include_bytes!(concat!(env!("OUT_DIR"), "/", $name))) }
            };
        }
        let load = || {
            // One that the processor cannot run is refused, and one that is for another kind is empty.
            load!("proglog-v3.cwasm")
                .or_else(|_| load!("proglog-v2.cwasm"))
                .or_else(|_| load!("proglog.cwasm"))
        };
        MODULE.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// Loads a module that was compiled ahead of time.
    ///
    /// # Safety
    ///
    /// The bytes are what wasmtime's compiler made: they hold machine code, which will be run.
    pub(super) unsafe fn load(compiled: &[u8]) -> Result<Self, String> {
        let load = || -> anyhow::Result<Self> {
            let engine = &Runtime::get().map_err(anyhow::Error::msg)?.engine;
            // SAFETY: as this function's.
            let module = unsafe { Module::deserialize(engine, compiled)? };
            let mut linker = Linker::new(engine);
            wasi::add_to_linker(&mut linker)?;
            Ok(Self {
                instance: linker.instantiate_pre(&module)?,
            })
        };
        load().map_err(|e| format!("{e:#}"))
    }
}
