//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>), as far as
//! `profile.proto` needs it: numbers, texts, messages and packed lists of numbers.
//!
//! In: a part of the input. Out: fields one by one; and back. Never: a read past a message's end.

use crate::format::import::ImportError;
use std::ops::Range;

/// An error at a byte of the unpacked input.
pub(super) fn damaged(at: usize, what: impl Into<String>) -> ImportError {
    ImportError::Damaged {
        format: "pprof",
        at: at as u64,
        what: what.into(),
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A varint.
    Number(u64),
    /// A text, a message or a packed list: where its bytes are.
    Bytes(Range<usize>),
    /// Four or eight bytes that no field of `profile.proto` has.
    Fixed,
}

/// A field, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub number: u64,
    pub value: Value,
    pub at: usize,
}

impl Field {
    /// The number that it holds.
    pub fn number(&self) -> Result<u64, ImportError> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(damaged(
                self.at,
                format!("field {} holds no number", self.number),
            )),
        }
    }

    /// Where its text or message is.
    pub fn bytes(&self) -> Result<Range<usize>, ImportError> {
        match &self.value {
            Value::Bytes(range) => Ok(range.clone()),
            _ => Err(damaged(
                self.at,
                format!("field {} holds no text and no message", self.number),
            )),
        }
    }

    /// Gives each number of a repeated field, packed or not.
    pub fn numbers(&self, input: &[u8], mut each: impl FnMut(u64)) -> Result<(), ImportError> {
        match &self.value {
            Value::Number(number) => each(*number),
            Value::Bytes(range) => {
                let mut packed = Fields::new(input, range.clone());
                while packed.at < packed.end {
                    each(packed.varint()?);
                }
            }
            Value::Fixed => {
                return Err(damaged(
                    self.at,
                    format!("field {} holds no numbers", self.number),
                ));
            }
        }
        Ok(())
    }
}

/// The fields of one message.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    input: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// Of the message at `range`, which lies in `input`.
    pub fn new(input: &'a [u8], range: Range<usize>) -> Self {
        let end = range.end.min(input.len());
        Self {
            input,
            at: range.start.min(end),
            end,
        }
    }

    /// The next field; none at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Field>, ImportError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 {
            return Err(damaged(at, "a field has number 0"));
        }
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(at, 8)?,
            2 => {
                let len = self.varint()?;
                let start = self.at;
                let left = self.end - start;
                let len = usize::try_from(len).ok().filter(|l| *l <= left);
                let len = len.ok_or_else(|| {
                    damaged(at, format!("field {number} is longer than what holds it"))
                })?;
                self.at += len;
                Value::Bytes(start..self.at)
            }
            5 => self.skip(at, 4)?,
            wire => {
                return Err(damaged(
                    at,
                    format!(
                        "field {number} has wire type {wire}, which profile.proto does not use"
                    ),
                ));
            }
        };
        Ok(Some(Field { number, value, at }))
    }

    fn skip(&mut self, at: usize, len: usize) -> Result<Value, ImportError> {
        if self.end - self.at < len {
            return Err(damaged(at, "a field ends behind its message"));
        }
        self.at += len;
        Ok(Value::Fixed)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, ImportError> {
        let mut number = 0_u64;
        let rest = &self.input[self.at..self.end];
        for (i, byte) in rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok(number);
            }
        }
        Err(damaged(self.at, "a number does not end"))
    }
}

/// Appends a varint.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number field. Zero is what an absent one means, and is left out.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put(out, u64::from(field << 3));
        put(out, number);
    }
}

/// Appends a text or message field.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put(out, u64::from(field << 3 | 2));
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a packed list of numbers, unless it is empty. `room` is used on the way.
pub(super) fn put_packed(
    out: &mut Vec<u8>,
    room: &mut Vec<u8>,
    field: u32,
    numbers: impl IntoIterator<Item = u64>,
) {
    room.clear();
    numbers.into_iter().for_each(|n| put(room, n));
    if !room.is_empty() {
        put_bytes(out, field, room);
    }
}
