//! What messages are made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// In the browser's module what formats for debugging ends it: see wasm/modules/panics.rs.
#[test]
fn none_is_formatted_for_debugging() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    find(&workspace.join("core/src"), &mut sources);
    find(&workspace.join("wasm/src"), &mut sources);
    assert!(sources.len() > 80, "{sources:?}");
    for path in sources {
        let source = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = source.lines().collect();
        let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
        for (n, line) in lines[..end].iter().enumerate() {
            let is_code = !line.trim_start().starts_with("//");
            let place = format!("{}:{}", path.display(), n + 1);
            assert!(!is_code || !line.contains("?}"), "{place}: {line}");
        }
    }
}

fn find(directory: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, sources);
        } else if !path.ends_with("tests.rs") {
            sources.push(path);
        }
    }
}
