//! Bytes of debug info that count how often they are read.
//!
//! In: bytes, and how many readings are allowed. Out: the same bytes to gimli, until the allowance is used
//! up; then every reading is an error. Never: a parser of hostile debug info at work without end: each of its
//! steps reads something, and what it keeps grows by a bounded number of bytes with each step.

use gimli::{EndianRcSlice, ReaderOffsetId, Result, RunTimeEndian};
use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

/// How many readings are left.
#[derive(Debug)]
pub struct Allowance(Cell<u64>);

impl Allowance {
    /// So many.
    pub fn new(readings: u64) -> Rc<Self> {
        Rc::new(Self(Cell::new(readings)))
    }

    /// Whether none is left.
    pub fn is_used_up(&self) -> bool {
        self.0.get() == 0
    }

    /// Some more.
    pub fn grant(&self, readings: u64) {
        self.0.set(self.0.get().saturating_add(readings));
    }

    fn left(&self) -> u64 {
        self.0.get()
    }
}

/// A section. See the module.
#[derive(Clone, Debug)]
pub struct Metered {
    bytes: EndianRcSlice<RunTimeEndian>,
    allowance: Rc<Allowance>,
}

impl Metered {
    /// Over some bytes.
    pub fn new(bytes: EndianRcSlice<RunTimeEndian>, allowance: &Rc<Allowance>) -> Self {
        Self {
            bytes,
            allowance: Rc::clone(allowance),
        }
    }

    #[inline]
    fn spend(&self) -> Result<()> {
        match self.allowance.left() {
            0 => Err(gimli::Error::UnexpectedEof(self.bytes.offset_id())),
            left => {
                self.allowance.0.set(left - 1);
                Ok(())
            }
        }
    }
}

use gimli::Reader as _;

impl gimli::Reader for Metered {
    type Endian = RunTimeEndian;
    type Offset = usize;

    #[inline]
    fn endian(&self) -> RunTimeEndian {
        self.bytes.endian()
    }

    #[inline]
    fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn empty(&mut self) {
        self.bytes.empty();
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> Result<()> {
        self.bytes.truncate(len)
    }

    #[inline]
    fn offset_from(&self, base: &Self) -> usize {
        self.bytes.offset_from(&base.bytes)
    }

    #[inline]
    fn offset_id(&self) -> ReaderOffsetId {
        self.bytes.offset_id()
    }

    #[inline]
    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        self.bytes.lookup_offset_id(id)
    }

    #[inline]
    fn find(&self, byte: u8) -> Result<usize> {
        self.spend()?;
        let at = memchr::memchr(byte, self.bytes.bytes());
        at.ok_or(gimli::Error::UnexpectedEof(self.bytes.offset_id()))
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Result<()> {
        self.spend()?;
        self.bytes.skip(len)
    }

    #[inline]
    fn split(&mut self, len: usize) -> Result<Self> {
        self.spend()?;
        Ok(Self {
            bytes: self.bytes.split(len)?,
            allowance: Rc::clone(&self.allowance),
        })
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.bytes.to_slice()
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.bytes.to_string()
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.bytes.to_string_lossy()
    }

    #[inline]
    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.spend()?;
        self.bytes.read_slice(buf)
    }
}
