//! What is kept of a sample's Lua stacks between the moment that it is taken and its unwinding. In:
//! functions by machine frame. Out: words, and the same read back. Never: more words than there is
//! room for, trust in words that were read back.

/// Where a segment's frames begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The interpreter, or C code that it called.
    Interpreter,
    /// A trace, or C code that it called.
    Trace,
    /// They could not be found.
    Nowhere,
}

/// One run of Lua frames between C code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The machine frame that they run in.
    pub cframe: u64,
    /// Where they begin.
    pub from: From,
    /// The VM's `global_State`.
    pub global: u64,
    /// The `lua_State`.
    pub state: u64,
    /// The target could run on while it was read.
    pub racy: bool,
    items: &'a [u64],
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// See [`Segment::cframe`].
    pub cframe: u64,
    /// See [`Segment::from`].
    pub from: From,
    /// See [`Segment::global`].
    pub global: u64,
    /// See [`Segment::state`].
    pub state: u64,
    /// See [`Segment::racy`].
    pub racy: bool,
}

const FROM_SHIFT: u32 = 32;
/// In the place of [`From`]: what follows is a request's path, its length in bytes where a segment has its `lua_State`.
const PATH: u64 = 3;
const RACY: u64 = 1 << 40;

/// One level of a segment, leaf first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A function of Lua: its prototype, and what tells it from another that lies there later.
    Lua {
        /// Address of the prototype.
        prototype: u64,
        /// Mixed from its fields by [`super::names::key`]; 40 bits.
        key: u64,
        /// The instruction of the next function in the segment that called it, counted from that one's
        /// head; 0 when it is not known.
        call: u32,
    },
    /// A builtin by its number.
    Builtin(u8),
    /// A coroutine that was resumed by what follows.
    Joint,
    /// What follows was left out.
    Cut,
}

const TAG_SHIFT: u32 = 56;
/// Bits of a key; above them stands the call.
const KEY_BITS: u32 = 40;
const LUA: u64 = 1;
const BUILTIN: u64 = 2;
const JOINT: u64 = 3;
const CUT: u64 = 4;
/// Words before a segment's items.
pub const HEAD_WORDS: usize = 4;
/// Words of an item.
pub const ITEM_WORDS: usize = 2;

impl Item {
    fn words(self) -> [u64; 2] {
        match self {
            Self::Lua {
                prototype,
                key,
                call,
            } => {
                let call = if call < 1 << (64 - KEY_BITS) { call } else { 0 };
                let key = key & ((1 << KEY_BITS) - 1);
                [
                    LUA << TAG_SHIFT | prototype,
                    u64::from(call) << KEY_BITS | key,
                ]
            }
            Self::Builtin(number) => [BUILTIN << TAG_SHIFT | u64::from(number), 0],
            Self::Joint => [JOINT << TAG_SHIFT, 0],
            Self::Cut => [CUT << TAG_SHIFT, 0],
        }
    }

    fn from_words(first: u64, second: u64) -> Option<Self> {
        let low = first & ((1 << TAG_SHIFT) - 1);
        match first >> TAG_SHIFT {
            LUA => Some(Self::Lua {
                prototype: low,
                key: second & ((1 << KEY_BITS) - 1),
                call: u32::try_from(second >> KEY_BITS).unwrap_or(0),
            }),
            BUILTIN => Some(Self::Builtin(u8::try_from(low).ok()?)),
            JOINT => Some(Self::Joint),
            CUT => Some(Self::Cut),
            _ => None,
        }
    }
}

/// Begins a segment in `keep`; false when there is no room for one with an item.
pub fn begin(keep: &mut Vec<u64>, head: Head) -> bool {
    if keep.capacity() - keep.len() < HEAD_WORDS + ITEM_WORDS {
        return false;
    }
    let what = (head.from as u64) << FROM_SHIFT | if head.racy { RACY } else { 0 };
    keep.extend_from_slice(&[head.cframe, what, head.global, head.state]);
    true
}

/// Says of the segment that began at word `head` that its frames could not be followed to their end.
pub fn fail(keep: &mut [u64], head: usize) {
    if let Some(what) = keep.get_mut(head + 1) {
        *what = *what & !(0xff << FROM_SHIFT) | (From::Nowhere as u64) << FROM_SHIFT;
    }
}

/// Adds an item to the segment that began at word `head`; false when there is no room.
pub fn add(keep: &mut Vec<u64>, head: usize, item: Item) -> bool {
    if keep.capacity() - keep.len() < ITEM_WORDS {
        return false;
    }
    let Some(count) = keep.get_mut(head + 1) else {
        return false;
    };
    *count += 1;
    keep.extend_from_slice(&item.words());
    true
}

/// Puts another item in the place of the one whose first word is at `at`; none takes it out.
pub fn replace(keep: &mut [u64], at: usize, item: Option<Item>) {
    if let Some(words) = keep.get_mut(at..at.saturating_add(ITEM_WORDS)) {
        words.copy_from_slice(&item.map_or([0; 2], Item::words));
    }
}

/// The item whose first word is at `at`.
pub fn item(keep: &[u64], at: usize) -> Option<Item> {
    let words = keep.get(at..at.checked_add(ITEM_WORDS)?)?;
    Item::from_words(words[0], words[1])
}

/// Keeps the path of the request that the sample was taken in; false when there is no room.
pub fn keep_path(keep: &mut Vec<u64>, path: &[u8]) -> bool {
    let items = path.len().div_ceil(ITEM_WORDS * 8);
    if keep.capacity() - keep.len() < HEAD_WORDS + items * ITEM_WORDS {
        return false;
    }
    keep.extend_from_slice(&[0, PATH << FROM_SHIFT | items as u64, 0, path.len() as u64]);
    let mut words = path.chunks(8);
    for _ in 0..items * ITEM_WORDS {
        let mut word = [0; 8];
        let bytes = words.next().unwrap_or_default();
        word[..bytes.len()].copy_from_slice(bytes);
        keep.push(u64::from_le_bytes(word));
    }
    true
}

/// The path that was kept.
#[must_use]
pub fn path(words: &[u64]) -> Option<Vec<u8>> {
    let (segment, _) = all(words).find(|(_, what)| is_path(*what))?;
    let bytes = segment.items.iter().flat_map(|word| word.to_le_bytes());
    let length = usize::try_from(segment.state).ok()?;
    Some(bytes.take(length).collect())
}

fn is_path(what: u64) -> bool {
    what >> FROM_SHIFT & 0xff == PATH
}

/// The segments in `words`, in the order in which they were begun.
pub fn read(words: &[u64]) -> impl Iterator<Item = Segment<'_>> {
    let segments = all(words).filter(|(_, what)| !is_path(*what));
    segments.map(|(segment, _)| segment)
}

/// Everything in `words`, and the word that says what each is.
fn all(words: &[u64]) -> impl Iterator<Item = (Segment<'_>, u64)> {
    let mut rest = words;
    std::iter::from_fn(move || {
        let &[cframe, what, global, state, ref after @ ..] = rest else {
            return None;
        };
        let count = usize::try_from(what & 0xffff_ffff).ok()?;
        let length = count.checked_mul(ITEM_WORDS)?;
        let items = after.get(..length)?;
        rest = after.get(length..)?;
        let from = match what >> FROM_SHIFT & 0xff {
            0 => From::Interpreter,
            1 => From::Trace,
            _ => From::Nowhere,
        };
        let segment = Segment {
            cframe,
            from,
            global,
            state,
            racy: what & RACY != 0,
            items,
        };
        Some((segment, what))
    })
}

impl Segment<'_> {
    /// Its levels, leaf first.
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        self.items
            .chunks_exact(ITEM_WORDS)
            .filter_map(|pair| Item::from_words(pair[0], pair[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_kept_is_read_back() {
        let mut keep = Vec::with_capacity(32);
        let items = [
            Item::Lua {
                prototype: 0x7f00_1234_5678,
                key: (1 << 40) - 1,
                call: (1 << 24) - 1,
            },
            Item::Builtin(200),
            Item::Joint,
        ];
        let head = |cframe, from| Head {
            cframe,
            from,
            global: 8,
            state: 16,
            racy: from == From::Trace,
        };
        assert!(begin(&mut keep, head(0x7ffc_0000, From::Trace)));
        assert!(items.iter().all(|i| add(&mut keep, 0, *i)));
        let second = keep.len();
        assert!(begin(&mut keep, head(0x7ffc_1000, From::Interpreter)));
        fail(&mut keep, second);
        let segments: Vec<_> = read(&keep).collect();
        assert_eq!(segments.len(), 2);
        let first = segments[0];
        assert_eq!((first.cframe, first.from), (0x7ffc_0000, From::Trace));
        assert!(first.racy && !segments[1].racy);
        assert_eq!(first.items().collect::<Vec<_>>(), items);
        assert_eq!(segments[1].from, From::Nowhere);
        while add(&mut keep, second, Item::Joint) {}
        let last = keep.len() - ITEM_WORDS;
        replace(&mut keep, last, Some(Item::Cut));
        replace(&mut keep, last - ITEM_WORDS, None);
        let items: Vec<_> = read(&keep).nth(1).unwrap().items().collect();
        assert_eq!(items.last(), Some(&Item::Cut));
        assert_eq!(items.len(), (32 - second - HEAD_WORDS) / 2 - 1);
        assert_eq!(keep.capacity(), 32, "never grown");
    }

    #[test]
    fn a_path_stands_beside_the_segments() {
        let head = |cframe| Head {
            cframe,
            from: From::Interpreter,
            global: 8,
            state: 16,
            racy: false,
        };
        for length in [1, 8, 15, 16, 17, 128] {
            let said = "/0123456789abcdef".repeat(8).into_bytes()[..length].to_vec();
            let mut keep = Vec::with_capacity(40);
            assert!(begin(&mut keep, head(0x7ffc_0000)));
            assert!(keep_path(&mut keep, &said));
            let last = keep.len();
            assert!(begin(&mut keep, head(0x7ffc_1000)));
            assert!(add(&mut keep, last, Item::Joint));
            assert_eq!(path(&keep), Some(said));
            let segments: Vec<u64> = read(&keep).map(|s| s.cframe).collect();
            assert_eq!(segments, [0x7ffc_0000, 0x7ffc_1000]);
        }
        let mut keep = Vec::with_capacity(HEAD_WORDS + 1);
        assert!(!keep_path(&mut keep, b"/") && keep.is_empty());
        assert_eq!(path(&keep), None);
    }

    proptest! {
        #[test]
        fn any_words_are_survived(words in prop::collection::vec(any::<u64>(), 0..64)) {
            let items: usize = read(&words).map(|s| s.items().count()).sum();
            prop_assert!(items <= words.len());
            let length = path(&words).map_or(0, |p| p.len());
            prop_assert!(length <= words.len() * 8);
        }
    }
}
