//! Where the code of a frame lies in its file.
//!
//! In: what a line of text says of it, and the file's segments and symbols. Out: the address as the file
//! counts it, or why there is none. Never: a guess: a symbol counts only where the address in the process
//! agrees with it, as far as it can.
//!
//! A file is mapped in whole pages, so the last 12 bits of an address in a process are those of the
//! address in the file, wherever the file was put.

use super::symbols::{Symbol, Symbols};
use model::format::source::{CodePlace, Untold};

/// The bits of an address that mapping does not change; pages of all our systems are at least as large.
const PAGE_MASK: u64 = 0xfff;
/// What a linker leaves free at most between two functions: up to the largest usual alignment.
const PADDING_MAX: u64 = 64;

/// A part of a file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first address.
    pub address: u64,
    /// Its bytes in memory.
    pub bytes: u64,
    /// Where it lies in the file, and how many bytes there.
    pub in_file: (u64, u64),
    /// It has code.
    pub is_code: bool,
}

impl Segment {
    fn has(&self, address: u64) -> bool {
        address
            .checked_sub(self.address)
            .is_some_and(|at| at < self.bytes)
    }

    /// The pages it takes: the first one's address, and how many bytes.
    fn pages(&self) -> (u64, u64) {
        let begin = self.address & !PAGE_MASK;
        let end = self.address.saturating_add(self.bytes);
        let end = end.saturating_add(PAGE_MASK) & !PAGE_MASK;
        (begin, end.saturating_sub(begin))
    }
}

/// How a file is mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// All of it that is mapped, in the order of the file.
    pub segments: Vec<Segment>,
    /// It runs at the very addresses that it names (a program that is not position-independent).
    pub is_fixed: bool,
}

impl Layout {
    fn is_code(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.is_code && s.has(address))
    }

    /// The address of a byte of the file.
    fn of_file(&self, at: u64) -> Option<u64> {
        let segments = self.segments.iter().filter(|s| s.is_code);
        let mut found = segments.filter_map(|s| {
            let within = at.checked_sub(s.in_file.0)?;
            (within < s.in_file.1).then(|| s.address.wrapping_add(within))
        });
        found.next()
    }

    /// The address of a byte that is counted from where the file is mapped. SystemTap counts from the
    /// begin of a mapping, and that is the file's first one, which grows as its parts are mapped behind it,
    /// or the one with the code, where it follows each by itself.
    fn of_mapping(&self, at: u64, size: Option<u64>) -> Option<u64> {
        let code = self.segments.iter().find(|s| s.is_code)?.pages();
        let first = self.segments.first()?.pages();
        let base = if size == Some(code.1) { code } else { first };
        let address = base.0.checked_add(at)?;
        self.is_code(address).then_some(address)
    }
}

/// An address in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// As the file counts.
    pub address: u64,
    /// The symbol that the line names has this code in it, so that its name is the function's. Where a
    /// file has few symbols, tools name the nearest one before the address, which is another function.
    pub is_named: bool,
}

/// Where a place lies in the file.
pub fn found(place: &CodePlace<'_>, layout: &Layout, symbols: &Symbols) -> Result<Found, Untold> {
    if let (false, Some(offset)) = (place.symbol.is_empty(), place.offset) {
        let named = symbols.named(place.symbol);
        let named = choose(&named, place, offset, layout)?;
        return Ok(Found {
            address: named.0.address.wrapping_add(offset),
            is_named: named.1,
        });
    }
    let of_mapping = place
        .mapped
        .and_then(|(at, size)| layout.of_mapping(at, size));
    let of_file = place.in_file.and_then(|at| layout.of_file(at));
    let address = of_mapping.or(of_file).or_else(|| {
        let address = place.address?;
        // Without a file in the line it is one as the file counts; with one perf may count bytes of the file.
        let as_is = layout.is_fixed || place.module.is_empty();
        if as_is && layout.is_code(address) {
            Some(address)
        } else if place.module.is_empty() {
            None
        } else {
            layout.of_file(address)
        }
    });
    let address = address.ok_or(Untold::NoSymbol)?;
    if of_mapping.is_some() && place.address.is_some_and(|a| differs(a, address)) {
        return Err(Untold::OtherBuild);
    }
    Ok(Found {
        address,
        is_named: false,
    })
}

/// Whether the address in the process cannot be that of the file.
fn differs(process: u64, file: u64) -> bool {
    (process ^ file) & PAGE_MASK != 0
}

/// The one symbol of several with a name that the line means, and whether it has the code in it.
fn choose(
    named: &[Symbol],
    place: &CodePlace<'_>,
    offset: u64,
    layout: &Layout,
) -> Result<(Symbol, bool), Untold> {
    if named.is_empty() {
        return Err(Untold::NoSymbol);
    }
    let address = |s: &Symbol| s.address.wrapping_add(offset);
    // What a call returns to may stand right behind the function.
    let within = |s: &Symbol| offset < s.bytes + u64::from(place.is_return);
    let mut fit: Vec<Symbol> = named
        .iter()
        .copied()
        .filter(|s| place.address.is_none_or(|a| !differs(a, address(s))))
        .collect();
    let call = |s: &Symbol| address(s).wrapping_sub(u64::from(place.is_return));
    fit.retain(|s| layout.is_code(call(s)));
    fit.dedup_by_key(|s| s.address);
    if fit.is_empty() {
        return Err(Untold::OtherBuild);
    }
    let exact = |s: &Symbol| place.address == Some(address(s));
    let sized = |s: &Symbol| {
        place
            .size
            .is_some_and(|size| (s.bytes..s.bytes + PADDING_MAX).contains(&size))
    };
    narrow(&mut fit, exact);
    narrow(&mut fit, within);
    narrow(&mut fit, sized);
    match fit.as_slice() {
        [one] => Ok((*one, within(one))),
        _ => Err(Untold::Ambiguous),
    }
}

/// Keeps those that fit where some do.
fn narrow(symbols: &mut Vec<Symbol>, fits: impl Fn(&Symbol) -> bool) {
    if symbols.len() > 1 && symbols.iter().any(&fits) {
        symbols.retain(fits);
    }
}
