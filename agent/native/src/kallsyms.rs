//! Names of kernel functions. In: the text of /proc/kallsyms. Out: name and module for an
//! address. Never: a name when the kernel hides its addresses.

use crate::file;
use std::io;

/// The kernel's functions by address.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// Address, offset of the name, index of the module.
    rows: Vec<(u64, u32, u16)>,
    names: String,
    modules: Vec<String>,
}

/// Larger than any kernel's table: 122,000 lines are 6 MB.
const KALLSYMS_BYTES_MAX: usize = 128 << 20;
/// No function is longer; an address further from the one before it has no name.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;

impl KernelSymbols {
    /// Reads /proc/kallsyms. The table is empty when addresses are hidden (`kptr_restrict`).
    ///
    /// # Errors
    /// What open and read say.
    pub fn load() -> io::Result<Self> {
        let bytes = file::read_proc("/proc/kallsyms", KALLSYMS_BYTES_MAX)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Whether the kernel hides its addresses, by the file's first lines: writing the whole file
    /// costs the kernel tens of milliseconds.
    #[must_use]
    pub fn is_hidden() -> bool {
        let head = file::read_proc("/proc/kallsyms", 4096).unwrap_or_default();
        let text = String::from_utf8_lossy(&head);
        // Per-CPU symbols begin at 0 on x86-64 whether hidden or not: one other address will do.
        let shown = |l: &str| {
            l.split(' ')
                .next()
                .is_some_and(|a| a.bytes().any(|b| b != b'0'))
        };
        !text.lines().any(shown)
    }

    /// From the file's text: `ADDRESS TYPE NAME[\t[MODULE]]` a line.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self {
            modules: vec!["vmlinux".to_owned()],
            ..Self::default()
        };
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let Ok(address) = u64::from_str_radix(address, 16) else {
                continue;
            };
            if address == 0 {
                continue;
            }
            let module = match fields.next() {
                Some(module) => table.module(module.trim_matches(['[', ']'])),
                None => 0,
            };
            let Ok(at) = u32::try_from(table.names.len()) else {
                break;
            };
            table.names.push_str(name);
            table.names.push('\n');
            table.rows.push((address, at, module));
        }
        // Several names of one address: the first in the file is the oldest, keep it.
        table.rows.sort_by_key(|r| r.0);
        table.rows.dedup_by_key(|r| r.0);
        table
    }

    fn module(&mut self, name: &str) -> u16 {
        let known = self.modules.iter().position(|m| m == name);
        let index = known.unwrap_or_else(|| {
            self.modules.push(name.to_owned());
            self.modules.len() - 1
        });
        u16::try_from(index).unwrap_or(0)
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Name and module of the function at `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(&str, &str)> {
        let after = self.rows.partition_point(|r| r.0 <= address);
        let &(start, at, module) = self.rows.get(after.checked_sub(1)?)?;
        if address - start > FUNCTION_BYTES_MAX {
            return None;
        }
        let name = self.names.get(at as usize..)?.split('\n').next()?;
        Some((name, self.modules.get(usize::from(module))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_between_two_functions_belong_to_the_first() {
        let table = KernelSymbols::parse(
            "ffffffff81000000 T _stext\nffffffff81000000 T _text\nffffffff81000040 t do_one\n\
             ffffffff81000080 D data\nffffffffc0000000 t ext4_read\t[ext4]\nnonsense\n",
        );
        assert_eq!(
            table.find(0xffff_ffff_8100_0050),
            Some(("do_one", "vmlinux"))
        );
        assert_eq!(
            table.find(0xffff_ffff_8100_0000),
            Some(("_stext", "vmlinux"))
        );
        assert_eq!(
            table.find(0xffff_ffff_c000_0010),
            Some(("ext4_read", "ext4"))
        );
        assert_eq!(table.find(0xffff_ffff_9100_0050), None);
        assert_eq!(table.find(1), None);
    }

    #[test]
    fn hidden_addresses_give_an_empty_table() {
        assert!(
            KernelSymbols::parse("0000000000000000 T _stext\n0000000000000000 t x\n").is_empty()
        );
    }
}
