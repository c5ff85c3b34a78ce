//! The sampled words of a machine stack. In: the kernel's copy and what was read above it. Out: words
//! by address. Never: a read of live memory.

/// A stack, as it was when the sample was taken.
#[derive(Clone, Copy, Debug)]
pub struct StackWords<'a> {
    /// Address of the first byte.
    pub start: u64,
    /// The kernel's copy.
    pub copy: &'a [u8],
    /// What was read above it.
    pub extension: &'a [u8],
}

impl StackWords<'_> {
    /// The word at an address.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let whole = |bytes: &[u8], at: usize| {
            let bytes = bytes.get(at..at.checked_add(8)?)?;
            bytes.try_into().ok().map(u64::from_ne_bytes)
        };
        if let Some(word) = whole(self.copy, at) {
            return Some(word);
        }
        if let Some(above) = at.checked_sub(self.copy.len()) {
            return whole(self.extension, above);
        }
        let mut bytes = [0; 8];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = at.checked_add(i)?;
            *byte = match self.copy.get(at) {
                Some(byte) => *byte,
                None => *self.extension.get(at - self.copy.len())?,
            };
        }
        Some(u64::from_ne_bytes(bytes))
    }

    /// Address behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start
            .saturating_add((self.copy.len() + self.extension.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_lie_across_the_copy_and_its_extension() {
        let copy: Vec<u8> = (0..20).collect();
        let extension: Vec<u8> = (20..40).collect();
        let words = StackWords {
            start: 0x1000,
            copy: &copy,
            extension: &extension,
        };
        assert_eq!(
            words.word(0x1010),
            Some(u64::from_ne_bytes([16, 17, 18, 19, 20, 21, 22, 23]))
        );
        assert_eq!(
            words.word(0x1020),
            Some(u64::from_ne_bytes([32, 33, 34, 35, 36, 37, 38, 39]))
        );
        assert_eq!(
            words.word(0x1000),
            Some(u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]))
        );
        assert_eq!(words.word(0x1021), None);
        assert_eq!(words.word(0xfff), None);
        assert_eq!(words.word(u64::MAX - 3), None);
        assert_eq!(words.end(), 0x1028);
    }
}
