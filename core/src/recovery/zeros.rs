//! Zeros, at memory speed: a store may be prepared with a great many.

/// What is looked at together; the compiler makes it a few instructions.
const BLOCK: usize = 64;

/// How many zeros the bytes begin with.
pub(super) fn head(bytes: &[u8]) -> usize {
    let blocks = bytes.chunks_exact(BLOCK).take_while(|block| all(block));
    let at = blocks.count() * BLOCK;
    let rest = bytes[at..].iter().position(|&byte| byte != 0);
    rest.map_or(bytes.len(), |rest| at + rest)
}

/// How many zeros the bytes end with.
pub(super) fn tail(bytes: &[u8]) -> usize {
    let blocks = bytes.rchunks_exact(BLOCK).take_while(|block| all(block));
    let end = bytes.len() - blocks.count() * BLOCK;
    let last = bytes[..end].iter().rposition(|&byte| byte != 0);
    bytes.len() - last.map_or(0, |last| last + 1)
}

pub(crate) fn all(bytes: &[u8]) -> bool {
    // Without an early end, so that many bytes are taken at once.
    bytes.iter().fold(0, |any, &byte| any | byte) == 0
}

#[cfg(test)]
mod tests {
    use super::{head, tail};

    #[test]
    fn zeros_are_counted_from_both_ends() {
        for length in [0, 1, 63, 64, 65, 200] {
            assert_eq!(
                (head(&vec![0; length]), tail(&vec![0; length])),
                (length, length)
            );
            for at in 0..length {
                let mut bytes = vec![0; length];
                bytes[at] = 1;
                assert_eq!((head(&bytes), tail(&bytes)), (at, length - at - 1));
            }
        }
    }
}
