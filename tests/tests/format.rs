//! The bytes that FORMAT.md shows of the vectors.

use std::{collections::BTreeMap, fs};

use proglog_tests::vector::Vector;

#[test]
fn its_examples_of_recovery_are_the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/FORMAT.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("\n### Examples\n").unwrap();
    let (text, _) = text.split_once("\n### ").unwrap();
    let vectors = Vector::all();
    let mut shown = 0;
    let parts: Vec<_> = text.split(".json`").collect();
    for pair in parts.windows(2) {
        let (_, name) = pair[0].rsplit_once('`').unwrap();
        let example = pair[1];
        let given = vectors[name].given();
        for (file, bytes) in files_in(example) {
            assert!(
                given[&file].starts_with(&bytes),
                "{file} of {name}.json is not as it stands in FORMAT.md"
            );
            // An index that was mapped has zeros after its entries.
            assert!(
                given[&file][bytes.len()..].iter().all(|byte| *byte == 0),
                "{file} of {name}.json has more"
            );
            shown += 1;
        }
    }
    assert_eq!(shown, 4);
}

/// The files of a block: digits, and what they are after them.
fn files_in(example: &str) -> BTreeMap<String, Vec<u8>> {
    let (_, block) = example.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut file = "";
    for line in block.lines() {
        let (name, line) = line.split_at(line.find("  ").unwrap());
        if !name.is_empty() {
            file = name;
        }
        let digits = line.split_whitespace().map_while(bytes_of);
        files
            .entry(file.to_owned())
            .or_default()
            .extend(digits.flatten());
    }
    files
}

/// The bytes of a field: two at least, so that no offset is taken for one.
fn bytes_of(field: &str) -> Option<Vec<u8>> {
    (field.len() >= 4)
        .then(|| hex::decode(field).ok())
        .flatten()
}
