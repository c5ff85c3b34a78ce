//! The checksum of POSIX `cksum`, which every host can compute.
//!
//! In: bytes. Out: the number that `cksum` prints first. Never: a proof against an attacker; the agent
//! itself compares its BLAKE3 hash before it does anything.

/// CRC-32 with polynomial 0x04C11DB7, high bit first, the length appended (POSIX.1-2017, cksum).
#[must_use]
pub fn cksum(bytes: &[u8]) -> u32 {
    let table = table();
    let step = |crc: u32, byte: u8| (crc << 8) ^ table[usize::from(crc.to_be_bytes()[0] ^ byte)];
    let mut crc = bytes.iter().fold(0, |crc, byte| step(crc, *byte));
    let mut length = bytes.len() as u64;
    while length != 0 {
        crc = step(crc, length.to_le_bytes()[0]);
        length >>= 8;
    }
    !crc
}

fn table() -> [u32; 256] {
    let mut table = [0; 256];
    for (number, entry) in (0_u32..).zip(&mut table) {
        *entry = (0..8).fold(number << 24, |crc, _| {
            (crc << 1) ^ if crc & (1 << 31) != 0 { 0x04c1_1db7 } else { 0 }
        });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_program() {
        // printf … | cksum (GNU coreutils 9.1)
        assert_eq!(cksum(b""), 4_294_967_295);
        assert_eq!(cksum(b"a"), 1_220_704_766);
        assert_eq!(cksum(b"123456789"), 930_766_865);
        assert_eq!(cksum(&[0; 70_000]), cksum_of_program());
    }

    #[expect(clippy::disallowed_methods, reason = "the program that is imitated")]
    fn cksum_of_program() -> u32 {
        let output = std::process::Command::new("sh")
            .args(["-c", "head -c 70000 /dev/zero | cksum"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}
