//! Functions of a file by their names.
//!
//! In: symbols. Out: those with a name as texts print it: mangled, demangled without parameters (perf), or
//! with a version behind it. Never: data, or symbols that the file does not define.

use model::demangle::demangle;
use std::cell::OnceCell;
use std::collections::HashMap;

/// A function's symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// Its address as the file counts.
    pub address: u64,
    /// Its bytes; 0 where the file does not say.
    pub bytes: u64,
}

/// Symbols by name. See the module.
#[derive(Debug, Default)]
pub struct Symbols {
    by_name: HashMap<Box<[u8]>, Vec<Symbol>>,
    /// The same by demangled names, made when a name was not found as it is.
    readable: OnceCell<HashMap<String, Vec<Symbol>>>,
}

impl Symbols {
    /// One more; the same one may come twice.
    pub fn add(&mut self, name: &[u8], symbol: Symbol) {
        if let Some(there) = self.by_name.get_mut(name) {
            there.push(symbol);
        } else {
            self.by_name.insert(name.into(), vec![symbol]);
        }
    }

    /// Puts those of one name into order. Call it when all are there.
    pub fn sort(&mut self) {
        self.by_name.values_mut().for_each(sort);
    }

    /// Those that a text means by `name`, by address.
    pub fn named(&self, name: &[u8]) -> Vec<Symbol> {
        if let Some(there) = self.by_name.get(name) {
            return there.clone();
        }
        // `malloc@plt` is no function of the file's; other words behind an @ are versions.
        if name.ends_with(b"@plt") {
            return Vec::new();
        }
        let bare = name.split(|b| *b == b'@').next().unwrap_or(name);
        if let Some(there) = self.by_name.get(bare) {
            return there.clone();
        }
        let readable = self.readable.get_or_init(|| self.readable());
        let name = String::from_utf8_lossy(name);
        readable.get(&*name).cloned().unwrap_or_default()
    }

    fn readable(&self) -> HashMap<String, Vec<Symbol>> {
        let mut readable: HashMap<String, Vec<Symbol>> = HashMap::new();
        let mangled = self
            .by_name
            .iter()
            .filter(|(name, _)| name.starts_with(b"_"));
        for (name, symbols) in mangled {
            let name = String::from_utf8_lossy(name);
            let plain = demangle(&name);
            if plain != name {
                readable.entry(plain).or_default().extend(symbols);
            }
        }
        readable.values_mut().for_each(sort);
        readable
    }
}

/// By address; of one address the largest first, which is the one that is kept of several.
fn sort(symbols: &mut Vec<Symbol>) {
    symbols.sort_unstable_by_key(|s| (s.address, u64::MAX - s.bytes));
    symbols.dedup();
}
