//! LEB128 varints and strings inside blocks. In: a block's raw bytes. Out: numbers and text.
//! Never: a read past the end, or an allocation larger than the bytes that are there.

use super::FfzError;

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text with its length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads numbers and texts off the front of a slice.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, FfzError> {
        // Most numbers are small.
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                return Ok(u64::from(*byte));
            }
            [low, high @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                return Ok(u64::from(low & 0x7f) | u64::from(*high) << 7);
            }
            [low, middle, high @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                let number = u64::from(low & 0x7f) | u64::from(middle & 0x7f) << 7;
                return Ok(number | u64::from(*high) << 14);
            }
            _ => {}
        }
        self.long_number()
    }

    fn long_number(&mut self) -> Result<u64, FfzError> {
        let mut number = 0_u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(number);
            }
        }
        Err(FfzError::Malformed("a number does not end"))
    }

    /// Passes over numbers without looking at them: each ends with a byte below 0x80, and eight bytes are
    /// looked at together.
    pub(super) fn skip(&mut self, mut count: usize) -> Result<(), FfzError> {
        const ENDS: u64 = 0x8080_8080_8080_8080;
        while let Some((word, rest)) = self.rest.split_first_chunk::<8>() {
            let ends = (!u64::from_le_bytes(*word) & ENDS).count_ones() as usize;
            if ends >= count {
                break;
            }
            count -= ends;
            self.rest = rest;
        }
        while count > 0 {
            let Some((byte, rest)) = self.rest.split_first() else {
                return Err(FfzError::Malformed("a number does not end"));
            };
            count -= usize::from(*byte < 0x80);
            self.rest = rest;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn number_u32(&mut self) -> Result<u32, FfzError> {
        u32::try_from(self.number()?).map_err(|_| FfzError::Malformed("a number is too large"))
    }

    /// A count of things that take at least one byte each.
    pub(super) fn count(&mut self) -> Result<usize, FfzError> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(FfzError::Malformed(
                "a count is larger than the bytes that follow",
            )),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], FfzError> {
        let len = self.count()?;
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, FfzError> {
        std::str::from_utf8(self.bytes()?)
            .map(str::to_owned)
            .map_err(|_| FfzError::Malformed("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_skipped_is_what_would_have_been_read(
            numbers in prop::collection::vec(prop_oneof![0_u64..300, any::<u64>(), 0..1_u64 << 21], 0..40),
            skipped in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            for number in &numbers {
                put(&mut bytes, *number);
            }
            let skipped = skipped.index(numbers.len() + 1);
            let mut cursor = Cursor::new(&bytes);
            cursor.skip(skipped).unwrap();
            for number in &numbers[skipped..] {
                prop_assert_eq!(cursor.number().unwrap(), *number);
            }
            prop_assert!(cursor.is_empty());
            prop_assert!(Cursor::new(&bytes).skip(numbers.len() + 1).is_err());
        }
    }
}
