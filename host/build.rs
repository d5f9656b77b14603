//! Builds the guest, so that the library and the program hold it ready to run.
//!
//! The crate `proglog-wasm` is compiled for wasm32-wasip1, and that module ahead of time to machine
//! code, for wasmtime; and for wasm32-unknown-unknown, with JavaScript made by wasm-bindgen, for
//! browsers.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use wasm_bindgen_cli_support::Bindgen;

#[path = "build/panics.rs"]
mod panics;

include!("src/wasm_config.rs");

const WASI: &str = "wasm32-wasip1";
const BROWSER: &str = "wasm32-unknown-unknown";

/// What exported functions are called in the source, where `read` would be the C library's.
const EXPORT_PREFIX: &str = "proglog_";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // On one line: it is the first that a newcomer sees.
            println!("cargo::error={error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("run this with cargo")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("run this with cargo")?);
    let workspace = host
        .parent()
        .context("the crate host/ lies in the workspace")?;
    watch(&host, workspace);
    require_targets()?;
    let modules = compile(workspace, &out)?;

    let wasi = wasi_module(&modules.join(WASI).join("guest/proglog_wasm.wasm"))?;
    fs::write(out.join("proglog.wasm"), &wasi)?;
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
    browser_package(
        &modules.join(BROWSER).join("guest/proglog_wasm.wasm"),
        &out.join("pkg"),
    )?;
    test_guests(&host.join("tests/guests"), &out)
}

fn watch(host: &Path, workspace: &Path) {
    let files = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "core/Cargo.toml",
        "core/src",
    ]
    .into_iter()
    .chain(["core/FORMAT.md", "wasm/Cargo.toml", "wasm/src"])
    .map(|name| workspace.join(name));
    let own = ["build.rs", "build", "src/wasm_config.rs", "tests/guests"]
        .into_iter()
        .map(|name| host.join(name));
    // Cargo would take one that is not there for changed, always.
    for path in files.chain(own).filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// Fails if a target's standard library is not installed, with the command that installs it.
fn require_targets() -> Result<()> {
    let rustc = env::var_os("RUSTC").context("run this with cargo")?;
    let mut missing = Vec::new();
    for target in [WASI, BROWSER] {
        let printed = Command::new(&rustc)
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .with_context(|| format!("could not run {}", rustc.display()))?;
        let directory = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
        let is_std = |name: &OsStr| name.to_string_lossy().starts_with("libstd-");
        let found = fs::read_dir(directory)
            .is_ok_and(|files| files.flatten().any(|file| is_std(&file.file_name())));
        if !found {
            missing.push(target);
        }
    }
    ensure!(
        missing.is_empty(),
        "the log is compiled to WebAssembly too, and the Rust target for it is not installed; run: \
         rustup target add {}",
        missing.join(" ")
    );
    Ok(())
}

/// Compiles the guest for both targets; gives cargo's target directory.
fn compile(workspace: &Path, out: &Path) -> Result<PathBuf> {
    let target_directory = out.join("guest");
    for target in [WASI, BROWSER] {
        compile_for(target, workspace, &target_directory)?;
    }
    Ok(target_directory)
}

fn compile_for(target: &str, workspace: &Path, target_directory: &Path) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").context("run this with cargo")?);
    // The library is made a module here and not in its Cargo.toml: cargo would then give it one file name
    // for all builds, of whatever features.
    cargo
        .current_dir(workspace)
        .args(["rustc", "--package", "proglog-wasm", "--lib"])
        .args(["--crate-type", "cdylib", "--profile", "guest"])
        .args(["--target", target, "--target-dir"])
        .arg(target_directory);
    if target == BROWSER {
        // It is loaded over a network: a quarter smaller so. Checksums stay fast.
        cargo.args(["--config", "profile.guest.opt-level=\"z\""]);
        cargo.args(["--config", "profile.guest.package.xxhash-rust.opt-level=3"]);
    }
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    // Neither this build's settings nor the machine's compiler flags are the guest's: it is to be the
    // same module wherever it is built.
    for (name, _) in env::vars_os() {
        if is_outer(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    // But the compiler is the same.
    cargo.envs(env::var_os("RUSTC").map(|rustc| ("RUSTC", rustc)));
    // And both share the processors.
    if let Some(jobs) = env::var_os("CARGO_MAKEFLAGS") {
        cargo.env("MAKEFLAGS", jobs);
    }
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    // Paths are in panic messages.
    for (path, name) in [
        (Some(workspace.to_owned()), "proglog"),
        (cargo_home(), "cargo"),
    ] {
        flags.extend(path.map(|path| format!("--remap-path-prefix={}={name}", path.display())));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let built = cargo.output().context("could not run cargo")?;
    if !built.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&built.stderr));
        bail!("the guest could not be compiled; what the compiler said is above");
    }
    Ok(())
}

/// Whether a variable is the outer build's, or changes what the compiler makes.
fn is_outer(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTC_WRAPPER",
    ];
    let named = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let outer = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "DEP_",
        "CLIPPY_",
        "MAKEFLAGS",
    ];
    named(&outer) && !named(&KEPT)
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

fn wasi_module(path: &Path) -> Result<Vec<u8>> {
    let mut module = walrus::Module::from_file(path)
        .with_context(|| format!("could not read {}", path.display()))?;
    rename_exports(&mut module);
    Ok(module.emit_wasm())
}

fn rename_exports(module: &mut walrus::Module) {
    // The linker exports where its memory's parts end; that is no one's business.
    let internal: Vec<_> = module
        .exports
        .iter()
        .filter(|export| matches!(export.name.as_str(), "__data_end" | "__heap_base"))
        .map(|export| export.id())
        .collect();
    for id in internal {
        module.exports.delete(id);
    }
    for export in module.exports.iter_mut() {
        if let Some(name) = export.name.strip_prefix(EXPORT_PREFIX) {
            export.name = name.to_owned();
        }
    }
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

fn browser_package(path: &Path, out: &Path) -> Result<()> {
    let mut output = Bindgen::new()
        .input_path(path)
        .out_name("proglog")
        .web(true)?
        .remove_producers_section(true)
        .generate_output()
        .context("wasm-bindgen failed")?;
    panics::forget(output.wasm_mut());
    rename_exports(output.wasm_mut());
    let named = output.wasm_mut().emit_wasm();
    fs::create_dir_all(out)?;
    output
        .emit(out)
        .context("could not write the browser's module")?;
    // The functions' names were to find those that panic.
    let mut config = walrus::ModuleConfig::new();
    config.generate_name_section(false);
    config.generate_producers_section(false);
    let nameless = config.parse(&named)?.emit_wasm();
    fs::write(out.join("proglog_bg.wasm"), nameless)?;
    Ok(())
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
