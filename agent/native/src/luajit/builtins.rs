//! Names of LuaJIT's own functions. In: a VM's table of globals. Out: names by number. Never: a table
//! of numbers per version (they differ between builds; the VM itself knows them).

use super::layout::{function, object, slot, table};
use super::memory::{Memory, half_at, word_at};
use super::names;
use super::state::{self, tagged};
use super::walk::{Kind, kind_of};

/// Libraries whose functions are looked at.
const LIBRARIES: [&str; 11] = [
    "string",
    "table",
    "math",
    "coroutine",
    "os",
    "io",
    "debug",
    "bit",
    "jit",
    "package",
    "ffi",
];
/// Entries of one table that are looked at.
const NODES_MAX: u32 = 4096;
/// Longest name of a global that is read.
const NAME_BYTES_MAX: usize = 32;

/// Names by `ffid`.
#[derive(Clone, Debug)]
pub struct Builtins(Vec<Option<String>>);

impl Default for Builtins {
    fn default() -> Self {
        Self(vec![None; 256])
    }
}

impl Builtins {
    /// Reads them from the globals of a VM's main thread.
    pub fn read(memory: &impl Memory, global: u64) -> Self {
        let mut builtins = Self::default();
        let Some(main) = state::main_thread(memory, global) else {
            return builtins;
        };
        let mut libraries = Vec::new();
        let mut package = None;
        each(memory, main.env, &mut |name, value| {
            if let Some(function) = tagged(value, slot::FUNCTION) {
                builtins.add(memory, function, name.to_owned());
            } else if let Some(library) = tagged(value, slot::TABLE)
                && LIBRARIES.contains(&name)
            {
                if name == "package" {
                    package = Some(library);
                }
                libraries.push((name.to_owned(), library));
            }
        });
        // `ffi` and `table.new` are only loaded, not global.
        let mut loaded = None;
        if let Some(package) = package {
            each(memory, package, &mut |name, value| {
                if name == "loaded" {
                    loaded = tagged(value, slot::TABLE);
                }
            });
        }
        if let Some(loaded) = loaded {
            each(memory, loaded, &mut |name, value| {
                let known = libraries.iter().any(|l| l.0 == name);
                if let Some(library) = tagged(value, slot::TABLE)
                    && LIBRARIES.contains(&name)
                    && !known
                {
                    libraries.push((name.to_owned(), library));
                } else if let Some(function) = tagged(value, slot::FUNCTION) {
                    builtins.add(memory, function, name.to_owned());
                }
            });
        }
        for (library, address) in libraries {
            each(memory, address, &mut |name, value| {
                if let Some(function) = tagged(value, slot::FUNCTION) {
                    builtins.add(memory, function, format!("{library}.{name}"));
                }
            });
        }
        builtins
    }

    fn add(&mut self, memory: &impl Memory, address: u64, name: String) {
        let bytes = memory.bytes::<{ function::BYTES }>(address);
        if let Some(Kind::Builtin(number)) = bytes.as_ref().and_then(|b| kind_of(b))
            && let Some(slot) = self.0.get_mut(usize::from(number))
            && slot.as_ref().is_none_or(|known| name < *known)
        {
            *slot = Some(name);
        }
    }

    /// The name of a builtin.
    #[must_use]
    pub fn name(&self, number: u8) -> Option<&str> {
        self.0.get(usize::from(number))?.as_deref()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Names and values of a table's hash part.
fn each(memory: &impl Memory, address: u64, meet: &mut dyn FnMut(&str, u64)) {
    let Some(bytes) = memory.bytes::<{ table::BYTES }>(address) else {
        return;
    };
    if bytes[object::TYPE] != object::TABLE {
        return;
    }
    let nodes = word_at(&bytes, table::NODES);
    let count = half_at(&bytes, table::MASK).min(NODES_MAX - 1) + 1;
    let mut node = [0; table::NODE_BYTES];
    for index in 0..u64::from(count) {
        let Some(at) = nodes.checked_add(index * table::NODE_BYTES as u64) else {
            return;
        };
        if memory.read(at, &mut node) != node.len() {
            return;
        }
        let (value, key) = (word_at(&node, 0), word_at(&node, 8));
        if let Some(key) = tagged(key, slot::STRING)
            && let Some((name, length)) = names::text(memory, key, NAME_BYTES_MAX)
            && length == name.len()
            && let Ok(name) = std::str::from_utf8(&name)
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        {
            meet(name, value);
        }
    }
}
