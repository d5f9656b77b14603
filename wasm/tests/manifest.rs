//! The manifest of a log's files in a browser: what is not whole is not taken for one, whatever its bytes.

use proglog_wasm::opfs::{Found, Manifest, find};

fn manifest(generation: u64, names: u32) -> Manifest {
    let mut manifest = Manifest {
        generation,
        ..Manifest::default()
    };
    for n in 0..names {
        let name = format!("{}.store", n * 1000);
        assert_eq!(manifest.files.insert(&name, n), None);
    }
    manifest
}

#[test]
fn it_comes_back_as_it_was() {
    for names in [0, 1, 2, 300, 5000] {
        let manifest = manifest(7, names);
        let mut bytes = manifest.encode();
        assert_eq!(bytes.len() % 4096, 0);
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        // A longer one may have stood there before.
        bytes.extend(b"what is left of another");
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }
}

#[test]
fn a_flipped_bit_is_found_and_another_copy_taken() {
    let (older, newer) = (manifest(6, 4), manifest(7, 5));
    let whole = newer.encode();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for bit in 0..end * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Manifest::decode(&flipped), None, "bit {bit}");
        let found = find(&[older.encode(), flipped.clone(), whole.clone()], true).unwrap();
        assert_eq!(
            found,
            Found::Manifest {
                copy: 2,
                manifest: newer.clone()
            }
        );
        let found = find(&[older.encode(), flipped, Vec::new()], true).unwrap();
        assert_eq!(
            found,
            Found::Manifest {
                copy: 0,
                manifest: older.clone()
            }
        );
    }
}

#[test]
fn a_torn_write_is_found_at_every_length() {
    let (older, newer) = (manifest(6, 400).encode(), manifest(7, 400).encode());
    let end = newer.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for written in 0..end {
        let torn = [&newer[..written], &older[written..]].concat();
        let decoded = Manifest::decode(&torn);
        // The generation's last byte alone tells them apart, and the checksum.
        assert!(decoded.is_none_or(|torn| torn.generation == 6), "{written}");
        assert_eq!(Manifest::decode(&newer[..written]), None, "{written}");
    }
}

#[test]
fn crafted_bytes_are_refused_and_ask_for_no_memory() {
    let craft = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = b"proglog\x01".to_vec();
        change(&mut bytes);
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&bytes).to_be_bytes());
        Manifest::decode(&bytes)
    };
    let file = |bytes: &mut Vec<u8>, number: u32, name: &[u8]| {
        bytes.extend(number.to_be_bytes());
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend(name);
    };
    let header = |bytes: &mut Vec<u8>, count: u64| {
        bytes.extend(1_u64.to_be_bytes());
        bytes.extend(count.to_be_bytes());
    };
    assert!(
        craft(&|bytes| {
            header(bytes, 2);
            file(bytes, 1, b"a");
            file(bytes, 2, b"b");
        })
        .is_some()
    );
    for count in [1, u64::MAX, 1 << 40] {
        assert_eq!(craft(&|bytes| header(bytes, count)), None);
    }
    // Two files of a name, two names of a file, names in another order, and a name that is no text.
    for [first, second] in [
        [(1, b"a"), (2, b"a")],
        [(1, b"b"), (2, b"a")],
        [(1, b"a"), (1, b"b")],
        [(1, b"a"), (2, b"\xff")],
    ] {
        let crafted = craft(&|bytes| {
            header(bytes, 2);
            file(bytes, first.0, first.1);
            file(bytes, second.0, second.1);
        });
        assert_eq!(crafted, None);
    }
    assert_eq!(Manifest::decode(&[]), None);
    assert_eq!(Manifest::decode(&[0; 4096]), None);
}

#[test]
fn what_was_lost_is_not_taken_for_what_never_was() {
    let whole = manifest(1, 0).encode();
    let torn = whole[..12].to_vec();
    let nothing = Vec::new;
    for (copies, has_files, is_nothing) in [
        ([nothing(), nothing(), nothing()], false, true),
        ([torn.clone(), nothing(), nothing()], false, true),
        ([nothing(), nothing(), nothing()], true, false),
        ([torn.clone(), nothing(), nothing()], true, false),
        ([torn.clone(), torn.clone(), nothing()], false, false),
    ] {
        let found = find(&copies, has_files);
        assert_eq!(
            matches!(found, Ok(Found::Nothing)),
            is_nothing,
            "{copies:?}"
        );
        if !is_nothing {
            assert!(found.unwrap_err().to_string().contains("restore an export"));
        }
    }
    let found = find(&[nothing(), torn, whole], true).unwrap();
    assert_eq!(
        found,
        Found::Manifest {
            copy: 2,
            manifest: Manifest {
                generation: 1,
                ..Manifest::default()
            }
        }
    );
}
