//! MurmurHash3 of 128 bits, x64 variant (Austin Appleby, public domain): what Cilium hashes backends by.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The two halves of the hash.
pub(super) fn murmur3_x64_128(data: &[u8], seed: u32) -> (u64, u64) {
    let (mut h1, mut h2) = (u64::from(seed), u64::from(seed));
    let (blocks, tail) = data.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(*block);
        h1 ^= scramble_1(k1);
        h1 = h1.rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= scramble_2(k2);
        h2 = h2.rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // A tail that is filled up with zeros adds nothing where it has no bytes: scrambled, 0 is 0.
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (k1, k2) = halves(last);
    h2 ^= scramble_2(k2);
    h1 ^= scramble_1(k1);
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finish(h1);
    h2 = finish(h2);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

/// The two little-endian numbers of a block.
fn halves(block: [u8; 16]) -> (u64, u64) {
    let number = u128::from_le_bytes(block);
    (number as u64, (number >> 64) as u64)
}

const fn scramble_1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

const fn scramble_2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

const fn finish(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation and of the Go package that Cilium takes its own from.
    #[test]
    fn known_vectors() {
        for (seed, text, hash) in [
            (0, "", (0, 0)),
            (0, "hello", (0xcbd8_a7b3_41bd_9b02, 0x5b1e_906a_48ae_1d19)),
            (
                0,
                "hello, world",
                (0x342f_ac62_3a5e_bc8e, 0x4cdc_bc07_9642_414d),
            ),
            (
                0,
                "19 Jan 2038 at 3:14:07 AM",
                (0xb89e_5988_b737_affc, 0x664f_c295_0231_b2cb),
            ),
            (
                0,
                "The quick brown fox jumps over the lazy dog.",
                (0xcd99_481f_9ee9_02c9, 0x695d_a1a3_8987_b6e7),
            ),
            (1, "", (0x4610_abe5_6eff_5cb5, 0x5162_2daa_78f8_3583)),
            (1, "hello", (0xa78d_dff5_adae_8d10, 0x1289_00ef_2090_0135)),
        ] {
            assert_eq!(
                murmur3_x64_128(text.as_bytes(), seed),
                hash,
                "{text:?}, {seed}"
            );
        }
    }
}
