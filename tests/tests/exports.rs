//! The module for WASI hosts and the one for browsers are one ABI.

use std::collections::{BTreeMap, BTreeSet};

use proglog_host::{browser_wasm, guest_wasm};
use wasmparser::{CompositeInnerType, ExternalKind, Parser, Payload, TypeRef};

/// The exports of ABI version 3, beside `memory`.
const FUNCTIONS: &str = "
    abi_version() -> i32
    alloc(i32) -> i32
    append(i32, i32, i32, i64, i32, i64) -> i64
    append_batch(i32, i32, i32, i32, i64) -> i64
    append_drafts(i32, i32, i32, i32, i64) -> i64
    close(i32) -> i32
    compact(i32, i64, i64, i64) -> i64
    dealloc(i32, i32) -> i32
    durable_offset(i32) -> i64
    enforce_retention(i32, i64, i64, i64) -> i32
    last_conflict() -> i64
    last_error() -> i64
    locate(i32, i64) -> i64
    lowest_offset(i32) -> i64
    next_offset(i32) -> i64
    open(i32, i32, i32, i64, i64, i64, i64) -> i32
    producer_last(i32, i32, i32) -> i64
    read(i32, i64) -> i64
    read_batch(i32, i64, i32) -> i64
    recovery_report(i32) -> i64
    refresh(i32) -> i32
    reset(i32) -> i32
    segments(i32) -> i64
    skip_to(i32, i64, i32) -> i32
    sync(i32) -> i32
    truncate_after(i32, i64) -> i32
    truncate_before(i32, i64) -> i32
    verify(i32) -> i64
";

#[test]
fn both_modules_export_the_same_functions() {
    let (wasi, browser) = (Module::parse(guest_wasm()), Module::parse(browser_wasm()));
    assert_eq!(wasi.exports, browser.exports);

    let functions = FUNCTIONS
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let mut expected = functions.map(str::to_owned).collect::<BTreeSet<_>>();
    expected.insert("memory".to_owned());
    let exports = wasi
        .exports
        .iter()
        .map(|(name, signature)| format!("{name}{signature}"));
    assert_eq!(exports.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn each_module_asks_only_for_its_own_surroundings() {
    let (wasi, browser) = (Module::parse(guest_wasm()), Module::parse(browser_wasm()));
    assert_eq!(
        wasi.imported_from,
        BTreeSet::from(["wasi_snapshot_preview1".to_owned()])
    );
    assert_eq!(
        browser.imported_from,
        BTreeSet::from(["./proglog_bg.js".to_owned()])
    );
}

/// What a module has to do with others.
struct Module {
    /// Signatures by name; empty for what is no function. Without wasm-bindgen's own.
    exports: BTreeMap<String, String>,
    imported_from: BTreeSet<String>,
}

impl Module {
    fn parse(wasm: &[u8]) -> Self {
        let mut types = Vec::new();
        let mut functions = Vec::new();
        let mut imported_from = BTreeSet::new();
        let mut exports = BTreeMap::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.expect("a sound module") {
                Payload::TypeSection(section) => {
                    for group in section {
                        types.extend(group.expect("a type").into_types().map(signature));
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section {
                        let import = import.expect("an import");
                        imported_from.insert(import.module.to_owned());
                        if let TypeRef::Func(of_type) = import.ty {
                            functions.push(of_type);
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    functions.extend(
                        section
                            .into_iter()
                            .map(|of_type| of_type.expect("a function")),
                    );
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.expect("an export");
                        let signature = match export.kind {
                            ExternalKind::Func => {
                                types[functions[export.index as usize] as usize].clone()
                            }
                            _ => String::new(),
                        };
                        exports.insert(export.name.to_owned(), signature);
                    }
                }
                _ => {}
            }
        }
        // wasm-bindgen's own, and the methods of its classes `Log` and `Directory`.
        let is_of_classes = |name: &str| {
            ["__", "log_", "directory_"]
                .iter()
                .any(|of| name.starts_with(of))
        };
        exports.retain(|name, _| !is_of_classes(name));
        Self {
            exports,
            imported_from,
        }
    }
}

fn signature(of_type: wasmparser::SubType) -> String {
    let CompositeInnerType::Func(function) = of_type.composite_type.inner else {
        return String::new();
    };
    let list = |types: &[wasmparser::ValType]| {
        types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "({}) -> {}",
        list(function.params()),
        list(function.results())
    )
}
