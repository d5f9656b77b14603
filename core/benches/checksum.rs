//! Which XXH3-64 to use: nanoseconds a call, the least of many rounds, for records of several sizes.
//!
//! `make bench-checksum` runs it natively, then as wasm in node's V8. On a machine with two cores:
//!
//! | ns a call | xxhash-rust | twox-hash | in wasm: xxhash-rust | twox-hash |
//! |-|-|-|-|-|
//! | 100 B | 7.2 | 7.7 | 29.0 | 30.7 |
//! | 1 KiB | 42.4 | 29.2 | 71.2 | 113.5 |
//! | 64 KiB | 2,502 | 1,401 | 3,392 | 5,741 |
//!
//! xxhash-rust has the better sum. twox-hash, natively, has AVX2 when the processor does: 13 ns at 1 KiB,
//! which does not pay for a second implementation of what must never differ.

use std::{hint::black_box, time::Instant};

type Hash = fn(&[u8]) -> u64;

fn main() {
    let candidates: [(&str, Hash); 2] = [
        ("xxhash-rust", xxhash_rust::xxh3::xxh3_64),
        ("twox-hash", twox_hash::XxHash3_64::oneshot),
    ];
    let data: Vec<u8> = (0..1_u32 << 16)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (_, hash) in candidates {
        assert_eq!(hash(&data), candidates[0].1(&data), "they must agree");
    }
    println!(
        "{:>8} {:>14} {:>14}",
        "bytes", candidates[0].0, candidates[1].0
    );
    for bytes in [16, 100, 240, 1024, 4096, 1 << 16] {
        // Turn about, so that whatever else the machine does strikes both.
        let mut least = [f64::INFINITY; 2];
        for _ in 0..200 {
            for (least, (_, hash)) in least.iter_mut().zip(candidates) {
                *least = least.min(time_ns(hash, &data, bytes));
            }
        }
        println!("{bytes:>8} {:>11.1} ns {:>11.1} ns", least[0], least[1]);
    }
}

fn time_ns(hash: Hash, data: &[u8], bytes: usize) -> f64 {
    let calls = (1 << 20) / bytes.max(256);
    let started = Instant::now();
    for call in 0..calls {
        let start = call * 64 % (data.len() - bytes + 1);
        black_box(hash(black_box(&data[start..start + bytes])));
    }
    started.elapsed().as_nanos() as f64 / calls as f64
}
