//! What goes between the harness and `lab-door`: frames of a kind, a length and bytes.
//!
//! In: a stream. Out: frames. Never: a frame beyond [`BODY_MAX`]. Both ends compile this file.
//!
//! One connection is one command: ARGUMENT…, GO; then INPUT…, INPUT_END and SIGNAL as the harness
//! likes, and STARTED, OUTPUT…, ERRORS…, EXITED (or FAILED) back. A connection that the harness closes before
//! EXITED ends the command.

use std::io::{self, Read, Write};

/// The largest body of a frame; senders cut longer contents into pieces.
pub const BODY_MAX: usize = 64 << 10;

/// To the guest: one argument of the command, the program first.
pub const ARGUMENT: u8 = b'a';
/// To the guest: start it.
pub const GO: u8 = b'g';
/// To the guest: bytes of its standard input.
pub const INPUT: u8 = b'i';
/// To the guest: its standard input ends.
pub const INPUT_END: u8 = b'e';
/// To the guest: a signal for it; the body is its number, 4 bytes.
pub const SIGNAL: u8 = b's';
/// From the guest: it runs; the body is its process id, 4 bytes.
pub const STARTED: u8 = b'p';
/// From the guest: bytes of its standard output.
pub const OUTPUT: u8 = b'1';
/// From the guest: bytes of its standard error.
pub const ERRORS: u8 = b'2';
/// From the guest: it ended; the body is its wait status, 4 bytes.
pub const EXITED: u8 = b'x';
/// From the guest: it could not be started; the body says why.
pub const FAILED: u8 = b'!';

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of the constants above.
    pub kind: u8,
    /// Its content.
    pub body: Vec<u8>,
}

impl Frame {
    /// Reads one; none at the end of the stream.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if stream.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BODY_MAX {
            return Err(io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(Some(Self {
            kind: kind[0],
            body,
        }))
    }

    /// The body as a number.
    pub fn number(&self) -> Option<i32> {
        self.body.as_slice().try_into().ok().map(i32::from_le_bytes)
    }
}

/// Writes `body` as frames of `kind`: several when it is long, one when it is empty.
pub fn write(stream: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    let mut rest = body;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(BODY_MAX));
        let mut frame = Vec::with_capacity(5 + piece.len());
        frame.push(kind);
        frame.extend(
            u32::try_from(piece.len())
                .map_err(io::Error::other)?
                .to_le_bytes(),
        );
        frame.extend(piece);
        stream.write_all(&frame)?;
        if after.is_empty() {
            return Ok(());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        let long = vec![7; BODY_MAX + 1];
        write(&mut bytes, OUTPUT, &long).expect("written");
        write(&mut bytes, INPUT_END, b"").expect("written");
        write(&mut bytes, EXITED, &256_i32.to_le_bytes()).expect("written");
        let mut rest = bytes.as_slice();
        let mut next = || Frame::read(&mut rest).expect("a frame");
        assert_eq!(next().map(|frame| frame.body.len()), Some(BODY_MAX));
        assert_eq!(next().map(|frame| frame.body), Some(vec![7]));
        assert_eq!(next().map(|frame| frame.kind), Some(INPUT_END));
        assert_eq!(next().and_then(|frame| frame.number()), Some(256));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_or_cut_is_an_error() {
        let mut long = &[OUTPUT, 1, 0, 1, 0][..];
        assert!(Frame::read(&mut long).is_err());
        let mut cut = &[OUTPUT, 2, 0, 0, 0, 1][..];
        assert!(Frame::read(&mut cut).is_err());
    }
}
