//! A perf ring mapped into our memory. In: an event's descriptor. Out: its records, one by one.
//! Never: a read beyond what the kernel has published, an allocation after `map`.
#![expect(
    unsafe_code,
    reason = "memory shared with the kernel; each block says why it is sound"
)]

use crate::record::{HEADER_BYTES, Header};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reader of one ring. The kernel writes at the head, we read at the tail.
#[derive(Debug)]
pub struct Ring {
    base: NonNull<u8>,
    page: usize,
    data_bytes: usize,
    tail: u64,
}

// SAFETY: the mapping belongs to this value alone; the kernel does not care which thread reads.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps `pages` data pages (a power of two) and the control page of `fd`.
    ///
    /// # Errors
    /// `EPERM` when `RLIMIT_MEMLOCK` and `kernel.perf_event_mlock_kb` do not allow that much.
    pub fn map(fd: &OwnedFd, pages: usize) -> io::Result<Self> {
        let page = crate::sys::page_size();
        let data_bytes = page * pages;
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours changes.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page + data_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self {
            base,
            page,
            data_bytes,
            tail: 0,
        })
    }

    fn control(&self) -> *mut perf_event_mmap_page {
        self.base.as_ptr().cast()
    }

    fn head(&self) -> u64 {
        // SAFETY: the control page is mapped while self lives and data_head is an aligned u64 that
        // the kernel writes; reading it as an atomic with acquire is what perf_event.h asks for.
        let head = unsafe { AtomicU64::from_ptr(&raw mut (*self.control()).data_head) };
        head.load(Ordering::Acquire)
    }

    /// Copies bytes from offset `at` of the data area; both must lie inside it.
    fn read(&self, at: usize, into: &mut [u8]) {
        debug_assert!(at + into.len() <= self.data_bytes);
        let length = into.len().min(self.data_bytes.saturating_sub(at));
        // SAFETY: the data pages follow the control page and are mapped while self lives;
        // at + length is inside them. The kernel writes only outside [tail, head), where no
        // caller reads, and no reference into the area is ever made.
        unsafe {
            let from = self.base.as_ptr().add(self.page + at);
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), length);
        }
    }

    fn at(&self, position: u64) -> usize {
        // data_bytes is a power of two times the page size, itself a power of two.
        usize::try_from(position & (self.data_bytes as u64 - 1)).unwrap_or(0)
    }

    /// The header of the next record, if there is one. A header that cannot be true throws away
    /// what is in the ring.
    ///
    /// # Errors
    /// The number of bytes that were thrown away.
    pub fn peek(&mut self) -> Result<Option<Header>, u64> {
        let available = self.head().wrapping_sub(self.tail);
        if available < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let header = Header::from_word(self.word(0));
        let size = u64::from(header.size);
        if size < HEADER_BYTES as u64 || size % 8 != 0 || size > available {
            self.tail = self.tail.wrapping_add(available);
            self.commit();
            return Err(available);
        }
        Ok(Some(header))
    }

    /// Word `index` of the record at the tail. Meaningful only within the size that `peek` gave.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        // Records are aligned to 8 bytes, so that no word wraps.
        let at = self.at(self.tail.wrapping_add(index as u64 * 8));
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Copies the record at the tail; false when it does not fit into `into`.
    pub fn copy(&self, header: Header, into: &mut [u8]) -> bool {
        let size = usize::from(header.size);
        let Some(into) = into.get_mut(..size) else {
            return false;
        };
        let at = self.at(self.tail);
        let first = size.min(self.data_bytes - at);
        self.read(at, &mut into[..first]);
        self.read(0, &mut into[first..]);
        true
    }

    /// Copies the sample at the tail, but of the `stack_bytes` of stack at its end only what the kernel has put there: most
    /// stacks are shorter. False when it does not fit into `into`.
    pub fn copy_sample(&self, header: Header, stack_bytes: usize, into: &mut [u8]) -> bool {
        let size = usize::from(header.size);
        // Behind the stack stands how much of it there is, before it how much was asked for.
        let used = (size % 8 == 0)
            .then(|| size.checked_sub(stack_bytes + 16))
            .flatten()
            .filter(|head| self.word(head / 8) == stack_bytes as u64)
            .and_then(|head| {
                let used = usize::try_from(self.word(size / 8 - 1)).ok()?;
                (used <= stack_bytes).then_some(head + 8 + used)
            });
        let (Some(used), Some(into)) = (used, into.get_mut(..size)) else {
            return self.copy(header, into);
        };
        self.copy_range(0, &mut into[..used]);
        self.copy_range(size - 8, &mut into[size - 8..]);
        true
    }

    /// Bytes of the record at the tail, from its byte `from` on.
    fn copy_range(&self, from: usize, into: &mut [u8]) {
        let at = self.at(self.tail.wrapping_add(from as u64));
        let first = into.len().min(self.data_bytes - at);
        let (head, rest) = into.split_at_mut(first);
        self.read(at, head);
        self.read(0, rest);
    }

    /// Goes on to the next record and gives the kernel the room of this one.
    pub fn advance(&mut self, header: Header) {
        self.tail = self.tail.wrapping_add(u64::from(header.size));
        self.commit();
    }

    fn commit(&self) {
        // SAFETY: as in `head`; data_tail is written by us alone, with release so that our reads
        // are done before the kernel may write there.
        let tail = unsafe { AtomicU64::from_ptr(&raw mut (*self.control()).data_tail) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `map` made; nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page + self.data_bytes) };
    }
}
