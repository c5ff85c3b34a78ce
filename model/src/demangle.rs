//! Names as people write them. In: a symbol's name. Out: C++ and Rust names demangled, versions
//! cut off. Never: a name longer than its bound (a hostile one could expand without end).

use cpp_demangle::{DemangleOptions, Symbol};
use std::fmt::{self, Write};

/// Longest name that is looked at, and longest that comes out, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// The readable form of a symbol's name.
#[must_use]
pub fn demangle(name: &str) -> String {
    // memcpy@@GLIBC_2.14 and memcpy@GLIBC_2.2.5 are both memcpy.
    let name = match name.split_once('@') {
        Some((bare, _)) if !bare.is_empty() => bare,
        _ => name,
    };
    let name = cut(name);
    let mut readable = Bounded::default();
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // What did not fit is cut off.
        let _ = write!(readable, "{rust:#}");
    } else if name.starts_with("_Z")
        && let Ok(symbol) = Symbol::new(name)
    {
        let options = DemangleOptions::new()
            .no_params()
            .no_return_type()
            .recursion_limit(128);
        let whole = symbol.structured_demangle(&mut readable, &options).is_ok();
        if !whole && !readable.is_full {
            return name.to_owned();
        }
    }
    if readable.text.is_empty() {
        name.to_owned()
    } else {
        readable.text
    }
}

/// Text up to [`NAME_BYTES_MAX`]; who writes more is told to stop.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    is_full: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.text.push_str(cut(more));
        self.is_full |= self.text.len() > NAME_BYTES_MAX;
        if self.is_full {
            self.text.truncate(cut(&self.text).len());
            return Err(fmt::Error);
        }
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_readable() {
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangle("_ZN3foo3barEi"), "foo::bar");
        assert_eq!(
            demangle("_ZN4core3fmt5write17h0123456789abcdefE"),
            "core::fmt::write"
        );
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(
            demangle("ngx_http_process_request"),
            "ngx_http_process_request"
        );
        assert_eq!(demangle("_Z"), "_Z");
        assert!(demangle(&"x".repeat(9_000)).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn a_name_that_doubles_at_each_step_ends() {
        let hostile = format!("_Z1fI{}iE", "S_I".repeat(200));
        assert!(demangle(&hostile).len() <= NAME_BYTES_MAX);
        // Each pair holds the one before twice: 2^60 words in 400 bytes.
        let mut doubling = "_ZN1aI1bIiiE".to_owned();
        for i in 0..60_u32 {
            let last = char::from_digit(i % 36, 36).map_or('0', |c| c.to_ascii_uppercase());
            doubling.push_str(&format!("1bIS{last}_S{last}_E"));
        }
        doubling.push_str("E1fEv");
        assert!(demangle(&doubling).len() <= NAME_BYTES_MAX);
    }
}
