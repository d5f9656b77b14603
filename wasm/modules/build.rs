//! Compiles the crate `proglog-wasm` for wasm32-wasip1; and for wasm32-unknown-unknown, with JavaScript made by
//! wasm-bindgen, for browsers.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use wasm_bindgen_cli_support::Bindgen;

mod panics;

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
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("run this with cargo")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("run this with cargo")?);
    let workspace = own
        .ancestors()
        .nth(2)
        .context("the crate wasm/modules/ lies in the workspace")?;
    watch(&own, workspace);
    require_targets()?;
    let modules = compile(workspace, &out)?;

    let wasi = wasi_module(&modules.join(WASI).join("guest/proglog_wasm.wasm"))?;
    fs::write(out.join("proglog.wasm"), wasi)?;
    println!(
        "cargo::metadata=WASI={}",
        out.join("proglog.wasm").display()
    );
    browser_package(
        &modules.join(BROWSER).join("guest/proglog_wasm.wasm"),
        &out.join("pkg"),
    )
}

fn watch(own: &Path, workspace: &Path) {
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
    let own = ["build.rs", "panics.rs"].map(|name| own.join(name));
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
