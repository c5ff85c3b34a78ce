//! What is shown of a request's path. In: its bytes, as the client has sent them. Out: a frame's name with the first
//! segments. Never: what looks like somebody's name, number, key or address; more names than a picture can have.

use foldhash::HashMap;
use model::finding::{Finding, FindingCode};
use model::profile::{Frame, FrameId, Recorder};

use crate::luajit::request::PATH_BYTES_MAX;

/// Paths that are told apart; what comes later stands under one name.
const PATHS_MAX: usize = 500;
/// Longest segment that is shown.
const SEGMENT_BYTES_MAX: usize = 40;
/// In the place of paths beyond that.
const OTHER: &str = "/other paths";
/// In the place of a segment that is not shown.
const HIDDEN: &str = "*";
/// In the place of those that were not asked for.
const MORE: &str = "...";

/// Frames of the paths that were met.
#[derive(Debug, Default)]
pub struct RequestPaths {
    segments: usize,
    /// Of paths as they came; forgotten when they are too many.
    frames: HashMap<Vec<u8>, FrameId>,
    /// Of names as they are shown; kept.
    names: HashMap<String, FrameId>,
    /// Samples that had a path.
    pub samples: u64,
}

impl RequestPaths {
    /// Shows so many segments of each path; none when it is 0.
    #[must_use]
    pub fn new(segments: u32) -> Self {
        Self {
            segments: usize::try_from(segments).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// Whether paths are wanted.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.segments > 0
    }

    /// The frame of a path, counted.
    pub fn frame(&mut self, recorder: &mut Recorder, path: &[u8]) -> FrameId {
        self.samples += 1;
        if let Some(&id) = self.frames.get(path) {
            return id;
        }
        let mut name = shown(path, self.segments);
        if self.names.len() >= PATHS_MAX && !self.names.contains_key(&name) {
            OTHER.clone_into(&mut name);
        }
        let id = match self.names.get(&name) {
            Some(&id) => id,
            None => {
                let id = recorder.frame(&Frame::marker(format!("uri {name}")));
                self.names.insert(name, id);
                id
            }
        };
        // Paths of one name are many; what is kept of them is bounded.
        if self.frames.len() >= PATHS_MAX * 8 {
            self.frames.clear();
        }
        self.frames.insert(path.to_owned(), id);
        id
    }
}

impl RequestPaths {
    /// How many of the samples with Lua frames had a path; none where paths are not wanted.
    #[must_use]
    pub fn finding(&self, lua_stacks: u64) -> Option<Finding> {
        let said = format!(
            "{} of {lua_stacks} samples with Lua frames have the path of a request",
            self.samples
        );
        (self.are_wanted() && lua_stacks > 0).then(|| Finding::new(FindingCode::RequestPaths, said))
    }
}

/// The first segments of a path, `*` for those that may name somebody or something of theirs.
fn shown(path: &[u8], segments: usize) -> String {
    let is_cut = path.len() >= PATH_BYTES_MAX;
    let mut all: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|s| !s.is_empty())
        .collect();
    if is_cut {
        // Not whole: half a key is not to be shown either.
        all.pop();
    }
    let mut name = String::new();
    for segment in all.iter().take(segments) {
        name.push('/');
        name.push_str(word(segment).unwrap_or(HIDDEN));
    }
    if all.len() > segments || is_cut {
        name.push('/');
        name.push_str(MORE);
    }
    if name.is_empty() {
        name.push('/');
    }
    name
}

/// A segment that a developer chose, and not a caller: a word, a version.
fn word(segment: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(segment).ok()?;
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let count = |is: fn(&u8) -> bool| segment.iter().filter(|b| is(b)).count();
    let digits = count(u8::is_ascii_digit);
    let is_hexadecimal = segment.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
    let is_number = digits > 0 && digits == segment.len();
    let is_key =
        digits > 3 || (digits > 0 && (segment.len() > 20 || (is_hexadecimal && segment.len() > 7)));
    let fits = segment.iter().all(allowed) && segment.len() <= SEGMENT_BYTES_MAX;
    (fits && !is_number && !is_key).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::{Measure, RecorderLimits};
    use proptest::prelude::*;

    #[test]
    fn words_are_shown_and_what_callers_chose_is_not() {
        for (path, segments, name) in [
            ("/", 2, "/"),
            ("//", 2, "/"),
            ("/status", 2, "/status"),
            ("/api/v1/orders", 3, "/api/v1/orders"),
            ("/api/v1/orders", 2, "/api/v1/..."),
            ("/api//v1/", 2, "/api/v1"),
            ("/users/1234", 2, "/users/*"),
            ("/users/7/cart", 3, "/users/*/cart"),
            ("/u/anna@example.org", 2, "/u/*"),
            ("/k/c0ffee00", 2, "/k/*"),
            ("/k/6f1ed002-ab55-4f4c-90d7-0123456789ab", 2, "/k/*"),
            ("/t/eyJhbGciOiJIUzI1NiIsInR5cCI6Ikp", 2, "/t/*"),
            ("/a%20b/c", 2, "/*/c"),
            ("/oauth2/token.json", 2, "/oauth2/token.json"),
        ] {
            assert_eq!(shown(path.as_bytes(), segments), name, "{path}");
        }
        let long = format!("/a/{}", "b".repeat(PATH_BYTES_MAX - 3));
        assert_eq!(shown(long.as_bytes(), 2), "/a/...");
    }

    #[test]
    fn there_are_only_so_many_names() {
        let measures = Measure::of(model::job::Probe::OnCpu, None);
        let mut recorder = Recorder::new("h", measures, RecorderLimits::default());
        let mut paths = RequestPaths::new(2);
        let mut names = std::collections::BTreeSet::new();
        for number in 0..PATHS_MAX * 20 {
            let letters: String = number
                .to_string()
                .bytes()
                .map(|b| char::from(b + 49))
                .collect();
            names.insert(paths.frame(&mut recorder, format!("/{letters}").as_bytes()));
        }
        assert_eq!(names.len(), PATHS_MAX + 1);
        assert!(paths.frames.len() <= PATHS_MAX * 8);
        assert_eq!(paths.samples, PATHS_MAX as u64 * 20);
        // One that had a name keeps it, however many came since.
        let first = paths.frame(&mut recorder, b"/a");
        let again = paths.frame(&mut recorder, b"/b");
        assert!(first != again, "both stand under one name");
    }

    proptest! {
        #[test]
        fn any_path_has_a_name_that_breaks_no_line(path in prop::collection::vec(any::<u8>(), 0..200), segments in 1_usize..20) {
            let name = shown(&path, segments);
            prop_assert!(name.starts_with('/') && name.len() < 900);
            prop_assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b';'), "{name:?}");
        }
    }
}
