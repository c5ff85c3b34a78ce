//! Function symbols of one module. In: addresses, sizes and names. Out: the function at an
//! address. Never: the nearest symbol, unless its size or an FDE says that the address is in it.

/// How a symbol is bound; the better comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// Seen by all modules.
    Global,
    /// Replaceable.
    Weak,
    /// Of one object file.
    Local,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: u64,
    size: u64,
    name: u32,
    binding: Binding,
}

/// Most symbols that are kept of one module.
const SYMBOLS_MAX: usize = 4 << 20;
/// Bytes of names that are kept of one module.
const NAMES_BYTES_MAX: usize = 128 << 20;
/// Symbols before an address that may contain it although others begin in between.
const OVERLAP_MAX: usize = 16;

/// The table; addresses are ELF virtual addresses.
#[derive(Debug, Default)]
pub struct SymbolTable {
    rows: Vec<Symbol>,
    names: Vec<u8>,
}

impl SymbolTable {
    /// Adds a symbol; [`SymbolTable::finish`] must follow the last.
    pub fn add(&mut self, start: u64, size: u64, name: &[u8], binding: Binding) {
        let Ok(at) = u32::try_from(self.names.len()) else {
            return;
        };
        if name.is_empty()
            || start == 0
            || self.rows.len() >= SYMBOLS_MAX
            || self.names.len() >= NAMES_BYTES_MAX
        {
            return;
        }
        let name = &name[..name.len().min(model::demangle::NAME_BYTES_MAX)];
        self.names.extend_from_slice(name);
        self.names.push(0);
        self.rows.push(Symbol {
            start,
            size,
            name: at,
            binding,
        });
    }

    /// Sorts, and keeps of several names at one address the one that lives longest: bound
    /// globally, with the fewest underscores in front, shortest, first in the alphabet.
    pub fn finish(&mut self) {
        let names = std::mem::take(&mut self.names);
        self.rows.sort_by(|a, b| {
            a.start.cmp(&b.start).then_with(|| {
                let rank = |s: &Symbol| {
                    let name = name_at(&names, s.name);
                    let bare = name.split(|&c| c == b'@').next().unwrap_or(name);
                    let underscores = bare.iter().take_while(|&&c| c == b'_').count();
                    (s.size == 0, s.binding, underscores, bare.len())
                };
                rank(a)
                    .cmp(&rank(b))
                    .then_with(|| name_at(&names, a.name).cmp(name_at(&names, b.name)))
            })
        });
        // The longest extent known of a function counts, whichever name it came with.
        self.rows.dedup_by(|later, kept| {
            let same = later.start == kept.start;
            if same && kept.size == 0 {
                kept.size = later.size;
            }
            same
        });
        self.names = names;
        self.rows.shrink_to_fit();
    }

    /// Start and name of the symbol whose size covers `address`.
    #[must_use]
    pub fn containing(&self, address: u64) -> Option<(u64, &str)> {
        let after = self.rows.partition_point(|s| s.start <= address);
        let before = self.rows.get(after.saturating_sub(OVERLAP_MAX)..after)?;
        let hit = before.iter().rev().find(|s| address - s.start < s.size)?;
        Some((hit.start, self.text(hit)?))
    }

    /// The name of the symbol at exactly this address, whatever its size.
    #[must_use]
    pub fn starting_at(&self, address: u64) -> Option<&str> {
        let row = self.rows.binary_search_by_key(&address, |s| s.start).ok()?;
        self.text(self.rows.get(row)?)
    }

    /// Whether a function has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.rows.iter().any(|row| self.text(row) == Some(name))
    }

    fn text(&self, symbol: &Symbol) -> Option<&str> {
        std::str::from_utf8(name_at(&self.names, symbol.name)).ok()
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Symbol>() + self.names.len()
    }

    /// How many there are.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

fn name_at(names: &[u8], at: u32) -> &[u8] {
    let rest = names.get(at as usize..).unwrap_or_default();
    rest.split(|&c| c == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(rows: &[(u64, u64, &str, Binding)]) -> SymbolTable {
        let mut table = SymbolTable::default();
        for &(start, size, name, binding) in rows {
            table.add(start, size, name.as_bytes(), binding);
        }
        table.finish();
        table
    }

    #[test]
    fn the_public_name_wins() {
        let t = table(&[
            (0x10, 8, "__GI___libc_malloc", Binding::Local),
            (0x10, 8, "__libc_malloc", Binding::Global),
            (0x10, 8, "malloc", Binding::Global),
            (0x30, 8, "weak", Binding::Weak),
            (0x30, 8, "__strong", Binding::Global),
        ]);
        assert_eq!(t.containing(0x12), Some((0x10, "malloc")));
        assert_eq!(t.containing(0x30), Some((0x30, "__strong")));
        assert_eq!(t.len(), 2);
    }

    #[test]
    fn an_address_behind_the_end_has_no_name() {
        let t = table(&[
            (0x10, 8, "a", Binding::Global),
            (0x40, 0, "asm", Binding::Global),
        ]);
        assert_eq!(t.containing(0x18), None);
        assert_eq!(t.containing(0x41), None);
        assert_eq!(t.starting_at(0x40), Some("asm"));
        assert_eq!(t.starting_at(0x41), None);
    }

    #[test]
    fn an_outer_function_is_found_behind_an_inner_one() {
        let t = table(&[
            (0x10, 0x100, "outer", Binding::Global),
            (0x20, 4, "in", Binding::Local),
        ]);
        assert_eq!(t.containing(0x22), Some((0x20, "in")));
        assert_eq!(t.containing(0x30), Some((0x10, "outer")));
    }

    proptest! {
        #[test]
        fn what_is_found_contains_the_address(
            rows in prop::collection::vec((1_u64..500, 0_u64..40), 0..60),
            address in 0_u64..600,
        ) {
            let mut t = SymbolTable::default();
            for &(start, size) in &rows {
                t.add(start, size, format!("f{start}").as_bytes(), Binding::Global);
            }
            t.finish();
            if let Some((start, name)) = t.containing(address) {
                prop_assert_eq!(name, format!("f{start}"));
                prop_assert!(rows.iter().any(|&(s, n)| s == start && address >= s && address - s < n));
            }
        }
    }
}
