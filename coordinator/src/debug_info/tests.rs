//! Addresses and symbols that are told apart.

use super::address::{Found, Layout, Segment, found};
use super::symbols::{Symbol, Symbols};
use model::format::source::{CodePlace, Untold};

fn layout(is_fixed: bool, base: u64) -> Layout {
    let segment = |at: u64, bytes, is_code| Segment {
        address: base + at,
        bytes,
        in_file: (at, bytes),
        is_code,
    };
    Layout {
        segments: vec![
            segment(0, 0x800, false),
            segment(0x1000, 0x2800, true),
            segment(0x4000, 0x100, false),
        ],
        is_fixed,
    }
}

fn symbols(all: &[(&str, u64, u64)]) -> Symbols {
    let mut symbols = Symbols::default();
    for (name, address, bytes) in all {
        let (address, bytes) = (*address, *bytes);
        symbols.add(name.as_bytes(), Symbol { address, bytes });
    }
    symbols.sort();
    symbols
}

#[test]
fn a_symbol_of_several_is_told_by_the_address_and_its_size() {
    let known = symbols(&[
        ("step", 0x1100, 0x20),
        ("step", 0x1240, 0x40),
        ("step", 0x2240, 0x40),
        ("step", 0x1100, 0),
        ("data", 0x4010, 8),
        ("_ZN1a1bEi", 0x1300, 0x10),
        ("_ZN1a1bEl", 0x1310, 0x10),
    ]);
    let layout = layout(false, 0);
    let at = |symbol: &str, offset, address, size, is_return| {
        let place = CodePlace {
            symbol: symbol.as_bytes(),
            offset: Some(offset),
            address,
            size,
            is_return,
            ..CodePlace::default()
        };
        found(&place, &layout, &known).map(|f| (f.address, f.is_named))
    };
    let step = |offset, address, size| at("step", offset, address, size, false);
    assert_eq!(step(4, Some(0x5555_5104), None), Ok((0x1104, true)));
    assert_eq!(step(0x44, Some(0x5555_5284), None), Err(Untold::Ambiguous));
    assert_eq!(step(4, Some(0x2244), None), Ok((0x2244, true)));
    assert_eq!(
        step(4, Some(0x5555_5244), Some(0x40)),
        Err(Untold::Ambiguous)
    );
    assert_eq!(step(0x30, None, Some(0x45)), Err(Untold::Ambiguous));
    assert_eq!(step(4, None, Some(0x20)), Ok((0x1104, true)));
    assert_eq!(step(4, Some(0x5555_5105), None), Err(Untold::OtherBuild));
    // Far behind the only symbol that a stripped file has.
    assert_eq!(step(0x400, Some(0x1500), None), Ok((0x1500, false)));
    // What a call at a function's end returns to is still named by it.
    assert_eq!(
        at("step", 0x20, Some(0x1120), None, true),
        Ok((0x1120, true))
    );
    assert_eq!(
        at("step", 0x20, Some(0x1120), None, false),
        Ok((0x1120, false))
    );
    assert_eq!(at("data", 0, None, None, false), Err(Untold::OtherBuild));
    assert_eq!(at("none", 0, None, None, false), Err(Untold::NoSymbol));
    assert_eq!(at("step@plt", 0, None, None, false), Err(Untold::NoSymbol));
    assert_eq!(
        at("data@@V1", 0, None, None, false),
        Err(Untold::OtherBuild)
    );
    // perf prints C++ names without parameters, and offsets behind them.
    assert_eq!(
        at("a::b", 2, Some(0x7000_0312), None, false),
        Ok((0x1312, true))
    );
    assert_eq!(at("a::b", 2, None, None, false), Err(Untold::Ambiguous));
}

#[test]
fn addresses_without_a_symbol_are_those_of_the_file_or_of_its_mapping() {
    let none = Symbols::default();
    let pie = layout(false, 0);
    let fixed = layout(true, 0x40_0000);
    let at = |place: CodePlace<'_>, layout: &Layout| {
        found(&place, layout, &none).map(|Found { address, .. }| address)
    };
    let address = |module, address| CodePlace {
        module,
        address: Some(address),
        ..CodePlace::default()
    };
    assert_eq!(at(address(b"", 0x40_1010), &fixed), Ok(0x40_1010));
    assert_eq!(at(address(b"/a", 0x40_1010), &fixed), Ok(0x40_1010));
    assert_eq!(at(address(b"/a", 0x1010), &fixed), Ok(0x40_1010));
    assert_eq!(at(address(b"/a", 0x1010), &pie), Ok(0x1010));
    assert_eq!(at(address(b"", 0x5555_5010), &pie), Err(Untold::NoSymbol));
    assert_eq!(at(address(b"", 0x40_0010), &fixed), Err(Untold::NoSymbol));
    let mapped = |address, offset, size| CodePlace {
        address: Some(address),
        mapped: Some((offset, size)),
        ..CodePlace::default()
    };
    // From the begin of the file's first mapping, which grew; of the code's own.
    assert_eq!(at(mapped(0x5010, 0x1010, Some(0x5000)), &pie), Ok(0x1010));
    assert_eq!(at(mapped(0x5010, 0x10, Some(0x3000)), &pie), Ok(0x1010));
    assert_eq!(
        at(mapped(0x5011, 0x1010, None), &pie),
        Err(Untold::OtherBuild)
    );
    assert_eq!(at(mapped(0x5010, 0x10, None), &pie), Err(Untold::NoSymbol));
    let in_file = CodePlace {
        in_file: Some(0x1020),
        ..address(b"/a", 0x7f00_0000)
    };
    assert_eq!(at(in_file, &fixed), Ok(0x40_1020));
}
