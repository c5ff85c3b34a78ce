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
/// Where `package` is among them: what is loaded but not global hangs on it.
const PACKAGE: usize = 9;
/// Entries of all tables that are looked at in one reading. A large gateway has some 2,000 modules.
const NODES_MAX: u32 = 16_384;
/// Entries that are read in one go.
const NODES: usize = 64;
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
        let mut left = NODES_MAX;
        // Of each library the first: a hostile table may have any number of entries of one name.
        let mut libraries = [None; LIBRARIES.len()];
        each(memory, main.env, &mut left, &mut |name, value| {
            builtins.meet(memory, &mut libraries, name, value);
        });
        // `ffi` and `table.new` are only loaded, not global.
        let mut loaded = None;
        if let Some(package) = libraries[PACKAGE] {
            each(memory, package, &mut left, &mut |name, value| {
                if name == "loaded" {
                    loaded = tagged(value, slot::TABLE);
                }
            });
        }
        if let Some(loaded) = loaded {
            each(memory, loaded, &mut left, &mut |name, value| {
                builtins.meet(memory, &mut libraries, name, value);
            });
        }
        for (library, address) in LIBRARIES.iter().zip(libraries) {
            let Some(address) = address else { continue };
            each(memory, address, &mut left, &mut |name, value| {
                if let Some(function) = tagged(value, slot::FUNCTION) {
                    builtins.add(memory, function, format!("{library}.{name}"));
                }
            });
        }
        builtins
    }

    /// Takes a function, or notes a library that was not met before.
    fn meet(
        &mut self,
        memory: &impl Memory,
        libraries: &mut [Option<u64>; LIBRARIES.len()],
        name: &str,
        value: u64,
    ) {
        if let Some(function) = tagged(value, slot::FUNCTION) {
            self.add(memory, function, name.to_owned());
        } else if let Some(library) = tagged(value, slot::TABLE)
            && let Some(at) = LIBRARIES.iter().position(|known| *known == name)
        {
            libraries[at].get_or_insert(library);
        }
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

/// Names and values of a table's hash part. `left` is how many entries may still be looked at.
fn each(memory: &impl Memory, address: u64, left: &mut u32, meet: &mut dyn FnMut(&str, u64)) {
    let Some(bytes) = memory.bytes::<{ table::BYTES }>(address) else {
        return;
    };
    if bytes[object::TYPE] != object::TABLE {
        return;
    }
    let mut nodes = word_at(&bytes, table::NODES);
    let mut count = half_at(&bytes, table::MASK).saturating_add(1).min(*left);
    *left -= count;
    let mut some = [0; NODES * table::NODE_BYTES];
    while count > 0 {
        let wanted = (count as usize).min(NODES) * table::NODE_BYTES;
        let got = memory.read(nodes, &mut some[..wanted]);
        for node in some[..got].chunks_exact(table::NODE_BYTES) {
            let (value, key) = (word_at(node, 0), word_at(node, 8));
            if let Some(key) = tagged(key, slot::STRING)
                && let Some((name, length)) = names::text(memory, key, NAME_BYTES_MAX)
                && length == name.len()
                && let Ok(name) = std::str::from_utf8(&name)
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
            {
                meet(name, value);
            }
        }
        if got < wanted {
            return;
        }
        nodes = nodes.saturating_add(wanted as u64);
        count = count.saturating_sub(NODES as u32);
    }
}
