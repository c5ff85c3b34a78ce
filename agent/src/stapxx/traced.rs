//! One line of a script while its macros are replaced, and where each byte of it came from.
//!
//! In: a line. Out: the line after the replacements, with the column of each byte in the user's own
//! line. Never: a line longer than [`LINE_BYTES_MAX`], however often a macro stands in it.

use super::line_map::Run;
use super::scan::{Found, Macro};

/// Longest line after replacement, in bytes. Macros can double a line again and again.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// A line, with the origin of each byte.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) bytes: Vec<u8>,
    /// For each byte: the column, counted from 0, in the line as the user wrote it. `None` until
    /// something was replaced.
    origins: Option<Vec<Origin>>,
}

/// Where a byte came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    column: u32,
    /// Whether it stands for a macro that begins at `column`.
    replaced: bool,
}

impl Traced {
    pub(super) fn new(line: &[u8]) -> Self {
        Self {
            bytes: line.to_vec(),
            origins: None,
        }
    }

    /// Replaces every macro of one form, from left to right. What is put in is not looked at again.
    ///
    /// `replace` is given the macro, its names, and the column (from 1) of its begin.
    ///
    /// # Errors
    /// What `replace` says; `None` when the line grows beyond [`LINE_BYTES_MAX`].
    pub(super) fn replace_all<E>(
        &mut self,
        form: Macro,
        mut replace: impl FnMut(&Found<'_>, u32) -> Result<Vec<u8>, E>,
    ) -> Result<(), Option<E>> {
        let Some(first) = form.find(&self.bytes, 0) else {
            return Ok(());
        };
        let old = std::mem::take(&mut self.bytes);
        let mut origins = self.origins.take().unwrap_or_else(|| identity(old.len()));
        let mut new = Vec::with_capacity(old.len() + 64);
        let mut new_origins = Vec::with_capacity(old.len() + 64);
        let mut from = 0;
        let mut next = Some(first);
        while let Some(range) = next {
            let Some(found) = form.parse(&old, range.start) else {
                break;
            };
            new.extend_from_slice(&old[from..range.start]);
            new_origins.extend_from_slice(&origins[from..range.start]);
            let column = origins[range.start].column;
            let value = replace(&found, column + 1)?;
            if new.len() + value.len() > LINE_BYTES_MAX {
                return Err(None);
            }
            let replaced = true;
            new_origins.extend(value.iter().map(|_| Origin { column, replaced }));
            new.extend_from_slice(&value);
            from = range.end;
            next = form.find(&old, from);
        }
        new.extend_from_slice(&old[from..]);
        new_origins.extend_from_slice(&origins[from..]);
        origins.clear();
        self.bytes = new;
        self.origins = Some(new_origins);
        Ok(())
    }

    /// The runs of the line for a map; none when the line is as it was written.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut before: Option<Origin> = None;
        for (at, origin) in self.origins.iter().flatten().enumerate() {
            let goes_on = before.is_some_and(|b| {
                b.replaced == origin.replaced
                    && origin.column == b.column + u32::from(!origin.replaced)
            });
            if !goes_on {
                runs.push(Run {
                    at: u32::try_from(at).unwrap_or(u32::MAX),
                    column: origin.column,
                    replaced: origin.replaced,
                });
            }
            before = Some(*origin);
        }
        runs
    }
}

fn identity(len: usize) -> Vec<Origin> {
    (0..len)
        .map(|at| Origin {
            column: u32::try_from(at).unwrap_or(u32::MAX - 1),
            replaced: false,
        })
        .collect()
}
