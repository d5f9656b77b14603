//! The public API of both libraries is what `{core,host}/public-api.txt` lists: no item comes, goes or changes unseen.
//!
//! `make public-api` writes the lists.

use std::{env, fs, path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Set where the lists are to be written, not compared.
const UPDATE: &str = "PROGLOG_UPDATE_PUBLIC_API";

#[test]
fn core_is_as_listed() {
    is_as_listed("core", "proglog");
}

#[test]
fn host_is_as_listed() {
    is_as_listed("host", "proglog-host");
}

fn is_as_listed(directory: &str, package: &str) {
    let list = Path::new(ROOT).join(directory).join("public-api.txt");
    let found = public_api(package);
    if env::var_os(UPDATE).is_some() {
        fs::write(&list, found).unwrap();
        return;
    }
    let listed = fs::read_to_string(&list).unwrap();
    let gone = lines_missing(&listed, &found, '-');
    let new = lines_missing(&found, &listed, '+');
    assert!(
        gone.is_empty() && new.is_empty(),
        "the public API of {package} is not what {} lists:\n{gone}{new}\
         If that is as it should be, run `make public-api` and say in CHANGELOG.md what changes for users. Where a line \
         is gone, a program that compiled may not any more: that takes a new minor version while it is 0.x.",
        list.display()
    );
}

/// One item a line, sorted; without those that every type has.
fn public_api(package: &str) -> String {
    let target = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&target.stdout).unwrap();
    let target = Path::new(metadata["target_directory"].as_str().unwrap());
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--package"])
        .args([
            package,
            "--",
            "-Zunstable-options",
            "--output-format=json",
            "--cap-lints=allow",
        ])
        .current_dir(ROOT)
        .env("RUSTDOC", Path::new(ROOT).join(".ci/rustdoc-json"))
        .status()
        .unwrap();
    assert!(built.success(), "rustdoc of {package}: {built}");
    let json = target
        .join("doc")
        .join(package.replace('-', "_"))
        .with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .sorted(true)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(false)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap();
    api.items().map(|item| format!("{item}\n")).collect()
}

/// The lines of one that the other has not, each after a sign.
fn lines_missing(of: &str, other: &str, sign: char) -> String {
    let other: std::collections::HashSet<_> = other.lines().collect();
    of.lines()
        .filter(|line| !other.contains(line))
        .map(|line| format!("{sign} {line}\n"))
        .collect()
}
