//! Fills in what the operations of new vectors give and the files they leave, from the model:
//! `cargo run -p proglog-tests --example fill_vectors -- tests/vectors/NEW.json`. Read what it wrote
//! before you believe it; damage it cannot do.

use std::{env, error::Error, fmt::Write as _, fs};

use proglog_tests::{
    model::Model,
    vector::{FileBytes, Vector},
};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    for path in env::args().skip(1) {
        let mut vector: Vector = serde_json::from_slice(&fs::read(&path)?)?;
        let mut model = Model::open(&vector.given(), vector.options);
        for step in &mut vector.script {
            (step.gives, step.fails) = match model.perform(&step.operation) {
                Ok(gives) => (gives, None),
                Err(kind) => (None, Some(kind.to_owned())),
            };
        }
        vector.files = model
            .files()
            .into_iter()
            .map(|(name, bytes)| (name, FileBytes::of(&bytes)))
            .collect();
        fs::write(&path, written(&vector)?)?;
    }
    Ok(())
}

/// As JSON with a step or a file a line.
fn written(vector: &Vector) -> Result<String, Box<dyn Error>> {
    let mut text = format!(
        "{{\n  \"about\": {},\n  \"options\": {},\n",
        json!(vector.about),
        json!(vector.options)
    );
    if !vector.given.is_empty() {
        let given = vector
            .given
            .iter()
            .map(|(name, bytes)| format!("{}: {}", json!(name), json!(bytes)));
        lines(&mut text, "given", ['{', '}'], given)?;
    }
    lines(
        &mut text,
        "script",
        ['[', ']'],
        vector.script.iter().map(|step| json!(step).to_string()),
    )?;
    let files = vector
        .files
        .iter()
        .map(|(name, bytes)| format!("{}: {}", json!(name), json!(bytes)));
    lines(&mut text, "files", ['{', '}'], files)?;
    text.truncate(text.len() - 2);
    Ok(text + "\n}\n")
}

fn lines(
    text: &mut String,
    name: &str,
    [open, close]: [char; 2],
    lines: impl Iterator<Item = String>,
) -> std::fmt::Result {
    let lines: Vec<_> = lines.map(|line| format!("\n    {line}")).collect();
    writeln!(text, "  \"{name}\": {open}{}\n  {close},", lines.join(","))
}
