//! The path of the request that a coroutine works for, as nginx keeps it. In: the address of a request. Out: bytes of
//! its path. Never: a query, a header, an address in a result, trust in a place before what is there fits.
//!
//! `ngx_http_request_t` (src/http/ngx_http_request.h) begins with a word that says what it is. Its other offsets go by
//! the modules that nginx was built with; but in every version the method and the protocol's version stand side by side,
//! and behind them the request's line, its path, arguments, ending, and the path as the client has sent it.

use super::memory::{Memory, half_at, is_object, word_at};

/// `NGX_HTTP_MODULE`: what every HTTP request begins with, and none of the stream module.
const SIGNATURE: u32 = 0x5054_5448;
/// Bytes of a request in which its path is looked for; what comes before it is 700 to 1,100 bytes in usual builds.
const SEARCH_BYTES: usize = 1_536;
/// Bytes of a path that are kept.
pub const PATH_BYTES_MAX: usize = 128;
/// The last bit of a method (`NGX_HTTP_CONNECT`); the first is that of methods that nginx does not know.
const METHOD_MAX: u64 = 0x0001_0000;
/// HTTP/0.9, 1.0, 1.1, 2 and 3 (`NGX_HTTP_VERSION_9` and so on).
const VERSIONS: [u64; 5] = [9, 1_000, 1_001, 2_000, 3_000];
/// From the method to the words of the path that was sent: two words, and four strings of two words each.
const TO_SENT_PATH: usize = 8 * (2 + 4 * 2);
/// A request's line is not longer than its buffers.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Reads the path of a request into `into`, without its query; how many bytes it has, or none when there is no request
/// or it has no path. Neither allocates nor locks.
pub fn read_path(
    memory: &impl Memory,
    request: u64,
    into: &mut [u8; PATH_BYTES_MAX],
) -> Option<usize> {
    if !is_object(request) {
        return None;
    }
    let mut bytes = [0; SEARCH_BYTES];
    let got = memory.read(request, &mut bytes);
    let bytes = &bytes[..got];
    if half_at(bytes, 0) != SIGNATURE {
        return None;
    }
    let at = sent_path(bytes)?;
    let (length, data) = (word_at(bytes, at), word_at(bytes, at + 8));
    let wanted = usize::try_from(length).ok()?.min(PATH_BYTES_MAX);
    let got = memory.read(data, &mut into[..wanted]);
    let path = &into[..got];
    let is_end = |byte: &u8| matches!(byte, b'?' | b'#' | b' ' | 0);
    let end = path.iter().position(is_end).unwrap_or(got);
    // Not its copy only: what is behind the path is not kept anywhere.
    into[end..].fill(0);
    (end > 0 && into[0] == b'/').then_some(end)
}

/// Where the words of the path are that the client has sent.
fn sent_path(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(TO_SENT_PATH + 16)?;
    (8..=last).step_by(8).find_map(|at| {
        let (method, version) = (word_at(bytes, at), word_at(bytes, at + 8));
        let fits = method.is_power_of_two() && method <= METHOD_MAX && VERSIONS.contains(&version);
        // The line and the path; what is empty may lie nowhere.
        let strings = [at + 16, at + 32, at + TO_SENT_PATH];
        let lies = |at: usize| {
            let (length, data) = (word_at(bytes, at), word_at(bytes, at + 8));
            (1..=LINE_BYTES_MAX).contains(&length) && is_object(data & !7)
        };
        (fits && strings.into_iter().all(lies)).then_some(at + TO_SENT_PATH)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Memory of one piece.
    pub(in crate::luajit) struct Piece(pub u64, pub Vec<u8>);

    impl Memory for Piece {
        fn read(&self, address: u64, into: &mut [u8]) -> usize {
            let Some(at) = address
                .checked_sub(self.0)
                .and_then(|at| usize::try_from(at).ok())
            else {
                return 0;
            };
            let rest = self.1.get(at..).unwrap_or_default();
            let length = rest.len().min(into.len());
            into[..length].copy_from_slice(&rest[..length]);
            length
        }
    }

    const BASE: u64 = 0x7f00_0000_0000;
    const LINE: u64 = BASE + 0x1000;

    /// A request whose method is at `at`, sent with this target.
    pub(in crate::luajit) fn request(at: usize, version: u64, target: &str) -> Piece {
        let mut bytes = vec![0; 0x1000];
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, u64::from(SIGNATURE));
        // Pointers and counters as they come before it.
        (8..at).step_by(8).for_each(|at| put(at, BASE + at as u64));
        let line = format!("GET {target} HTTP/1.1\r\nAuthorization: secret");
        let path = target.split('?').next().unwrap_or_default().len() as u64;
        put(at, 2);
        put(at + 8, version);
        for (index, (length, data)) in [
            (target.len() as u64 + 13, LINE),
            (path, LINE + 4),
            (0, 0),
            (0, 0),
            (target.len() as u64, LINE + 4),
            (3, LINE),
        ]
        .into_iter()
        .enumerate()
        {
            put(at + 16 + index * 16, length);
            put(at + 24 + index * 16, data);
        }
        bytes.extend(line.bytes());
        Piece(BASE, bytes)
    }

    pub(in crate::luajit) fn path_of(memory: &impl Memory, request: u64) -> Option<String> {
        let mut into = [0xff; PATH_BYTES_MAX];
        let length = read_path(memory, request, &mut into)?;
        assert!(into[length..].iter().all(|b| *b == 0), "{into:?}");
        Some(String::from_utf8_lossy(&into[..length]).into_owned())
    }

    #[test]
    fn a_path_is_found_wherever_it_lies_and_comes_without_its_query() {
        for (at, version) in [(712, 1_001), (840, 1_000), (1_064, 2_000), (1_200, 3_000)] {
            let memory = request(at, version, "/api/orders/7?token=secret#x");
            assert_eq!(path_of(&memory, BASE).as_deref(), Some("/api/orders/7"));
        }
        let long = format!("/{}", "a".repeat(500));
        let path = path_of(&request(840, 1_001, &long), BASE).unwrap();
        assert_eq!(path, long[..PATH_BYTES_MAX]);
    }

    #[test]
    fn what_is_no_request_has_no_path() {
        let whole = request(840, 1_001, "/a");
        let mut stream = request(840, 1_001, "/a");
        stream.1[0] = b'S';
        // A timer's has neither line nor path.
        let mut timer = request(840, 1_001, "/a");
        timer.1[856..872].fill(0);
        let mut unreadable = request(840, 1_001, "/a");
        unreadable.1.truncate(0x1000);
        for memory in [stream, timer, unreadable, request(840, 7, "/a")] {
            assert_eq!(path_of(&memory, BASE), None);
        }
        assert_eq!(path_of(&request(840, 1_001, "*"), BASE), None);
        for address in [0, 8, BASE + 1, BASE + 8, u64::MAX] {
            assert_eq!(path_of(&whole, address), None);
        }
    }

    proptest! {
        #[test]
        fn any_memory_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..2_048)) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&SIGNATURE.to_le_bytes());
            }
            path_of(&Piece(BASE, bytes), BASE);
        }
    }
}
