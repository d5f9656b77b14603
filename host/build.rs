//! Compiles the module for WASI hosts ahead of time to machine code, for wasmtime, so that the library and the program
//! hold it ready to run.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

include!("src/wasm_config.rs");

fn main() -> Result<()> {
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("run this with cargo")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("run this with cargo")?);
    let module = env::var_os("DEP_PROGLOG_MODULES_WASI").context("run this with cargo")?;
    let guests = host.join("tests/guests");
    let own = ["build.rs", "src/wasm_config.rs"].map(|name| host.join(name));
    // Cargo would take one that is not there for changed, always.
    let watched = [own[0].as_path(), &own[1], &guests, Path::new(&module)];
    for path in watched.into_iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }

    let wasi = fs::read(&module)?;
    fs::write(out.join("proglog.cwasm"), precompile(&wasi, &[])?)?;
    // The module's checksums are several times faster with what processors have had for ten years, and ten
    // times slower without what they have had for twenty.
    for (name, flags) in [("v2", &X86_64_V2[..]), ("v3", &X86_64_V3[..])] {
        let compiled = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
            Ok("x86_64") => precompile(&wasi, flags)?,
            _ => Vec::new(),
        };
        fs::write(out.join(format!("proglog-{name}.cwasm")), compiled)?;
    }
    test_guests(&guests, &out)
}

/// What processors of the levels x86-64-v2 and x86-64-v3 have, of what the compiler has a use for. The levels:
/// <https://gitlab.com/x86-psABIs/x86-64-ABI>.
const X86_64_V2: [&str; 5] = [
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
];
const X86_64_V3: [&str; 11] = [
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_avx",
    "has_avx2",
    "has_bmi1",
    "has_bmi2",
    "has_fma",
    "has_lzcnt",
];

/// Compiles a module to machine code that every processor of the target runs which has these features.
#[allow(unsafe_code, reason = "wasmtime cannot know what a flag does")]
fn precompile(wasm: &[u8], features: &[&str]) -> Result<Vec<u8>> {
    let mut config = wasm_config();
    // A target that is named is compiled for without the features of the processor at hand.
    config.target(&env::var("TARGET")?)?;
    for feature in features {
        // SAFETY: the flag tells the compiler that an instruction is there, and changes nothing else. Which
        // were told stands in what it makes, and wasmtime loads that on no processor that lacks one.
        unsafe { config.cranelift_flag_enable(feature) };
    }
    wasmtime::Engine::new(&config)?
        .precompile_module(wasm)
        .context("could not compile the guest")
}

/// Compiles the misbehaving guests that tests run the library with.
fn test_guests(sources: &Path, out: &Path) -> Result<()> {
    for source in fs::read_dir(sources).into_iter().flatten() {
        let source = source?.path();
        let wasm = wat::parse_file(&source)?;
        let name = source.file_stem().context("a test guest has no name")?;
        fs::write(
            out.join(name).with_extension("cwasm"),
            precompile(&wasm, &[])?,
        )?;
    }
    Ok(())
}
